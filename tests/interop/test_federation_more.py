# SPDX-License-Identifier: Apache-2.0
"""More of what two homeservers do together: knocks, restricted rooms, third-party invites, ACLs, upgrades,
spaces, directories, cross-signing, receipts in threads, presence."""

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
from tests.interop.kit.state import wait_for_the_same_state
from tests.interop.test_ephemeral import device_keys, ephemeral

V1 = "/_matrix/client/v1"


async def talk_both_ways(stage: Stage, room: str) -> None:
    for speaker, listener in ((stage.host, stage.guest), (stage.guest, stage.host)):
        event_id = await speaker.say(room, f"{speaker.user_id} speaks")
        await listener.wait_for_id(room, event_id)


# -- knocking ------------------------------------------------------------------------------------------


async def knocking_room(stage: Stage, version: str) -> str:
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    return await stage.host.create_room(
        preset="private_chat", room_version=version, initial_state=[rules], name="Behind a door"
    )


async def knock(stage: Stage, room: str) -> None:
    server = stage.home.server_name
    path = f"{V3}/knock/{segment(room)}"
    await stage.guest.call("POST", path, {"reason": "please"}, [("via", server), ("server_name", server)])


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_a_knock_is_seen_and_answered_with_an_invite(stage: Stage, version: str) -> None:
    room = await knocking_room(stage, version)

    await knock(stage, room)

    seen = await stage.host.wait_for_membership(room, stage.guest.user_id, "knock")
    assert seen["content"].get("reason") == "please"
    shown = (await stage.guest.sync()).get("rooms", {}).get("knock", {})
    state = {event["type"] for event in shown[room]["knock_state"]["events"]} if room in shown else set()
    assert {"m.room.name", "m.room.create"} <= state
    await stage.host.act("invite", room, stage.guest.user_id)
    await stage.guest.wait_for_section(room, "invite")
    assert await stage.guest.join(room, via=[stage.home.server_name]) == room
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await talk_both_ways(stage, room)


async def test_a_knock_is_taken_back(stage: Stage) -> None:
    if stage.away.kind == "synapse":
        pytest.skip("Synapse takes knocks back on its own side only")
    room = await knocking_room(stage, "11")
    await knock(stage, room)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "knock")

    await stage.guest.leave(room)

    await stage.host.wait_for_membership(room, stage.guest.user_id, "leave")


async def test_a_knock_is_turned_down(stage: Stage) -> None:
    room = await knocking_room(stage, "11")
    await knock(stage, room)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "knock")

    await stage.host.act("kick", room, stage.guest.user_id)

    if {stage.home.kind, stage.away.kind} == {"minihs"}:
        # Synapse tells the end of a knock to nobody who is not in the room, and takes no notice of it.
        await stage.guest.wait_for_section(room, "leave")
    with pytest.raises(ApiError):
        await stage.guest.join(room, via=[stage.home.server_name])


# -- restricted rooms ----------------------------------------------------------------------------------


async def hall_and_room(stage: Stage, rule: str, version: str) -> tuple[str, str]:
    hall, _ = await stage.public_room(version)
    content = {"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": hall}]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    room = await stage.host.create_room(preset="private_chat", room_version=version, initial_state=[rules])
    return hall, room


@pytest.mark.parametrize(
    ("rule", "version"),
    [("restricted", "8"), ("restricted", "11"), ("restricted", "12"), ("knock_restricted", "11")],
)
async def test_a_restricted_room_lets_in_who_is_in_the_allowed_one(
    stage: Stage, rule: str, version: str
) -> None:
    hall, room = await hall_and_room(stage, rule, version)
    via = [stage.home.server_name]
    with pytest.raises(ApiError) as refused:
        await stage.guest.join(room, via=via)
    assert refused.value.status == 403

    await stage.guest.join(hall, via=via)
    await stage.host.wait_for_membership(hall, stage.guest.user_id, "join")
    await stage.guest.join(room, via=via)

    joined = await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    assert joined["content"]["join_authorised_via_users_server"] == stage.host.user_id
    await talk_both_ways(stage, room)
    await wait_for_the_same_state(room, stage.host, stage.guest)


async def test_a_second_user_of_a_resident_that_may_not_vouch_is_let_in_through_the_other(
    stage: Stage,
) -> None:
    hall, room = await hall_and_room(stage, "restricted", "11")
    via = [stage.home.server_name]
    levels = (await stage.host.state(room))["m.room.power_levels", ""]["content"]
    await stage.host.set_state(room, "m.room.power_levels", {**levels, "invite": 50})
    second = await stage.away.register(f"carla-{uuid.uuid4().hex[:8]}")
    for person in (stage.guest, second):
        await person.join(hall, via=via)
        await stage.host.wait_for_membership(hall, person.user_id, "join")
    await stage.guest.join(room, via=via)
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")

    await second.join(room, via=via)

    joined = await stage.host.wait_for_membership(room, second.user_id, "join")
    assert joined["content"]["join_authorised_via_users_server"] == stage.host.user_id
    await stage.guest.wait_for_membership(room, second.user_id, "join")
    await wait_for_the_same_state(room, stage.host, stage.guest)
    await second.aclose()


# -- third-party invites -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_an_invite_to_an_address_becomes_one_to_its_user(
    stage: Stage, version: str, method: str
) -> None:
    if method == "PUT" and stage.away.kind == "synapse":
        pytest.skip("Synapse takes the POST of identity servers only")
    identity = SigningKey.generate(uuid.uuid4().bytes * 2, "0")
    room = await stage.host.create_room(preset="private_chat", room_version=version)
    token = uuid.uuid4().hex
    offer = {
        "display_name": "b...@m...",
        "key_validity_url": "https://identity.invalid/isvalid",
        "public_key": identity.verify_key_base64,
        "public_keys": [{"public_key": identity.verify_key_base64}],
    }
    if stage.home.kind == "synapse":
        del offer["key_validity_url"]  # it would ask there
    await stage.host.set_state(room, "m.room.third_party_invite", offer, token)
    signed = sign_json({"mxid": stage.guest.user_id, "token": token}, "identity.invalid", identity)
    invite = {
        "medium": "email",
        "address": "b@mail.invalid",
        "mxid": stage.guest.user_id,
        "room_id": room,
        "sender": stage.host.user_id,
        "signed": signed,
    }
    body = {
        "medium": "email",
        "address": "b@mail.invalid",
        "mxid": stage.guest.user_id,
        "invites": [invite],
    }

    http = stage.away.federation_http()
    headers = [("Content-Type", "application/json")]
    path = "/_matrix/federation/v1/3pid/onbind"
    answer = await http.request(method, path, headers=headers, body=json.dumps(body).encode())
    await http.aclose()

    assert answer.status == 200, answer.body
    await stage.guest.wait_for_section(room, "invite")
    await stage.guest.join(room, via=[stage.home.server_name])
    await stage.host.wait_for_membership(room, stage.guest.user_id, "join")
    await talk_both_ways(stage, room)


# -- ACLs and upgrades ---------------------------------------------------------------------------------


async def test_a_server_that_the_acl_bans_is_out(stage: Stage) -> None:
    room = await stage.shared_room("11")
    banned = stage.away.server_name.partition(":")[0]
    acl = {"allow": ["*"], "deny": [banned], "allow_ip_literals": True}
    event_id = await stage.host.set_state(room, "m.room.server_acl", acl)
    await stage.guest.wait_for_id(room, event_id)

    unheard = await stage.guest.say(room, "behind the wall")
    heard = await stage.host.say(room, "before the wall")

    await trio.sleep(2)
    await stage.host.sync()
    assert stage.host.seen(room, lambda event: event["event_id"] == unheard) is None
    await stage.host.wait_for_id(room, heard)
    late = await stage.away.register(f"late-{uuid.uuid4().hex[:8]}")
    alias_room, alias = await stage.public_room("11")
    await stage.host.set_state(alias_room, "m.room.server_acl", acl)
    with pytest.raises(ApiError) as refused:
        await late.join(alias)
    assert refused.value.status == 403
    await late.aclose()


@pytest.mark.parametrize("new_version", ["11", "12"])
async def test_an_upgrade_is_seen_and_followed(stage: Stage, new_version: str) -> None:
    room = await stage.shared_room("10", name="Old hall")

    answer = await stage.host.call(
        "POST", f"{V3}/rooms/{segment(room)}/upgrade", {"new_version": new_version}
    )

    replacement = answer["replacement_room"]

    def tombstone(event: JsonObject) -> bool:
        return event["type"] == "m.room.tombstone"

    seen = await stage.guest.wait_for(room, tombstone, "the tombstone")
    assert seen["content"]["replacement_room"] == replacement
    await stage.guest.join(replacement, via=[stage.home.server_name])
    await stage.host.wait_for_membership(replacement, stage.guest.user_id, "join")
    create = (await stage.guest.state(replacement))["m.room.create", ""]["content"]
    assert create["predecessor"]["room_id"] == room
    assert create["room_version"] == new_version
    await talk_both_ways(stage, replacement)


# -- spaces and directories ----------------------------------------------------------------------------


async def test_a_space_elsewhere_is_walked(stage: Stage) -> None:
    server = stage.home.server_name
    space = await stage.host.create_room(
        preset="public_chat", room_version="11", name="Space", creation_content={"type": "m.space"}
    )
    inner = await stage.host.create_room(
        preset="public_chat", room_version="11", name="Inner", creation_content={"type": "m.space"}
    )
    leaf, _ = await stage.public_room("11", name="Leaf")
    secret = await stage.host.create_room(preset="private_chat", room_version="11", name="Secret")
    for parent, child in ((space, inner), (inner, leaf), (space, secret)):
        await stage.host.set_state(parent, "m.space.child", {"via": [server]}, child)
    await stage.guest.join(space, via=[server])

    found = await stage.guest.call("GET", f"{V1}/rooms/{segment(space)}/hierarchy")

    names = {room["room_id"]: room.get("name") for room in found["rooms"]}
    assert names == {space: "Space", inner: "Inner", leaf: "Leaf"}


async def test_the_public_rooms_elsewhere_are_listed_and_searched(stage: Stage) -> None:
    name = f"Listed {uuid.uuid4().hex}"
    room, alias = await stage.public_room("11", name=name, visibility="public", topic="For all")
    await stage.public_room("11", name=f"Hidden {uuid.uuid4().hex}")

    server = {"server": stage.home.server_name}
    found = await stage.guest.call(
        "POST", f"{V3}/publicRooms", {"filter": {"generic_search_term": name}}, server
    )
    every = await stage.guest.call("GET", f"{V3}/publicRooms", None, {**server, "limit": "500"})

    (listed,) = found["chunk"]
    assert (listed["room_id"], listed["canonical_alias"], listed["num_joined_members"]) == (room, alias, 1)
    assert room in {each["room_id"] for each in every["chunk"]}
    assert not any(str(each.get("name")).startswith("Hidden") for each in every["chunk"])


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
