# SPDX-License-Identifier: Apache-2.0
"""Events without a meaning of their own, which tie the ends of a room's history together.

Every server may end a room wherever it likes, and an event names at most 20 parents. If nobody of ours talks
in a room in which others do, ends pile up, and each event that comes has to be resolved with all of them. And
a server that has just joined hears of what came since it asked for the template of its join only through an
event that has it among its ancestors: to the servers that were in the room then it was sent already.
"""

from __future__ import annotations

from minihs.matrix.errors import MatrixError
from minihs.rooms.parts import Parts
from minihs.rooms.publish import publish
from minihs.store import memberships

TIE_TYPE = "org.matrix.dummy_event"
"""The type that Synapse uses for events without any meaning of their own; clients ignore it."""

MAX_ENDS = 20
"""Ends of a room's history that are left alone."""


async def tie(parts: Parts, room_id: str, *, at_most: int) -> None:
    """Send events until there are `at_most` ends, if one of our users may. Runs in the room's task."""
    while len(parts.head(room_id).tips) > at_most:
        for user_id in memberships.local_joined(parts.db.read, parts.head(room_id).room_nid):
            try:
                await publish(parts, parts.take_head(room_id), sender=user_id, type=TIE_TYPE, content={})
            except MatrixError:
                continue  # this user may not send such events; another may
            else:
                break
        else:
            return
