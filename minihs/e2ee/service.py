# SPDX-License-Identifier: Apache-2.0
"""End-to-end encryption of one server, in one place for the routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from minihs.config import Config
from minihs.e2ee import ports
from minihs.e2ee.cross_signing import CrossSigning
from minihs.e2ee.dehydrated_devices import DehydratedDevices
from minihs.e2ee.device_keys import DeviceKeys
from minihs.e2ee.key_backups import KeyBackups
from minihs.e2ee.to_device import ToDevice
from minihs.matrix.canonical import JsonObject
from minihs.runtime import Runtime
from minihs.store.database import Database


class E2ee:
    """The parts, each by its own name."""

    def __init__(
        self, db: Database, runtime: Runtime, config: Config, *, federation: ports.Federation | None = None
    ) -> None:
        self._db = db
        self.keys = DeviceKeys(db, runtime, config.server_name, federation)
        self.cross_signing = CrossSigning(db, config.server_name, federation)
        self.to_device = ToDevice(db, runtime, config.server_name)
        self.dehydrated = DehydratedDevices(db, runtime)
        self.backups = KeyBackups(db)

    @property
    def edu_handlers(self) -> Mapping[str, Callable[[str, JsonObject], Awaitable[None]]]:
        """EDUs that must not be lost, by type: handler(origin, content)."""
        return {
            "m.direct_to_device": self.to_device.receive,
            "m.device_list_update": self.keys.remote.receive_device,
            "m.signing_key_update": self.keys.remote.receive_cross_signing,
            # The name from before the specification had it; old servers send both.
            "org.matrix.signing_key_update": self.keys.remote.receive_cross_signing,
        }

    async def run(self) -> None:
        """What goes on in the background; for the server's nursery."""
        await self.keys.remote.run()
