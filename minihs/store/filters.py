# SPDX-License-Identifier: Apache-2.0
"""Filters that clients stored (client-server-api, "Filtering")."""

from __future__ import annotations

import json
from typing import Any

from minihs.store.database import Reader, Tx

MAX_FILTERS = 500
"""Per user. The oldest goes first; a client whose filter is gone gets M_NOT_FOUND and stores it again."""


def get(db: Reader, user_id: str, filter_id: int) -> dict[str, Any] | None:
    row = db.execute(
        "SELECT json FROM filters WHERE filter_id = ? AND user_id = ?", (filter_id, user_id)
    ).fetchone()
    if row is None:
        return None
    content: dict[str, Any] = json.loads(row[0])
    return content


def find(db: Reader, user_id: str, digest: bytes) -> int | None:
    row = db.execute(
        "SELECT filter_id FROM filters WHERE user_id = ? AND digest = ?", (user_id, digest)
    ).fetchone()
    return None if row is None else int(row[0])


def add(tx: Tx, user_id: str, digest: bytes, filter_json: str) -> int:
    """The id of the filter: the one that it has already, if it was stored before."""
    existing = find(tx, user_id, digest)
    if existing is not None:
        return existing
    row = tx.execute(
        "INSERT INTO filters (user_id, digest, json) VALUES (?, ?, ?) RETURNING filter_id",
        (user_id, digest, filter_json),
    ).fetchone()
    tx.execute(
        "DELETE FROM filters WHERE user_id = ? AND filter_id <= "
        "(SELECT filter_id FROM filters WHERE user_id = ? ORDER BY filter_id DESC LIMIT 1 OFFSET ?)",
        (user_id, user_id, MAX_FILTERS),
    )
    return int(row[0])
