# SPDX-License-Identifier: Apache-2.0
"""An encrypted conversation by matrix-nio, which many bots stand on. Runs in an environment of its own.

    python nio_story.py FOLDER BASE_URL ANNA PASSWORD BASE_URL BERTA PASSWORD

Prints a line for each step that was seen and ends with status 1 at the first that was not.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nio import AsyncClient, AsyncClientConfig, EncryptionError, MegolmEvent, RoomMessageText
from nio.crypto.attachments import decrypt_attachment
from nio.responses import ErrorResponse

logging.getLogger("nio").setLevel(logging.CRITICAL)  # it says aloud what it can't decrypt yet

PATIENCE_SECONDS = 40.0


def step(name: str, good: object) -> None:
    print("ok  " if good else "FAIL", name, flush=True)
    if not good:
        sys.exit(1)


class Device:
    """One login, with what it could read and what not."""

    def __init__(self, base_url: str, user: str, password: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        config = AsyncClientConfig(encryption_enabled=True, pickle_key="of the tests")
        self.client = AsyncClient(base_url, user, store_path=str(folder), config=config)
        self.password = password
        self.texts: list[str] = []
        self.unread: list[MegolmEvent] = []
        self.client.add_event_callback(self._on_text, RoomMessageText)
        self.client.add_event_callback(self._on_locked, MegolmEvent)

    async def _on_text(self, _: object, event: RoomMessageText) -> None:
        assert event.decrypted, event
        self.texts.append(event.body)

    async def _on_locked(self, _: object, event: MegolmEvent) -> None:
        self.unread.append(event)

    async def log_in(self, name: str) -> None:
        checked(await self.client.login(self.password, device_name=name))
        await self.turn()

    async def turn(self) -> None:
        """What a client does all the time."""
        client = self.client
        checked(await client.sync(timeout=200))
        if client.should_upload_keys:
            checked(await client.keys_upload())
        if client.should_query_keys:
            checked(await client.keys_query())
        if client.should_claim_keys:
            checked(await client.keys_claim(client.get_users_for_key_claiming()))
        await client.send_to_device_messages()

    async def say(self, room: str, text: str) -> None:
        content = {"msgtype": "m.text", "body": text}
        checked(await self.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True))


def checked(response: Any) -> Any:
    assert not isinstance(response, ErrorResponse), response
    return response


def trust(one: Device, other: Device) -> None:
    """As if two people had compared the other's key: only then is an old key shared, and taken."""
    devices = one.client.device_store.active_user_devices(other.client.user_id)
    one.client.verify_device(next(each for each in devices if each.id == other.client.device_id))


async def until(name: str, check: Callable[[], object], *devices: Device) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not check() and time.monotonic() < end:
        await asyncio.gather(*(device.turn() for device in devices))
    step(name, check())


async def story(folder: Path, anna: Device, berta: Device, another_berta: Device) -> None:
    await anna.log_in("first")
    await berta.log_in("first")
    encryption = {
        "type": "m.room.encryption",
        "state_key": "",
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    made = checked(
        await anna.client.room_create(initial_state=[encryption], invite=[berta.client.user_id], name="Nest")
    )
    room: str = made.room_id
    await until("the invite comes", lambda: room in berta.client.invited_rooms, berta)
    checked(await berta.client.join(room))

    def knows(device: Device, user: str) -> bool:
        known = device.client.rooms.get(room)
        return known is not None and known.encrypted and user in known.users

    both = (anna, berta)
    await until("the join is seen", lambda: knows(anna, berta.client.user_id), *both)
    await until("and so is who was there", lambda: knows(berta, anna.client.user_id), *both)

    await anna.say(room, "a secret of anna")
    await until("it is read on the other side", lambda: "a secret of anna" in berta.texts, *both)
    await berta.say(room, "a secret of berta")
    await until("and the answer", lambda: "a secret of berta" in anna.texts, *both)

    await another_berta.log_in("second")
    everybody = (anna, berta, another_berta)
    await until("a new device can't read what was before it", lambda: another_berta.unread, another_berta)

    def has_second(device: Device) -> bool:
        known = device.client.device_store.active_user_devices(berta.client.user_id)
        return another_berta.client.device_id in [each.id for each in known]

    await until("all learn of the new device", lambda: has_second(anna) and has_second(berta), *everybody)
    await anna.say(room, "for all devices")
    await until(
        "it reads what is said from then on", lambda: "for all devices" in another_berta.texts, *everybody
    )
    step("and the old device, too", "for all devices" in berta.texts)

    trust(berta, another_berta)
    trust(another_berta, berta)
    locked = next(event for event in another_berta.unread if event.sender == anna.client.user_id)
    checked(await another_berta.client.request_room_key(locked))

    olm = berta.client.olm
    await until("the old device is asked for the key", lambda: olm and olm.received_key_requests, *everybody)
    await anna.say(room, "and so on")  # nio answers when a sync brings something new
    await until("and it goes on", lambda: "and so on" in another_berta.texts, *everybody)

    def read_now() -> str:
        try:
            return str(another_berta.client.decrypt_event(locked).body)
        except EncryptionError:
            return ""

    await until(
        "the old device shares the key of the old message",
        lambda: read_now() == "a secret of anna",
        *everybody,
    )

    data = b"a picture" * 1000
    picture = folder / "picture"
    picture.write_bytes(data)
    answer, keys = await anna.client.upload(
        lambda *_: picture, "image/png", "picture.png", encrypt=True, filesize=len(data)
    )
    got = checked(await berta.client.download(checked(answer).content_uri))
    plain = decrypt_attachment(got.body, keys["key"]["k"], keys["hashes"]["sha256"], keys["iv"])
    step("an encrypted file comes to the other side as it was", plain == data)


async def main(folder: Path, *people: str) -> None:
    anna, berta = people[:3], people[3:]
    devices = [
        Device(*anna, folder=folder / "anna"),
        Device(*berta, folder=folder / "berta"),
        Device(*berta, folder=folder / "another-berta"),
    ]
    try:
        await story(folder, *devices)
    finally:
        for device in devices:
            await device.client.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
