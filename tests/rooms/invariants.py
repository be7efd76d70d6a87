# SPDX-License-Identifier: Apache-2.0
"""What must hold of a server's rooms at any moment at which it rests, whatever happened before."""

from __future__ import annotations

from minihs.matrix.event import Event
from minihs.rooms.service import Rooms
from minihs.store import state
from minihs.store.events import Outcome
from tests.matrix import oracle
from tests.rooms.world import World


def check(server: Rooms, room_id: str) -> None:
    """Of a room that the server is in."""
    check_unfolded(server, room_id)
    check_extremities(server, room_id)


def is_resident(server: Rooms, room_id: str) -> bool:
    row = server.parts.db.read.execute("SELECT resident FROM rooms WHERE room_id = ?", (room_id,)).fetchone()
    return row is not None and bool(row[0])


def check_unfolded(server: Rooms, room_id: str) -> None:
    """What is unfolded for point reads is what the state group says."""
    db = server.parts.db.read
    nid, group = db.execute(
        "SELECT room_nid, state_group FROM rooms WHERE room_id = ?", (room_id,)
    ).fetchone()
    whole = state.read_group(db, group)
    assert whole == dict(
        db.execute("SELECT key_nid, event_nid FROM current_state WHERE room_nid = ?", (nid,)).fetchall()
    ), "current_state is not the state group"

    graph = server.parts.graph
    by_key = {
        key: graph.event(event_id) for key, event_id in graph.full(server.parts.head(room_id).current).items()
    }
    members = {
        user_id: event.membership or "leave"
        for (type, user_id), event in by_key.items()
        if type == "m.room.member" and event is not None
    }
    told = dict(
        db.execute("SELECT user_id, membership FROM memberships WHERE room_nid = ?", (nid,)).fetchall()
    )
    for user_id, membership in told.items():
        assert members.get(user_id, "leave") == membership, f"{user_id} is not {membership}"
    assert set(members) <= set(told)

    joined: dict[str, int] = {}
    for user_id, membership in members.items():
        if membership == "join":
            host = user_id.partition(":")[2]
            joined[host] = joined.get(host, 0) + 1
    counted = db.execute(
        "SELECT h.host, r.joined FROM room_hosts r JOIN hosts h USING (host_nid) "
        "WHERE r.room_nid = ? AND r.joined != 0",
        (nid,),
    ).fetchall()
    assert joined == dict(counted), "room_hosts does not count the joined users"


def check_extremities(server: Rooms, room_id: str) -> None:
    """Forward extremities are accepted and nothing accepted is built on them; the current state is theirs."""
    db, head = server.parts.db.read, server.parts.head(room_id)
    assert head.tips, "a room without an end"
    for event_id in head.tips:
        outcome, children = db.execute(
            "SELECT e.outcome, (SELECT COUNT(*) FROM edges d JOIN events c ON c.event_nid = d.event_nid "
            "WHERE d.prev_nid = e.event_nid AND c.outcome = 0) FROM events e JOIN event_ids i "
            "USING (event_nid) WHERE i.event_id = ?",
            (event_id,),
        ).fetchone()
        assert outcome == Outcome.ACCEPTED, f"{event_id} was not accepted"
        assert children == 0, f"{event_id} is built upon"
    graph = server.parts.graph
    resolved = graph.resolve(head.version, [tip.after for tip in head.tips.values()])
    assert graph.full(resolved) == graph.full(head.current), "the current state is not that of the ends"


def check_against_oracle(world: World, room_id: str) -> int:
    """No server accepted what the slow, independent checker refuses, nor rejected what it allows; and each
    knows the state before each event. Returns the number of events that were looked at.

    Not of events of a stay that ended before their state was known.
    """
    events: dict[str, Event] = {}
    found: dict[str, dict[str, tuple[int, int | None]]] = {}
    for name, server in world.servers.items():
        rows = server.parts.db.read.execute(
            "SELECT i.event_id, e.outcome, e.before_group, e.outlier FROM events e "
            "JOIN event_ids i USING (event_nid) JOIN rooms r USING (room_nid) WHERE r.room_id = ? "
            "AND e.event_nid NOT IN (SELECT event_nid FROM partial_events)",
            (room_id,),
        ).fetchall()
        for event_id, outcome, before, outlier in rows:
            stored = server.parts.graph.stored(event_id)
            assert stored is not None
            events[event_id] = oracle.longest(stored.event, events.get(event_id))
            if not outlier:
                found.setdefault(name, {})[event_id] = (outcome, before)
    known = oracle.with_all_parents(events)
    (version,) = {event.version for event in known.values()}
    verdict = oracle.judge_room(version, known)
    for name, outcomes in found.items():
        for event_id, (outcome, before) in outcomes.items():
            if event_id not in known:
                continue
            rejected = outcome == Outcome.REJECTED
            assert rejected == (event_id in verdict.rejected), f"{name} on {known[event_id]}"
            graph = world.servers[name].parts.graph
            if before is not None and known[event_id].prev_events:
                full = graph.full_group(before)
                assert full == verdict.before[event_id], f"{name}: the state before {known[event_id]}"
    return len(known)
