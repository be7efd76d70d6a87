# SPDX-License-Identifier: Apache-2.0
"""Each user's changes to the predefined push rules: see matrix/push_rules.py for their form."""

from __future__ import annotations

import json
from typing import Any

from minihs.matrix import push_rules as rules
from minihs.store.database import Reader, Tx
from minihs.store.kept import ACCOUNT_DATA, kept


def changes(db: Reader, user_id: str) -> tuple[dict[str, Any], int]:
    """The changes, and the `pos` of the last of them (0: there are none)."""
    row = db.execute("SELECT changes, pos FROM push_rules WHERE user_id = ?", (user_id,)).fetchone()
    return ({}, 0) if row is None else (json.loads(row[0]), int(row[1]))


def ruleset(db: Reader, user_id: str) -> dict[str, list[dict[str, Any]]]:
    """All the rules of a user by kind: what is under `global`."""
    return rules.ruleset(user_id, changes(db, user_id)[0])


def last_change(db: Reader, user_id: str) -> int:
    """`pos` of the last change; 0 if the user has the predefined rules."""

    def read() -> int:
        row = db.execute("SELECT pos FROM push_rules WHERE user_id = ?", (user_id,)).fetchone()
        return 0 if row is None else int(row[0])

    return kept(db, ACCOUNT_DATA, user_id, "push rules", read)


def put(tx: Tx, user_id: str, changes: dict[str, Any]) -> None:
    tx.execute(
        "INSERT INTO push_rules VALUES (?, ?, ?) "
        "ON CONFLICT (user_id) DO UPDATE SET changes = excluded.changes, pos = excluded.pos",
        (user_id, json.dumps(changes, ensure_ascii=False, separators=(",", ":")), tx.next_pos()),
    )
    tx.wake(f"user:{user_id}")
