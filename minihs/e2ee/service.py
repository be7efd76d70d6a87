# SPDX-License-Identifier: Apache-2.0
"""End-to-end encryption of one server, in one place for the routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from minihs.config import Config
from minihs.e2ee import ports
from minihs.e2ee.cross_signing import CrossSigning
from minihs.e2ee.device_keys import DeviceKeys
from minihs.e2ee.key_backups import KeyBackups
from minihs.e2ee.to_device import ToDevice
from minihs.matrix.ids import domain_of, is_user_id
from minihs.runtime import Runtime
from minihs.store import device_lists
from minihs.store.database import Database

type JsonObject = dict[str, Any]


class E2ee:
    """The parts, each by its own name."""

    def __init__(
        self, db: Database, runtime: Runtime, config: Config, *, federation: ports.Federation | None = None
    ) -> None:
        self._db = db
        self.keys = DeviceKeys(db, runtime, config.server_name, federation)
        self.cross_signing = CrossSigning(db, config.server_name, federation)
        self.to_device = ToDevice(db, runtime, config.server_name)
        self.backups = KeyBackups(db)

    @property
    def edu_handlers(self) -> Mapping[str, Callable[[str, JsonObject], Awaitable[None]]]:
        """EDUs that must not be lost, by type: handler(origin, content)."""
        return {
            "m.direct_to_device": self.to_device.receive,
            "m.device_list_update": self.receive_device_list_update,
            "m.signing_key_update": self.receive_device_list_update,
        }

    async def receive_device_list_update(self, origin: str, content: JsonObject) -> None:
        """A remote user's devices or cross-signing keys changed.

        Nothing of it is kept: clients are told that something changed, and ask, and so we ask that server.
        """
        user_id = content.get("user_id")
        if not is_user_id(user_id) or domain_of(user_id) != origin:
            return
        # Of users whom none of ours meets nobody needs to know; they could fill the table.
        if device_lists.local_contacts(self._db.read, user_id):
            await self._db.write(lambda tx: device_lists.record_change(tx, user_id))
