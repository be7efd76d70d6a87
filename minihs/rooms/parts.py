# SPDX-License-Identifier: Apache-2.0
"""What every verb of a room works with."""

from __future__ import annotations

from dataclasses import dataclass

from minihs.matrix.signatures import SigningKey
from minihs.rooms.batch import Batch
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head, load
from minihs.rooms.ports import Federation, Keys
from minihs.rooms.tasks import RoomTasks
from minihs.runtime import Runtime
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
    default_room_version: str

    def now(self) -> int:
        return self.runtime.clock.now_ms()

    def head(self, room_id: str) -> Head:
        """To be used inside the room's task, or for reading only."""
        return load(self.db.read, self.graph, room_id)

    def batch(self, head: Head) -> Batch:
        return Batch(self.db, self.graph, head, self.our_name)

    def is_ours(self, user_id: str) -> bool:
        return user_id.partition(":")[2] == self.our_name
