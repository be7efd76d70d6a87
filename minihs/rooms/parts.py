# SPDX-License-Identifier: Apache-2.0
"""What every verb of a room works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from minihs.matrix.errors import MatrixError
from minihs.matrix.signatures import SigningKey
from minihs.rooms.batch import Batch
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head, Heads, load
from minihs.rooms.ports import Federation, Keys
from minihs.rooms.tasks import RoomTasks
from minihs.rooms.turns import Turns
from minihs.rooms.whole import Whole
from minihs.runtime import Runtime, is_plausible
from minihs.store.database import Database


@dataclass(frozen=True, slots=True)
class Parts:
    our_name: str
    signing_key: SigningKey
    db: Database
    runtime: Runtime
    graph: Graph
    keys: Keys
    federation: Federation
    tasks: RoomTasks
    turns: Turns
    default_room_version: str
    whole: Whole
    partial_joins: bool = False
    """Rooms are joined before all of their members are known (rooms/partial_join.py)."""
    heads: Heads = field(default_factory=Heads)

    def now(self) -> int:
        return self.runtime.clock.now_ms()

    def time_to_sign(self) -> int:
        """The time that an event of ours bears. MatrixError 503 if the clock can't be right."""
        now = self.now()
        if not is_plausible(now):
            raise MatrixError(503, "M_UNKNOWN", "This server's clock is wrong; events would bear its time.")
        return now

    def head(self, room_id: str) -> Head:
        """For reading; or, inside the room's task, for changing the room."""
        return load(self.db.read, self.graph, room_id)

    def take_head(self, room_id: str) -> Head:
        """The same for a job of the room's task that is likely to be followed by others soon.

        A head that a batch wrote is kept for the next job. Taken out, it is gone until it is written again:
        should the job fail half way, nobody gets to see the half-changed head.
        """
        return self.heads.pop(room_id) or load(self.db.read, self.graph, room_id)

    def batch(self, head: Head) -> Batch:
        return Batch(self.db, self.graph, head, self.our_name, self.heads)

    def is_ours(self, user_id: str) -> bool:
        return user_id.partition(":")[2] == self.our_name
