# SPDX-License-Identifier: Apache-2.0
"""What passes between servers beside events: typing, receipts, device keys and messages to devices."""

from __future__ import annotations

import uuid
from typing import Any

from tests.interop.conftest import Stage
from tests.interop.kit.client import V3, Client, JsonObject, segment

ALGORITHM = "m.megolm.v1.aes-sha2"


def ephemeral(client: Client, room: str, type_: str) -> list[JsonObject]:
    return [event["content"] for event in client.ephemeral.get(room, []) if event["type"] == type_]


async def test_typing_is_seen_on_the_other_side(stage: Stage) -> None:
    room = await stage.shared_room("11")

    path = f"{V3}/rooms/{segment(room)}/typing/{segment(stage.guest.user_id)}"
    await stage.guest.call("PUT", path, {"typing": True, "timeout": 20_000})

    def typing() -> bool | None:
        return (
            any(stage.guest.user_id in said["user_ids"] for said in ephemeral(stage.host, room, "m.typing"))
            or None
        )

    await stage.host.wait_until(typing, "the guest to be typing")


async def test_a_read_receipt_is_seen_on_the_other_side(stage: Stage) -> None:
    room = await stage.shared_room("11")
    event_id = await stage.host.say(room, "read me")
    await stage.guest.wait_for_id(room, event_id)

    await stage.guest.call("POST", f"{V3}/rooms/{segment(room)}/receipt/m.read/{segment(event_id)}")

    def receipt() -> Any:
        for said in ephemeral(stage.host, room, "m.receipt"):
            if stage.guest.user_id in said.get(event_id, {}).get("m.read", {}):
                return said[event_id]["m.read"][stage.guest.user_id]
        return None

    assert (await stage.host.wait_until(receipt, "the guest's receipt"))["ts"] > 0


def device_keys(client: Client, secret: str) -> JsonObject:
    key_id = f"ed25519:{client.device_id}"
    return {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": [ALGORITHM],
        "keys": {key_id: secret},
        "signatures": {client.user_id: {key_id: "a signature that only clients look at"}},
    }


async def test_device_keys_of_the_other_side_are_found_and_claimed_once(stage: Stage) -> None:
    await stage.shared_room("11")
    keys = device_keys(stage.host, "public key of the host")
    one_time: dict[str, JsonObject] = {
        f"signed_curve25519:{name}": {"key": name, "signatures": {}} for name in ("AAAA", "AAAB")
    }
    await stage.host.call("POST", f"{V3}/keys/upload", {"device_keys": keys, "one_time_keys": one_time})

    asked: JsonObject = {"device_keys": {stage.host.user_id: []}}
    found = (await stage.guest.call("POST", f"{V3}/keys/query", asked))["device_keys"]
    assert found[stage.host.user_id][stage.host.device_id]["keys"] == keys["keys"]

    claim = {"one_time_keys": {stage.host.user_id: {stage.host.device_id: "signed_curve25519"}}}
    claimed: dict[str, JsonObject] = {}
    for _ in range(2):
        answer = await stage.guest.call("POST", f"{V3}/keys/claim", claim)
        claimed |= answer["one_time_keys"][stage.host.user_id][stage.host.device_id]
    assert claimed == one_time
    nothing = await stage.guest.call("POST", f"{V3}/keys/claim", claim)
    assert not nothing["one_time_keys"].get(stage.host.user_id, {}).get(stage.host.device_id)


async def test_a_new_device_of_the_other_side_is_announced(stage: Stage) -> None:
    await stage.shared_room("11")
    changed: set[str] = set()
    await stage.guest.sync()

    await stage.host.call("POST", f"{V3}/keys/upload", {"device_keys": device_keys(stage.host, "new")})

    for _ in range(6):
        answer = await stage.guest.sync(5_000)
        changed |= set(answer.get("device_lists", {}).get("changed", []))
        if stage.host.user_id in changed:
            return
    raise AssertionError(f"device_lists.changed named only {changed}")


async def test_a_message_to_a_device_of_the_other_side_arrives_once(stage: Stage) -> None:
    await stage.shared_room("11")
    content = {"secret": uuid.uuid4().hex}

    for _ in range(2):  # a client that got no answer repeats itself under the same transaction id
        messages = {"messages": {stage.guest.user_id: {stage.guest.device_id: content}}}
        await stage.host.call("PUT", f"{V3}/sendToDevice/org.example.test/same-txn", messages)
    last = {"messages": {stage.guest.user_id: {stage.guest.device_id: {"last": True}}}}
    await stage.host.call("PUT", f"{V3}/sendToDevice/org.example.test/other-txn", last)

    await stage.guest.wait_until(lambda: len(stage.guest.to_device) >= 2 or None, "both messages")
    assert [message["content"] for message in stage.guest.to_device] == [content, {"last": True}]
    assert {message["sender"] for message in stage.guest.to_device} == {stage.host.user_id}
