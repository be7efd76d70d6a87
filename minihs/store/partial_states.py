# SPDX-License-Identifier: Apache-2.0
"""Putting whole states in the place of partial ones: what `rooms.partial_replay` writes in its one commit."""

from __future__ import annotations

from collections.abc import Iterable

from minihs.store import relations, search, state
from minihs.store.database import Tx
from minihs.store.events import Outcome


def settle(
    tx: Tx,
    nid: int,
    outcome: Outcome,
    reason: str | None,
    before_group: int | None,
    after_group: int | None,
    *,
    shown_before: bool,
) -> None:
    """An event's verdict and states, now that the whole state is known. One that is rejected now has no place
    in the timeline any more."""
    tx.execute(
        "UPDATE events SET outcome = ?, reason = ?, before_group = ?, after_group = ? WHERE event_nid = ?",
        (int(outcome), reason, before_group, after_group, nid),
    )
    if outcome is Outcome.REJECTED and shown_before:
        search.remove(tx, nid)
        relations.remove(tx, nid)
        tx.execute("UPDATE events SET topo = NULL, arrival = NULL WHERE event_nid = ?", (nid,))
        tx.execute("DELETE FROM backward_extremities WHERE successor = ?", (nid,))


def set_forward_extremities(tx: Tx, room_nid: int, nids: Iterable[int]) -> None:
    tx.execute("DELETE FROM forward_extremities WHERE room_nid = ?", (room_nid,))
    tx.executemany("INSERT INTO forward_extremities VALUES (?, ?)", [(room_nid, nid) for nid in nids])


def retell(tx: Tx, room_nid: int, joined_pos: int, partial_join: int | None, full_join: int) -> None:
    """The room's state by position, since the join: as it was told, with what had been missing added.

    `partial_join`, `full_join`: the state after the join, as it was and as it is.
    """
    rows = tx.execute(
        "SELECT pos, group_nid FROM room_states WHERE room_nid = ? AND pos >= ? ORDER BY pos",
        (room_nid, joined_pos),
    ).fetchall()
    told = partial_join
    group = full_join
    if told is not None:
        wrong = {key: was for key, (was, _) in state.diff(tx, told, full_join).items() if was is not None}
        group = state.new_group(tx, room_nid, full_join, dict(wrong))
    for pos, next_told in rows:
        if told is not None and next_told != told:
            changes = {key: after for key, (_, after) in state.diff(tx, told, next_told).items()}
            group = state.new_group(tx, room_nid, group, changes)
        told = next_told
        tx.execute(
            "UPDATE room_states SET group_nid = ? WHERE room_nid = ? AND pos = ?", (group, room_nid, pos)
        )
