# SPDX-License-Identifier: Apache-2.0
"""A user's devices: list, rename, delete (client-server-api, "Device Management")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import not_found
from minihs.matrix.fields import optional_text, texts
from minihs.requester import Requester
from minihs.store import devices
from minihs.store.database import Database, Tx
from minihs.users.logins import MAX_DEVICE_NAME, Logins


class Devices:
    def __init__(self, db: Database, logins: Logins) -> None:
        self._db = db
        self._logins = logins

    def all(self, user_id: str) -> list[JsonObject]:
        return [device.to_json() for device in devices.of_user(self._db.read, user_id)]

    def get(self, user_id: str, device_id: str) -> JsonObject:
        device = devices.get(self._db.read, user_id, device_id)
        if device is None:
            raise not_found("You have no such device.")
        return device.to_json()

    async def update(self, user_id: str, device_id: str, body: JsonObject) -> None:
        """PUT /devices/{deviceId}."""
        self.get(user_id, device_id)
        name = optional_text(body, "display_name", limit=MAX_DEVICE_NAME)
        if name is None:
            return
        if not await self._db.write(lambda tx: devices.rename(tx, user_id, device_id, name)):
            raise not_found("You have no such device.")

    async def delete(self, requester: Requester, device_ids: list[str], auth: object) -> None:
        """Log devices out and forget them, after the user has confirmed it."""
        action = "delete devices " + " ".join(sorted(set(device_ids)))
        await self._logins.confirm_password(requester, action, auth)

        def write(tx: Tx) -> None:
            for device_id in device_ids:
                devices.delete(tx, requester.user_id, device_id)

        await self._db.write(write)

    async def delete_listed(self, requester: Requester, body: JsonObject) -> None:
        """POST /delete_devices."""
        await self.delete(requester, texts(body.get("devices"), "devices"), body.get("auth"))
