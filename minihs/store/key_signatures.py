# SPDX-License-Identifier: Apache-2.0
"""Signatures that our users put on keys after these were uploaded (client-server-api, "Cross-signing")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.store.database import Reader, Tx


def add(tx: Tx, user_id: str, key_id: str, signer: str, signer_key: str, signature: str) -> bool:
    """Keep a checked signature of a key of `user_id`, made by `signer`. False: it was there already."""
    cursor = tx.execute(
        "INSERT INTO key_signatures VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id, key_id, signer, signer_key) "
        "DO UPDATE SET signature = excluded.signature WHERE signature != excluded.signature",
        (user_id, key_id, signer, signer_key, signature),
    )
    return cursor.rowcount == 1


def merged(db: Reader, key: JsonObject, user_id: str, key_id: str, viewer: str | None) -> JsonObject:
    """A copy of the key with the later signatures that `viewer` may see: the owner's, and the viewer's own.

    What others' user-signing keys sign stays hidden, so that nobody learns who verified whom.
    """
    rows = db.execute(
        "SELECT signer, signer_key, signature FROM key_signatures "
        "WHERE user_id = ? AND key_id = ? AND signer IN (?, ?)",
        (user_id, key_id, user_id, viewer or user_id),
    ).fetchall()
    if not rows:
        return key
    known = key.get("signatures")
    signatures = (
        {signer: dict(of) for signer, of in known.items() if isinstance(of, dict)}
        if isinstance(known, dict)
        else {}
    )
    for signer, signer_key, signature in rows:
        signatures.setdefault(signer, {})[signer_key] = signature
    return {**key, "signatures": signatures}


def delete_of_key(tx: Tx, user_id: str, key_id: str) -> None:
    """The key is gone or replaced: neither what signed it nor what it signed counts any more."""
    tx.execute("DELETE FROM key_signatures WHERE user_id = ? AND key_id = ?", (user_id, key_id))
    tx.execute(
        "DELETE FROM key_signatures WHERE signer = ? AND signer_key = ?", (user_id, f"ed25519:{key_id}")
    )
