# SPDX-License-Identifier: Apache-2.0
"""Profiles of local users: fields with JSON values (client-server-api, "Profiles")."""

from __future__ import annotations

import json
from typing import Any

from minihs.store.database import Reader, Tx


def get(db: Reader, user_id: str) -> dict[str, Any]:
    """All fields; empty for a user without profile, or without account."""
    rows = db.execute("SELECT field, value FROM profiles WHERE user_id = ?", (user_id,)).fetchall()
    return {field: json.loads(value) for field, value in rows}


def display(db: Reader, user_id: str) -> tuple[str | None, str | None]:
    """(displayname, avatar_url), as they go into member events."""
    rows = dict(
        db.execute(
            "SELECT field, value FROM profiles WHERE user_id = ? AND field IN ('displayname', 'avatar_url')",
            (user_id,),
        ).fetchall()
    )
    return (
        json.loads(rows["displayname"]) if "displayname" in rows else None,
        json.loads(rows["avatar_url"]) if "avatar_url" in rows else None,
    )


def set_field(tx: Tx, user_id: str, field: str, value: str) -> None:
    """`value` is JSON."""
    tx.execute(
        "INSERT INTO profiles VALUES (?, ?, ?) ON CONFLICT (user_id, field) DO UPDATE SET value = "
        "excluded.value",
        (user_id, field, value),
    )


def delete_field(tx: Tx, user_id: str, field: str) -> None:
    tx.execute("DELETE FROM profiles WHERE user_id = ? AND field = ?", (user_id, field))


def delete(tx: Tx, user_id: str) -> None:
    tx.execute("DELETE FROM profiles WHERE user_id = ?", (user_id,))


def size(db: Reader, user_id: str) -> int:
    """Bytes of all fields, names included: close to the size of the profile as JSON."""
    row = db.execute(
        "SELECT COALESCE(SUM(LENGTH(CAST(field AS BLOB)) + LENGTH(CAST(value AS BLOB)) + 4), 2) "
        "FROM profiles WHERE user_id = ?",
        (user_id,),
    ).fetchone()
    return int(row[0])
