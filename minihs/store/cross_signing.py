# SPDX-License-Identifier: Apache-2.0
"""Cross-signing keys of local users: master, self_signing and user_signing."""

from __future__ import annotations

import json

from minihs.matrix.canonical import JsonObject
from minihs.store import key_signatures
from minihs.store.database import Reader, Tx

USAGES = ("master", "self_signing", "user_signing")


def get(db: Reader, user_id: str) -> dict[str, JsonObject]:
    """The user's keys by usage, as uploaded."""
    rows = db.execute("SELECT usage, json FROM cross_signing_keys WHERE user_id = ?", (user_id,)).fetchall()
    return {usage: json.loads(text) for usage, text in rows}


def public_keys(db: Reader, user_id: str) -> dict[str, str]:
    """Public key by usage."""
    return dict(
        db.execute(
            "SELECT usage, public_key FROM cross_signing_keys WHERE user_id = ?", (user_id,)
        ).fetchall()
    )


def visible(db: Reader, user_id: str, viewer: str | None) -> dict[str, JsonObject]:
    """The keys by usage that `viewer` may see, with later signatures; None: another server."""
    result = {}
    for usage, public_key, text in db.execute(
        "SELECT usage, public_key, json FROM cross_signing_keys WHERE user_id = ?", (user_id,)
    ).fetchall():
        if usage != "user_signing" or viewer == user_id:
            result[usage] = key_signatures.merged(db, json.loads(text), user_id, public_key, viewer)
    return result


def put(tx: Tx, user_id: str, usage: str, public_key: str, key: JsonObject) -> bool:
    """False: the user has exactly this key already."""
    before = get(tx, user_id).get(usage)
    if before == key:
        return False
    old = public_keys(tx, user_id).get(usage)
    if old is not None and old != public_key:
        key_signatures.delete_of_key(tx, user_id, old)
    tx.execute(
        "INSERT INTO cross_signing_keys VALUES (?, ?, ?, ?) ON CONFLICT (user_id, usage) "
        "DO UPDATE SET public_key = excluded.public_key, json = excluded.json",
        (user_id, usage, public_key, json.dumps(key, ensure_ascii=False, separators=(",", ":"))),
    )
    return True


def delete(tx: Tx, user_id: str) -> None:
    for public_key in public_keys(tx, user_id).values():
        key_signatures.delete_of_key(tx, user_id, public_key)
    tx.execute("DELETE FROM cross_signing_keys WHERE user_id = ?", (user_id,))
