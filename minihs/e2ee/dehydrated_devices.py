# SPDX-License-Identifier: Apache-2.0
"""Dehydrated devices (MSC3814): a user without any other device is still sent the keys of encrypted rooms.

Such a device is one like others: with keys that others find, and messages that wait for it. But nobody is
logged in to it. Whoever logs in later and knows the user's secrets reads its messages, and makes a new one.
"""

from __future__ import annotations

import json

from minihs.e2ee.device_keys import MAX_ONE_TIME_KEYS
from minihs.e2ee.shapes import check_size, checked_device_keys, checked_one_time_keys
from minihs.matrix.canonical import MAX_INT, JsonObject
from minihs.matrix.errors import MatrixError, forbidden, invalid_param, not_found
from minihs.matrix.fields import identifier, optional_text, required_object, required_text
from minihs.runtime import Runtime
from minihs.store import (
    cross_signing,
    dehydrated_devices,
    device_keys,
    device_lists,
    devices,
    one_time_keys,
    to_device,
)
from minihs.store.database import Database, Tx

MAX_DATA_BYTES = 64 * 1024
"""Of what is needed to bring it to life: some hundred private keys, encrypted."""

EVENTS_IN_BATCH = 100


class DehydratedDevices:
    """The dehydrated devices of one server's users."""

    def __init__(self, db: Database, runtime: Runtime) -> None:
        self._db = db
        self._runtime = runtime

    def get(self, user_id: str) -> JsonObject:
        """GET /dehydrated_device."""
        device_id, data = self._existing(user_id)
        return {"device_id": device_id, "device_data": json.loads(data)}

    async def put(self, user_id: str, body: JsonObject) -> JsonObject:
        """PUT /dehydrated_device: in place of the one before, whose messages go with it."""
        device_id = identifier(required_text(body, "device_id"), "device_id")
        data = required_object(body, "device_data")
        required_text(data, "algorithm")
        text = check_size(data, MAX_DATA_BYTES, "device_data").decode()
        name = optional_text(body, "initial_device_display_name")
        identity = checked_device_keys(required_object(body, "device_keys"), user_id, device_id)
        new = checked_one_time_keys(body, "one_time_keys")
        fallback = checked_one_time_keys(body, "fallback_keys")
        if len(new) > MAX_ONE_TIME_KEYS:
            raise invalid_param(f"A device can have {MAX_ONE_TIME_KEYS} one-time keys.")
        if len({key.algorithm for key in fallback}) != len(fallback):
            raise invalid_param("There can be one fallback key for each algorithm.")
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> None:
            before = dehydrated_devices.get(tx, user_id)
            if before is not None:
                devices.delete(tx, user_id, before[0])
            is_taken = device_id in cross_signing.public_keys(tx, user_id).values()
            if is_taken or not devices.add(tx, user_id, device_id, name, now=now):
                raise forbidden("There is another device of this id.")
            device_keys.put(tx, user_id, device_id, identity)
            device_lists.record_device_change(tx, user_id, device_id)
            one_time_keys.add(tx, user_id, device_id, new, now=now)
            for key in fallback:
                one_time_keys.set_fallback(tx, user_id, device_id, key)
            dehydrated_devices.put(tx, user_id, device_id, text)

        await self._db.write(write)
        return {"device_id": device_id}

    async def delete(self, user_id: str) -> JsonObject:
        """DELETE /dehydrated_device."""
        self._existing(user_id)

        def write(tx: Tx) -> str:
            found = dehydrated_devices.get(tx, user_id)
            if found is None:
                raise none_there()
            devices.delete(tx, user_id, found[0])
            return found[0]

        return {"device_id": await self._db.write(write)}

    def events(self, user_id: str, device_id: str, since: str | None) -> tuple[list[JsonObject], str, bool]:
        """Its messages after `since`, up to where these go, and whether there are more.

        They stay: who reads them may not come to the end, and another device then begins anew.
        """
        if not dehydrated_devices.is_one(self._db.read, user_id, device_id):
            raise forbidden("This is not the dehydrated device.")
        begin = since or "0"
        if not (begin.isascii() and begin.isdigit() and len(begin) <= 16):
            raise invalid_param("This is no token of a batch.")
        rows = to_device.read(self._db.read, user_id, device_id, int(begin), MAX_INT, EVENTS_IN_BATCH + 1)
        batch = rows[:EVENTS_IN_BATCH]
        end = str(batch[-1][0]) if batch else begin
        return [event for _, event in batch], end, len(rows) > len(batch)

    def _existing(self, user_id: str) -> tuple[str, str]:
        found = dehydrated_devices.get(self._db.read, user_id)
        if found is None:
            raise none_there()
        return found


def none_there() -> MatrixError:
    return not_found("There is no dehydrated device.")
