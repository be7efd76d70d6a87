# SPDX-License-Identifier: Apache-2.0
"""What must go to other servers: one row per event, naming an interned set of servers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from minihs.store import ids
from minihs.store.database import Tx


def intern_host_set(tx: Tx, hosts: Iterable[str]) -> int | None:
    """The number of a set of servers; None for the empty set."""
    names = sorted(set(hosts))
    if not names:
        return None
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    row = tx.execute("SELECT host_set_nid FROM host_sets WHERE digest = ?", (digest,)).fetchone()
    if row is not None:
        return int(row[0])
    row = tx.execute("INSERT INTO host_sets (digest) VALUES (?) RETURNING host_set_nid", (digest,)).fetchone()
    nid = int(row[0])
    newest = tx.execute("SELECT COALESCE(MAX(seq), 0) FROM outbound").fetchone()[0]
    for name in names:
        host_nid = ids.intern_host(tx, name)
        tx.execute("INSERT INTO host_set_members VALUES (?, ?)", (host_nid, nid))
        # A server first met now owes us nothing of the past: its cursor starts here.
        tx.execute("INSERT OR IGNORE INTO destinations (host_nid, cursor) VALUES (?, ?)", (host_nid, newest))
    return nid


def enqueue(tx: Tx, event_nid: int, host_set_nid: int) -> int:
    """Have the event sent to each server of the set. Returns its place in the order of sending."""
    row = tx.execute(
        "INSERT INTO outbound (event_nid, host_set_nid) VALUES (?, ?) RETURNING seq",
        (event_nid, host_set_nid),
    ).fetchone()
    tx.wake(f"hostset:{host_set_nid}")
    return int(row[0])
