# SPDX-License-Identifier: Apache-2.0
"""The signing keys of other servers, and the documents in which they were published."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from minihs.store import ids
from minihs.store.database import Reader, Tx
from minihs.store.packing import pack, unpack


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key; times in milliseconds."""

    public_key: bytes
    valid_until_ts: int
    """Of the newest document that has the key, and no more than seven days after that was fetched."""
    expired_ts: int | None
    """Not None: no longer in use, and good for events up to then."""
    direct: bool
    """From the server itself, over TLS; not through a notary."""
    fetched_ts: int


@dataclass(frozen=True, slots=True)
class StoredDocument:
    json: bytes
    fetched_ts: int
    valid_until_ts: int


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as a document has it."""

    public_key: bytes
    expired_ts: int | None


def get(db: Reader, server: str) -> dict[str, StoredKey]:
    rows = db.execute(
        "SELECT k.key_id, k.public_key, k.valid_until_ts, k.expired_ts, k.direct, d.fetched_ts "
        "FROM server_keys k JOIN key_documents d USING (doc_nid) WHERE k.server = ?",
        (server,),
    ).fetchall()
    return {row[0]: StoredKey(row[1], row[2], row[3], bool(row[4]), row[5]) for row in rows}


def documents(db: Reader, server: str, key_ids: Collection[str] = ()) -> list[StoredDocument]:
    """The documents that hold these keys, newest first; without keys the newest document."""
    if key_ids:
        rows = db.execute(
            "SELECT DISTINCT d.json, d.fetched_ts, d.valid_until_ts FROM key_documents d "
            "JOIN server_keys k USING (doc_nid) "
            f"WHERE k.server = ? AND k.key_id IN ({ids.marks(len(key_ids))}) ORDER BY d.fetched_ts DESC",
            (server, *key_ids),
        ).fetchall()
    else:
        rows = db.execute(
            "SELECT json, fetched_ts, valid_until_ts FROM key_documents WHERE server = ? "
            "ORDER BY fetched_ts DESC, doc_nid DESC LIMIT 1",
            (server,),
        ).fetchall()
    return [StoredDocument(unpack(row[0]), row[1], row[2]) for row in rows]


def save(
    tx: Tx,
    server: str,
    keys: Mapping[str, NewKey],
    *,
    json: bytes,
    fetched_ts: int,
    valid_until_ts: int,
    direct: bool,
) -> list[str]:
    """Take over what a document says. Returns the ids of keys that it tried to replace by others in vain."""
    doc_nid = tx.execute(
        "INSERT INTO key_documents (server, json, fetched_ts, valid_until_ts, direct) VALUES (?, ?, ?, ?, ?) "
        "RETURNING doc_nid",
        (server, pack(json), fetched_ts, valid_until_ts, int(direct)),
    ).fetchone()[0]
    known = get(tx, server)
    refused: list[str] = []
    for key_id, new in keys.items():
        old = known.get(key_id)
        until = valid_until_ts
        if old is not None:
            in_force = old.expired_ts is None and old.valid_until_ts > fetched_ts
            if old.public_key != new.public_key:
                # The first key seen under an id stays. Only the server itself may put another in its place,
                # and only when the first came from somebody else or has run out.
                if not direct or (old.direct and in_force):
                    refused.append(key_id)
                    continue
            elif not direct and (old.direct and (in_force or old.expired_ts is not None)):
                continue  # a notary's word does not count while the server's own does
            elif not direct and until <= old.valid_until_ts:
                continue  # an older document than the one we have
            else:
                until = max(until, old.valid_until_ts)
        tx.execute(
            "INSERT OR REPLACE INTO server_keys VALUES (?, ?, ?, ?, ?, ?, ?)",
            (server, key_id, new.public_key, until, new.expired_ts, int(direct), doc_nid),
        )
    tx.execute(
        "DELETE FROM key_documents WHERE server = ? AND doc_nid NOT IN "
        "(SELECT doc_nid FROM server_keys WHERE server = ?)",
        (server, server),
    )
    return refused
