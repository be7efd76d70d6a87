# SPDX-License-Identifier: Apache-2.0
"""What must hold when everything works again and time has passed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.store import events as event_store
from minihs.store import ids, rooms, state
from minihs.store.database import Reader
from minihs.store.events import Outcome, StoredEvent
from minihs.testing.servers import Cluster
from tests.simulation.crowd import Ledger
from tests.simulation.watcher import Watcher

type StateIds = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Holding:
    """A room as one server's database holds it."""

    name: str
    db: Reader
    room_id: str
    room_nid: int
    version: RoomVersion

    @classmethod
    def of(cls, world: Cluster, name: str, room_id: str) -> Holding:
        db = world[name].server.services.db.read
        room = rooms.get(db, room_id)
        assert room is not None
        assert room.resident, f"{name} is not in the room"
        return cls(name, db, room_id, room.room_nid, ROOM_VERSIONS[room.version or ""])

    def events(self) -> dict[str, StoredEvent]:
        rows = self.db.execute("SELECT event_nid FROM events WHERE room_nid = ?", (self.room_nid,)).fetchall()
        found = event_store.get_nids(self.db, [nid for (nid,) in rows])
        return {stored.event.event_id: stored for stored in found.values()}

    def extremities(self) -> set[str]:
        rows = self.db.execute(
            "SELECT event_id FROM forward_extremities JOIN event_ids USING (event_nid) WHERE room_nid = ?",
            (self.room_nid,),
        ).fetchall()
        return {event_id for (event_id,) in rows}

    def left_behind(self) -> set[str]:
        """Events of stays that ended before the state at them was known."""
        rows = self.db.execute(
            "SELECT event_id FROM partial_events JOIN event_ids USING (event_nid)"
        ).fetchall()
        return {event_id for (event_id,) in rows}

    def state(self, group: int) -> dict[tuple[str, str], str]:
        by_nid = state.read_group(self.db, group)
        keys = ids.state_keys(self.db, by_nid.keys())
        event_ids = ids.event_ids(self.db, set(by_nid.values()))
        return {keys[key_nid]: event_ids[nid] for key_nid, nid in by_nid.items()}

    def inbox(self) -> list[tuple[object, ...]]:
        query = "SELECT kind, event_id, origin, attempts FROM inbox"
        return [tuple(row) for row in self.db.execute(query).fetchall()]


def check_inbox_is_empty(holding: Holding) -> None:
    assert holding.inbox() == [], f"{holding.name} has not worked off its inbox"


def check_nothing_lost(holding: Holding, ledger: Ledger) -> None:
    """Each acknowledged event is there with the state at it, and was not rejected: the server that
    acknowledged it had checked it against the same rules and the same graph."""
    held = holding.events()
    for event_id, kind in ledger.events.items():
        assert event_id in held, f"{holding.name} lacks {event_id} ({kind})"
        stored = held[event_id]
        assert not stored.outlier, f"{holding.name} has {event_id} ({kind}) as an outlier"
        assert stored.outcome is not Outcome.REJECTED, (
            f"{holding.name} rejected {event_id} ({kind}): {stored.reason}"
        )


def check_extremities(holding: Holding, last: str) -> None:
    """Everything is below the last word."""
    assert holding.extremities() == {last}, f"forward extremities of {holding.name}"


def check_timeline(watcher: Watcher, holding: Holding, ledger: Ledger) -> None:
    """Each acknowledged message that the server did not soft-fail came once by /sync, none twice. (What it
    got as history, behind a gap, is found by scrolling back: `check_history`.)"""
    ids = [event["event_id"] for event in watcher.timeline]
    twice = [event_id for event_id, times in Counter(ids).items() if times > 1]
    assert not twice, f"{watcher} was given twice: {twice}"
    held, seen = holding.events(), watcher.seen()
    for event_id, body in ledger.texts.items():
        if held[event_id].outcome is Outcome.ACCEPTED and (held[event_id].arrival or 0) > 0:
            assert event_id in seen, f"{watcher} was never given {event_id} ({body})"
    bodies = Counter(body for event in seen.values() if (body := event["content"].get("body")))
    assert [body for body, times in bodies.items() if times > 1] == [], "one message became two events"


async def check_history(watcher: Watcher, holding: Holding, ledger: Ledger) -> None:
    """Scrolling back finds the same, once."""
    ids = [event["event_id"] for event in await watcher.history()]
    assert len(ids) == len(set(ids)), f"{watcher} scrolls past the same event twice"
    held = holding.events()
    lacking = [
        f"{event_id} ({kind})"
        for event_id, kind in ledger.events.items()
        if kind != "m.room.redaction"  # one that is not in force is not shown
        and event_id in held
        and held[event_id].outcome is Outcome.ACCEPTED
        and event_id not in ids
    ]
    assert not lacking, f"{watcher} does not find by scrolling: {lacking}"
