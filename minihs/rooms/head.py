# SPDX-License-Identifier: Apache-2.0
"""The newest part of a room: its forward extremities and current state, kept by the room's task while it
works.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.rooms.graph import Graph
from minihs.rooms.state import StateMap, StateRef
from minihs.store import events, partial, rooms
from minihs.store.database import Reader

MAX_PREV_EVENTS = 20

TIE_TYPE = "org.matrix.dummy_event"
"""Of events that only tie ends of the history together (rooms/ties.py). Synapse uses it for events without
any meaning of their own; clients ignore it."""

MAX_PARTIAL_EVENTS = 5_000
"""Events that are taken in by a state that lacks members. What comes beyond that waits for them."""


class NotInRoom(MatrixError):
    """No user of ours is joined, so nothing can be done in the room."""

    def __init__(self) -> None:
        super().__init__(404, "M_NOT_FOUND", "This server is not in the room.")


@dataclass(slots=True)
class Tip:
    """An event of the timeline that something may be built on."""

    event_id: str
    topo: int
    depth: int
    after: StateRef
    tied_by: str | None = None
    """The server that made it, if it is a tie."""

    @classmethod
    def of(cls, event: Event, topo: int, after: StateRef) -> Tip:
        tied_by = event.origin if event.type == TIE_TYPE else None
        return cls(event.event_id, topo, event.depth, after, tied_by)


@dataclass(slots=True)
class Partial:
    """We are in the room, and know all of its state but most of the members (rooms/partial_join.py)."""

    before: StateRef
    """The state before our join, as far as we know it."""
    prev_id: str | None
    """The parent of our join, if it has just one: after it, the state is that before the join."""
    events: int
    """How many came since."""

    @property
    def is_full(self) -> bool:
        return self.events >= MAX_PARTIAL_EVENTS


@dataclass(slots=True)
class Head:
    room_id: str
    room_nid: int
    version: RoomVersion
    tips: dict[str, Tip] = field(default_factory=dict)
    current: StateRef = field(default_factory=StateRef)
    partial: Partial | None = None
    hosts: tuple[StateRef, list[str]] | None = None
    """A current state, and the servers in the room by that."""
    left_behind: frozenset[str] = frozenset()
    """Events of earlier stays, whose state we only ever knew in part: nothing is built upon them."""

    @property
    def create_id(self) -> str | None:
        """The create event's id where the room id tells it (room version 12)."""
        return "$" + self.room_id[1:] if self.version.room_id_is_create_hash else None

    def state(self, graph: Graph, ref: StateRef | None = None) -> StateMap:
        return StateMap(graph, self.current if ref is None else ref)

    def create_event(self, graph: Graph) -> Event | None:
        if self.create_id is not None:
            return graph.event(self.create_id)
        event_id = graph.lookup(self.current, ("m.room.create", ""))
        return None if event_id is None else graph.event(event_id)

    def membership(self, graph: Graph, user_id: str) -> str | None:
        """What the user is by the current state."""
        event_id = graph.lookup(self.current, ("m.room.member", user_id))
        event = None if event_id is None else graph.event(event_id)
        return None if event is None else event.membership

    def newest(self, limit: int = MAX_PREV_EVENTS) -> list[Tip]:
        """What a new event of ours is built on: the extremities, the newest if there are too many, and ties
        only after all others."""
        tips = self.tips.values()
        return sorted(tips, key=lambda tip: (tip.tied_by is not None, -tip.topo, tip.event_id))[:limit]

    def loose_ends(self) -> int:
        """How many extremities there are to tie. One tie of each server is left alone: in a room of many
        servers that all tie, the ties would be tied, and those as well, for ever."""
        ties = [tip.tied_by for tip in self.tips.values() if tip.tied_by is not None]
        return len(self.tips) - len(set(ties))

    def max_topo(self) -> int:
        return max((tip.topo for tip in self.tips.values()), default=0)

    def state_after(self, graph: Graph, tips: Sequence[Tip]) -> StateRef:
        if len(tips) == len(self.tips):
            self.current = self.current.settled()
            return self.current
        return graph.resolve(self.version, [tip.after for tip in tips])


class Heads:
    """Heads as they were last written, of the rooms that were busy last."""

    LIMIT = 64

    def __init__(self) -> None:
        self._heads: OrderedDict[str, Head] = OrderedDict()

    def keep(self, head: Head) -> None:
        self._heads[head.room_id] = head
        self._heads.move_to_end(head.room_id)
        while len(self._heads) > self.LIMIT:
            self._heads.popitem(last=False)

    def get(self, room_id: str) -> Head | None:
        """For looking only: it stays here."""
        return self._heads.get(room_id)

    def pop(self, room_id: str) -> Head | None:
        return self._heads.pop(room_id, None)


def load(db: Reader, graph: Graph, room_id: str) -> Head:
    """The head of a room that we are in. Raises NotInRoom for any other."""
    room = rooms.get(db, room_id)
    if room is None or not room.resident or room.version is None:
        raise NotInRoom
    version = ROOM_VERSIONS.get(room.version)
    if version is None:
        raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", "The room's version is not supported.")
    head = Head(room_id, room.room_nid, version)
    for _nid, event_id, topo, after_group in rooms.forward_extremities(db, room.room_nid):
        stored = graph.stored(event_id)
        after = StateRef(after_group)
        tip = Tip(event_id, topo, 0, after) if stored is None else Tip.of(stored.event, topo, after)
        head.tips[event_id] = tip
    head.current = StateRef(room.state_group)
    for tip in head.tips.values():
        if tip.after.group == room.state_group:
            tip.after = head.current
    join = partial.get(db, room.room_nid) if room.partial else None
    if join is not None:
        stored = events.get_nids(db, [join.event_nid])[join.event_nid]
        prevs = stored.event.prev_events
        head.partial = Partial(
            StateRef(stored.before_group),
            prevs[0] if len(prevs) == 1 else None,
            partial.count_since(db, room.room_nid, join.event_nid),
        )
    head.left_behind = partial.left_behind(db, room.room_nid, None if join is None else join.event_nid)
    return head


def reload(db: Reader, graph: Graph, head: Head) -> None:
    """Bring a head up to date, after others may have changed the room. Raises NotInRoom."""
    fresh = load(db, graph, head.room_id)
    head.tips, head.current = fresh.tips, fresh.current
    head.partial, head.left_behind = fresh.partial, fresh.left_behind
