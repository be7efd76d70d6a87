# SPDX-License-Identifier: Apache-2.0
"""Joining by partial state: the room is there as soon as all of its state but the members is.

Members are nearly all of the state of a large room. A resident that leaves them out (`omit_members`) answers
at once; what it sends is checked as ever, and must hold what everything depends upon: the create event, power
levels and join rules, the auth events of our join, and who is in the room (`servers_in_room`). If it doesn't,
the whole state is asked for, as if there were no such thing. (MSC3706, MSC3902.)

From then on the room is *partial* (`store.partial`):

- What others send is judged by the state that we have and, for members who are missing in it, by the
  event's own auth events (rooms/authorise.py). Nothing is rejected for the state nor soft-failed: what does
  not pass waits. So does what needs the state at a gap (rooms/gaps.py), but for the one gap that is always
  there: what was said while we joined.
- What we send goes to the servers that the resident named, and to those that came since.
- Other servers can't join, leave, knock or ask about the room through us: we don't know who may.
- Clients that load members lazily see the room at once, the others when it is whole. What needs all members
  (/members, /state, inviting, history) waits for them, for `whole.MAX_WAIT`.

Meanwhile the state before the join is asked for, again and again until somebody gives it, after restarts too
(rooms/partial_resync.py). Then one commit puts it in place of the partial one, at the join and at every event
since: they are judged anew in the order in which they came, as if all had been known from the beginning
(rooms/partial_replay.py). What was wrongly accepted is rejected now, or soft-failed, and gone from the
timeline; the change log tells clients what changed by it. If we leave before that, the attempt ends; events
of that stay keep the state that they have, and nothing is built upon them any more (`Head.left_behind`).
"""

from __future__ import annotations

from collections.abc import Mapping

from minihs.matrix.event import Event
from minihs.matrix.ids import is_server_name
from minihs.rooms.adoption import Adoption
from minihs.rooms.ports import SpooledJoin
from minihs.rooms.state import Key

MAX_SERVERS = 20_000
"""Servers of a room that are taken from an answer, on no more than its word: what we say goes to all of them
until the members are known. With more, the whole state is waited for."""

CRITICAL: tuple[Key, ...] = (
    ("m.room.create", ""),
    ("m.room.power_levels", ""),
    ("m.room.join_rules", ""),
)


def members_cited(adoption: Adoption, join: Event) -> list[str]:
    """The memberships that our join rests upon: our invite, who vouches for us. They are part of the state,
    and left out of it with the others."""
    found = []
    for event_id in join.auth_events:
        event = adoption.event(event_id)
        if event is not None and event.type == "m.room.member" and not adoption.is_rejected(event_id):
            found.append(event_id)
    return found


def servers_named(spooled: SpooledJoin, our_name: str) -> list[str]:
    """The other servers in the room as the resident names them. Empty if it does not, or names too many."""
    named = spooled.servers_in_room
    if named is None or len(named) > MAX_SERVERS:
        return []
    return [name for name in dict.fromkeys(named) if is_server_name(name) and name != our_name]


def has_what_is_critical(state: Mapping[Key, str]) -> bool:
    return all(key in state for key in CRITICAL)
