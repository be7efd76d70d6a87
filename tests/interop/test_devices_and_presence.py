# SPDX-License-Identifier: Apache-2.0
"""Device lists, cross-signing keys, receipts in threads and presence."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import nacl.signing
import pytest
import trio

from minihs.matrix import unpadded
from minihs.matrix.signatures import SigningKey, sign_json
from tests.interop.conftest import PAIRS, Stage
from tests.interop.kit.client import V3, ApiError, Client, JsonObject, segment
from tests.interop.kit.group import Group, running_group
from tests.interop.test_ephemeral import device_keys, ephemeral

# -- end-to-end encryption -----------------------------------------------------------------------------


async def query(client: Client, user_id: str) -> JsonObject:
    return await client.call("POST", f"{V3}/keys/query", {"device_keys": {user_id: []}})


async def wait_for_keys(client: Client, user_id: str, looks_right: Callable[[JsonObject], bool]) -> None:
    """As clients do: ask anew whenever /sync says that the user's keys changed."""
    found: JsonObject = {}
    for _ in range(12):
        answer = await client.sync(3_000)
        if user_id in answer.get("device_lists", {}).get("changed", []):
            found = await query(client, user_id)
            if looks_right(found):
                return
    raise AssertionError(f"after the last change the keys were {found}")


async def test_device_lists_follow_their_changes(stage: Stage) -> None:
    await stage.shared_room("11")
    host = stage.host
    await stage.guest.sync()

    def has(expected: dict[str, str]) -> Callable[[JsonObject], bool]:
        def look(found: JsonObject) -> bool:
            devices = found["device_keys"].get(host.user_id, {})
            return {name: next(iter(each["keys"].values())) for name, each in devices.items()} == expected

        return look

    for name in ("first", "second", "third"):
        await host.call("POST", f"{V3}/keys/upload", {"device_keys": device_keys(host, name)})
        await wait_for_keys(stage.guest, host.user_id, has({host.device_id: name}))
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": host.user_id},
        "password": f"password of {host.user_id[1:].partition(':')[0]}",
    }
    answer = await host.call("POST", f"{V3}/login", login)
    second = Client(stage.home.http(), host.user_id, answer["access_token"], answer["device_id"])
    await second.call("POST", f"{V3}/keys/upload", {"device_keys": device_keys(second, "another")})
    both = {host.device_id: "third", second.device_id: "another"}
    await wait_for_keys(stage.guest, host.user_id, has(both))
    await second.call("POST", f"{V3}/logout")
    await second.aclose()
    await wait_for_keys(stage.guest, host.user_id, has({host.device_id: "third"}))


def cross_signing(client: Client) -> JsonObject:
    """Master and self-signing key of a user, rightly signed."""
    seeds = {name: nacl.signing.SigningKey.generate() for name in ("master", "self_signing")}
    keys: JsonObject = {}
    for usage, seed in seeds.items():
        public = unpadded.encode(bytes(seed.verify_key))
        keys[usage] = {
            "user_id": client.user_id,
            "usage": [usage],
            "keys": {f"ed25519:{public}": public},
        }
    master = unpadded.encode(bytes(seeds["master"].verify_key))
    signer = SigningKey(bytes(seeds["master"]), "x")
    signed = sign_json(keys["self_signing"], client.user_id, signer)
    signature = signed["signatures"][client.user_id]["ed25519:x"]
    keys["self_signing"]["signatures"] = {client.user_id: {f"ed25519:{master}": signature}}
    return {f"{usage}_key": key for usage, key in keys.items()}


async def test_cross_signing_keys_are_seen_on_the_other_side(stage: Stage) -> None:
    await stage.shared_room("11")
    await stage.guest.sync()
    await query(stage.guest, stage.host.user_id)
    keys = cross_signing(stage.host)

    path = f"{V3}/keys/device_signing/upload"
    try:
        await stage.host.call("POST", path, keys)
    except ApiError as asked:
        auth = {
            "type": "m.login.password",
            "session": json.loads(asked.body)["session"],
            "identifier": {"type": "m.id.user", "user": stage.host.user_id},
            "password": f"password of {stage.host.user_id[1:].partition(':')[0]}",
        }
        await stage.host.call("POST", path, {**keys, "auth": auth})

    def are_there(found: JsonObject) -> bool:
        return all(
            found[f"{usage}_keys"].get(stage.host.user_id, {}).get("keys") == keys[f"{usage}_key"]["keys"]
            for usage in ("master", "self_signing")
        )

    await wait_for_keys(stage.guest, stage.host.user_id, are_there)


# -- receipts and presence -----------------------------------------------------------------------------


async def test_receipts_in_threads_and_none_of_the_private_ones_arrive(stage: Stage) -> None:
    room = await stage.shared_room("11")
    root = await stage.host.say(room, "the root of a thread")
    await stage.guest.wait_for_id(room, root)
    receipt = f"{V3}/rooms/{segment(room)}/receipt"

    await stage.guest.call("POST", f"{receipt}/m.read.private/{segment(root)}", {})
    await stage.guest.call("POST", f"{receipt}/m.read/{segment(root)}", {"thread_id": "main"})

    def seen() -> Any:
        for said in ephemeral(stage.host, room, "m.receipt"):
            assert "m.read.private" not in said.get(root, {})
            if stage.guest.user_id in said.get(root, {}).get("m.read", {}):
                return said[root]["m.read"][stage.guest.user_id]
        return None

    assert (await stage.host.wait_until(seen, "the guest's receipt"))["thread_id"] == "main"


@pytest.fixture(scope="module", params=PAIRS)
def pair_with_presence(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Group]:
    folder = tmp_path_factory.mktemp("presence")
    with running_group(request.param.split("-"), folder, {"presence": True}) as group:
        yield group


@pytest.fixture
async def friends(pair_with_presence: Group, home: int) -> AsyncIterator[tuple[Client, Client, str]]:
    servers = pair_with_presence.servers
    one = await servers[home].register(f"one-{uuid.uuid4().hex[:8]}")
    two = await servers[1 - home].register(f"two-{uuid.uuid4().hex[:8]}")
    room = await one.create_room(preset="private_chat", room_version="11", is_direct=True)
    await one.act("invite", room, two.user_id)
    await two.wait_for_section(room, "invite")
    await two.join(room)
    await one.wait_for_membership(room, two.user_id, "join")
    yield one, two, room
    await one.aclose()
    await two.aclose()


async def test_friends_see_each_others_presence(friends: tuple[Client, Client, str]) -> None:
    one, two, _ = friends
    for shows, sees in ((one, two), (two, one)):
        message = f"here since {uuid.uuid4().hex}"
        path = f"{V3}/presence/{segment(shows.user_id)}/status"
        await shows.call("PUT", path, {"presence": "online", "status_msg": message})
        with trio.fail_after(40):
            while True:
                answer = await sees.sync(3_000)
                told = [
                    event["content"].get("status_msg")
                    for event in answer.get("presence", {}).get("events", [])
                    if event["sender"] == shows.user_id
                ]
                if message in told:
                    break
                await shows.sync()
