# SPDX-License-Identifier: Apache-2.0
"""Events that were stored before there were indexes of relations and words: they are put in after the start,
some at a time."""

from __future__ import annotations

from minihs.store import relations, search, timeline
from minihs.store.reader import Reader
from minihs.store.writer import Tx

WINDOW = 500
"""Events that are looked through in one closure."""


def are_left(db: Reader) -> bool:
    row = db.execute("SELECT nid < upto FROM old_events").fetchone()
    return bool(row[0])


def index(tx: Tx) -> bool:
    """Look through the next ones. True: there are more."""
    start, upto = tx.execute("SELECT nid, upto FROM old_events").fetchone()
    found = tx.execute(
        "SELECT event_nid, arrival FROM events WHERE event_nid > ? AND event_nid <= ? "
        "AND topo IS NOT NULL AND outcome = 0 AND redacted_by IS NULL ORDER BY event_nid LIMIT ?",
        (start, upto, WINDOW),
    ).fetchall()
    bodies = timeline.bodies(tx, [nid for nid, _ in found])
    for nid, arrival in found:
        event_id, pdu = bodies[nid]
        relations.index(tx, nid, event_id, pdu)
        if arrival is not None and arrival < 0:  # live ones are seen to by `search.catch_up`
            search.index_old(tx, nid, pdu)
    done = found[-1][0] if len(found) == WINDOW else upto
    tx.execute("UPDATE old_events SET nid = ?", (done,))
    return bool(done < upto)
