# SPDX-License-Identifier: Apache-2.0
"""Events without a meaning of their own, which tie the ends of a room's history together.

Every server may end a room wherever it likes, and an event names at most 20 parents. If nobody of ours talks
in a room in which others do, ends pile up, and each event that comes has to be resolved with all of them. And
a server that has just joined hears of what came since it asked for the template of its join only through an
event that has it among its ancestors: to the servers that were in the room then it was sent already.
"""

from __future__ import annotations

import trio

from minihs.matrix.errors import MatrixError
from minihs.rooms.head import TIE_TYPE, Head
from minihs.rooms.parts import Parts
from minihs.rooms.publish import publish
from minihs.store import memberships

MAX_ENDS = 20
"""Ends of a room's history that are left alone."""
MANY_ENDS = 100
"""If there are more, ties of that many servers among them, they are all tied some time."""
MANY_ENDS_PAUSE = 600.0
"""Seconds within which, by chance: would all servers do that at once, there were as many ends again."""


class Ties:
    """Keeps the ends of rooms few where others send. Runs in the room's task."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._due: dict[str, float] = {}
        """Rooms with many ends, and the time of trio's from which on they are all tied."""

    def are_due(self, head: Head) -> bool:
        """Has `tie` anything to do or to note?"""
        return head.loose_ends() > MAX_ENDS or len(head.tips) > MANY_ENDS or head.room_id in self._due

    async def tie(self, head: Head) -> None:
        """Send events until no more than MAX_ENDS loose ends are left, if one of our users may. `head` is the
        room's as it is."""
        room_id = head.room_id
        while head.loose_ends() > MAX_ENDS and await _send(self._parts, room_id):
            head = self._parts.head(room_id)
        if len(head.tips) <= MANY_ENDS:
            self._due.pop(room_id, None)
            return
        now = trio.current_time()
        if self._due.setdefault(room_id, now + self._parts.runtime.random.uniform(0, MANY_ENDS_PAUSE)) <= now:
            del self._due[room_id]
            await tie_all(self._parts, room_id)


async def tie_all(parts: Parts, room_id: str) -> None:
    """Send events until there is one end. Runs in the room's task."""
    while len(parts.head(room_id).tips) > 1 and await _send(parts, room_id):
        pass


async def _send(parts: Parts, room_id: str) -> bool:
    """False: none of our users may send such events."""
    for user_id in memberships.local_joined(parts.db.read, parts.head(room_id).room_nid):
        try:
            await publish(parts, parts.take_head(room_id), sender=user_id, type=TIE_TYPE, content={})
        except MatrixError:
            continue  # another may
        return True
    return False
