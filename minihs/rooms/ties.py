# SPDX-License-Identifier: Apache-2.0
"""Events without a meaning of their own, which tie the ends of a room's history together.

Every server may end a room wherever it likes, and an event names at most 20 parents. If nobody of ours talks
in a room in which others do, ends pile up, and each event that comes has to be resolved with all of them. And
a server that has just joined hears of what came since it asked for the template of its join only through an
event that has it among its ancestors: to the servers that were in the room then it was sent already.
"""

from __future__ import annotations

from minihs.matrix.errors import MatrixError
from minihs.rooms.head import TIE_TYPE, Head
from minihs.rooms.parts import Parts
from minihs.rooms.publish import publish
from minihs.store import memberships

MAX_ENDS = 20
"""Ends of a room's history that are left alone."""


async def tie(parts: Parts, head: Head) -> None:
    """Send events until no more than MAX_ENDS loose ends are left, if one of our users may. Runs in the
    room's task; `head` is the room's as it is."""
    while head.loose_ends() > MAX_ENDS and await _send(parts, head.room_id):
        head = parts.head(head.room_id)


async def tie_all(parts: Parts, room_id: str) -> None:
    """The same until there is one end."""
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
