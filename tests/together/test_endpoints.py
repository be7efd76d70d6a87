# SPDX-License-Identifier: Apache-2.0
"""Each endpoint of the Federation API, asked as another server asks it: its path, and what is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.event import Event, build_event
from minihs.matrix.hashes import event_id_of
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import verify_json
from minihs.testing.events import RoomFactory
from minihs.testing.hostile import ScriptedPeer
from tests.together.kit import MALLORY, V1, Scene, scene, seg, tell, with_mallory

V2 = "/_matrix/federation/v2"


async def member_event(at: Scene, room: str, membership: str) -> Any:
    """From the room's template, as the peer's own event."""
    status, template = await at.ask("GET", f"{V1}/make_{membership}/{seg(room)}/{seg(MALLORY)}?ver=12")
    assert (status, template["room_version"]) == (200, "12"), template
    draft = template["event"]
    assert (draft["type"], draft["sender"], draft["state_key"]) == ("m.room.member", MALLORY, MALLORY)
    assert draft["content"]["membership"] == membership
    return build_event(
        version=ROOM_VERSIONS["12"],
        room_id=room,
        type="m.room.member",
        sender=MALLORY,
        state_key=MALLORY,
        content={"membership": membership},
        depth=draft["depth"],
        prev_events=draft["prev_events"],
        auth_events=draft["auth_events"],
        origin_server_ts=at.world.clock.now_ms(),
        server_name="peer.test",
        key=at.peer.key,
    )


@pytest.mark.parametrize("slash", ["", "/"])
async def test_events_state_and_history_are_given(tmp_path: Path, slash: str) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        topic = await at.alice.set_state(room, "m.room.topic", {"topic": "x"})
        first, second = await at.alice.send(room, "first"), await at.alice.send(room, "second")

        async def ask(uri: str) -> Any:
            status, answer = await at.ask("GET", V1 + uri)
            assert status == 200, answer
            return answer

        one = await ask(f"/event/{seg(first)}{slash}")
        assert (one["origin"], one["origin_server_ts"]) == ("one.test", at.world.clock.now_ms())
        assert [pdu["content"]["body"] for pdu in one["pdus"]] == ["first"]
        state = await ask(f"/state/{seg(room)}{slash}?event_id={seg(first)}")
        ids = await ask(f"/state_ids/{seg(room)}{slash}?event_id={seg(first)}")
        assert len(state["pdus"]) == len(ids["pdu_ids"]) == len(await at.alice.state(room))
        assert len(state["auth_chain"]) == len(ids["auth_chain_ids"]) > 0
        before = await ask(f"/state_ids/{seg(room)}{slash}?event_id={seg(topic)}")
        assert set(ids["pdu_ids"]) - set(before["pdu_ids"]) == {topic}
        past = await ask(f"/backfill/{seg(room)}{slash}?v={seg(second)}&limit=2")
        assert (past["origin"], past["origin_server_ts"]) == ("one.test", at.world.clock.now_ms())
        both = await ask(f"/backfill/{seg(room)}{slash}?v={seg(first)}&v={seg(second)}&limit=2")
        assert both["pdus"] == past["pdus"]
        assert [pdu["content"]["body"] for pdu in past["pdus"]] == ["second", "first"]
        status, refused = await at.ask("GET", f"{V1}/backfill/{seg(room)}{slash}?limit=2")
        assert (status, refused["errcode"]) == (400, "M_MISSING_PARAM")


async def test_missing_events_and_auth_chains_are_given(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        first, _, third = [await at.alice.send(room, text) for text in ("one", "two", "three")]
        last = [await at.alice.send(room, f"more {number}") for number in range(12)][-1]
        body = {"earliest_events": [first], "latest_events": [third], "limit": 10, "min_depth": 0}
        status, answer = await at.ask("POST", f"{V1}/get_missing_events/{seg(room)}", body)
        assert status == 200
        assert [pdu["content"]["body"] for pdu in answer["events"]] == ["two"]
        body = {"earliest_events": [first], "latest_events": [last]}
        status, answer = await at.ask("POST", f"{V1}/get_missing_events/{seg(room)}", body)
        assert [pdu["content"]["body"] for pdu in answer["events"]] == [f"more {n}" for n in range(1, 11)]
        status, answer = await at.ask("GET", f"{V1}/event_auth/{seg(room)}/{seg(first)}")
        assert status == 200
        chain = {event_id_of(pdu, ROOM_VERSIONS["12"]): pdu for pdu in answer["auth_chain"]}
        assert {pdu["type"] for pdu in chain.values()} == {"m.room.power_levels", "m.room.member"}
        _, one = await at.ask("GET", f"{V1}/event/{seg(first)}")
        cited = {auth_id for pdu in (*one["pdus"], *chain.values()) for auth_id in pdu["auth_events"]}
        assert cited == set(chain)  # all the way down, and nothing else


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_server_comes_and_goes_by_both_versions(tmp_path: Path, version: str) -> None:
    async with scene(tmp_path) as at:
        room = await at.alice.create_room(preset="public_chat")
        prefix = f"/_matrix/federation/{version}"
        join = await member_event(at, room, "join")
        status, answer = await at.ask(
            "PUT", f"{prefix}/send_join/{seg(room)}/{seg(join.event_id)}", join.json
        )
        assert status == 200
        if version == "v1":
            assert answer[0] == 200
            answer = answer[1]
        assert answer["origin"] == "one.test"
        assert {pdu["type"] for pdu in answer["state"]} >= {"m.room.create", "m.room.member"}
        assert MALLORY in {key for kind, key in await at.alice.state(room) if kind == "m.room.member"}
        leave = await member_event(at, room, "leave")
        uri = f"{prefix}/send_leave/{seg(room)}/{seg(leave.event_id)}"
        assert await at.ask("PUT", uri, leave.json) == (200, {} if version == "v2" else [200, {}])
        state = await at.alice.state(room)
        assert state["m.room.member", MALLORY]["content"]["membership"] == "leave"


async def test_a_knock_is_taken_and_answered_with_what_the_room_shows(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
        room = await at.alice.create_room(preset="private_chat", name="Hall", initial_state=[rules])
        knock = await member_event(at, room, "knock")
        uri = f"{V1}/send_knock/{seg(room)}/{seg(knock.event_id)}"
        status, answer = await at.ask("PUT", uri, knock.json)
        assert status == 200
        shown = {event["type"]: event for event in answer["knock_room_state"]}
        assert {"m.room.create", "m.room.name", "m.room.join_rules"} <= set(shown)
        assert "hashes" in shown["m.room.create"]  # from version 12 on whole events
        state = await at.alice.state(room)
        assert state["m.room.member", MALLORY]["content"]["membership"] == "knock"


async def test_a_room_version_that_the_asker_lacks_is_named(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await at.alice.create_room(preset="public_chat")
        for uri in (f"{V1}/make_join/{seg(room)}/{seg(MALLORY)}?ver=9&ver=10",):
            status, answer = await at.ask("GET", uri)
            assert (status, answer["errcode"]) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
            assert answer["room_version"] == "12"


def invitation(at: Scene, version: str) -> tuple[Event, list[Any]]:
    """An invite of alice into a room of the peer's."""
    factory = RoomFactory(version=version, creator=MALLORY)
    tip = list(factory.events.values())[-1]
    create = factory.state["m.room.create", ""]
    auth = [factory.state[key].event_id for key in (("m.room.power_levels", ""), ("m.room.member", MALLORY))]
    if ROOM_VERSIONS[version].create_event_in_auth_events:
        auth.append(create.event_id)
    event = build_event(
        version=ROOM_VERSIONS[version],
        room_id=tip.room_id,
        type="m.room.member",
        sender=MALLORY,
        state_key=at.alice.user_id,
        content={"membership": "invite"},
        depth=tip.depth + 1,
        prev_events=[tip.event_id],
        auth_events=auth,
        origin_server_ts=at.world.clock.now_ms(),
        server_name="peer.test",
        key=at.peer.key,
        prev_hashes=dict.fromkeys([tip.event_id, *auth], "x" * 43) if version in ("1", "2") else None,
        random_id="invite",
    )
    return event, [{key: create.json[key] for key in ("type", "sender", "state_key", "content")}]


@pytest.mark.parametrize("form", ["v1", "v2"])
async def test_an_invite_is_signed_by_both_versions(tmp_path: Path, form: str) -> None:
    async with scene(tmp_path) as at:
        event, shown = invitation(at, "1" if form == "v1" else "11")
        uri = f"/_matrix/federation/{form}/invite/{seg(event.room_id)}/{seg(event.event_id)}"
        body: Any = {"room_version": "11", "event": event.json, "invite_room_state": shown}
        if form == "v1":
            body = {**event.json, "unsigned": {"invite_room_state": shown}}
        config = f"/user/{seg(at.alice.user_id)}/account_data/m.invite_permission_config"
        await at.alice.put(config, {"default_action": "block"})
        status, answer = await at.ask("PUT", uri, body)
        assert (status, answer["errcode"]) == (403, "M_INVITE_BLOCKED")
        assert not (await at.alice.sync())["rooms"]["invite"]
        await at.alice.put(config, {"default_action": "allow"})
        status, answer = await at.ask("PUT", uri, body)
        assert status == 200, answer
        signed = (answer[1] if form == "v1" else answer)["event"]
        assert set(signed["signatures"]) == {"peer.test", "one.test"}
        assert event.room_id in (await at.alice.sync())["rooms"]["invite"]


async def test_our_keys_are_published_in_every_form(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        key = at.world["one.test"].server.services.signing_key
        for end in ("", "/", f"/{seg(key.key_id)}", f"/{seg(key.key_id)}/"):
            uri = f"/_matrix/key/v2/server{end}"
            status, document = await at.peer.request("GET", "one.test", uri, headers=[])
            assert status == 200
            verify_json(document, "one.test", key.key_id, key.verify_key)
            assert document["verify_keys"] == {key.key_id: {"key": key.verify_key_base64}}


async def test_as_a_notary_we_sign_others_keys(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        other = ScriptedPeer(at.world.internet, "other.test", clock=at.world.clock)
        wanted = {"server_keys": {"other.test": {other.key.key_id: {"minimum_valid_until_ts": 0}}}}
        for method, uri, body in (
            ("GET", "/_matrix/key/v2/query/other.test", None),
            ("GET", f"/_matrix/key/v2/query/other.test/{seg(other.key.key_id)}", None),
            (
                "GET",
                f"/_matrix/key/v2/query/other.test/{seg(other.key.key_id)}/?minimum_valid_until_ts=0",
                None,
            ),
            ("POST", "/_matrix/key/v2/query", wanted),
        ):
            status, answer = await at.ask(method, uri, body)
            assert status == 200
            (document,) = answer["server_keys"]
            assert set(document["signatures"]) == {"other.test", "one.test"}, uri


async def test_rooms_are_found_by_alias_and_in_the_directory(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await at.alice.create_room(
            preset="public_chat", room_alias_name="hall", visibility="public", name="Hall"
        )
        status, answer = await at.ask("GET", f"{V1}/query/directory?room_alias={seg('#hall:one.test')}")
        assert (status, answer) == (200, {"room_id": room, "servers": ["one.test"]})
        shared = await with_mallory(at)
        await at.alice.put(f"/directory/room/{seg('#shared:one.test')}", {"room_id": shared})
        status, answer = await at.ask("GET", f"{V1}/query/directory?room_alias={seg('#shared:one.test')}")
        assert (status, answer["room_id"]) == (200, shared)
        assert sorted(answer["servers"]) == ["one.test", "peer.test"]
        status, answer = await at.ask("GET", f"{V1}/publicRooms?limit=5")
        assert [each["room_id"] for each in answer["chunk"]] == [room]
        for method, query, body in (
            ("GET", "?third_party_instance_id=irc-freenode", None),
            ("POST", "", {"third_party_instance_id": "irc-freenode"}),
        ):
            answer = await at.ask(method, f"{V1}/publicRooms{query}", body)
            assert answer == (200, {"chunk": [], "total_room_count_estimate": 0})
        for term, found in (("hall", 1), ("cellar", 0)):
            body = {"filter": {"generic_search_term": term}, "include_all_networks": True}
            status, answer = await at.ask("POST", f"{V1}/publicRooms", body)
            assert (status, len(answer["chunk"])) == (200, found)
        status, answer = await at.ask("GET", f"{V1}/query/directory?room_alias={seg('#none:one.test')}")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_space_is_shown(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        space = await at.alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
        room = await at.alice.create_room(preset="public_chat", name="Hall")
        await at.alice.set_state(space, "m.space.child", {"via": ["one.test"]}, room)
        status, answer = await at.ask("GET", f"{V1}/hierarchy/{seg(space)}?suggested_only=false")
        assert status == 200
        assert answer["room"]["room_id"] == space
        assert [child["name"] for child in answer["children"]] == ["Hall"]
        assert answer["inaccessible_children"] == []


async def test_of_a_space_only_what_is_suggested_is_shown_if_that_is_wanted(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        space = await at.alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
        inner = await at.alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
        room = await at.alice.create_room(preset="public_chat")
        hidden = await at.alice.create_room(preset="private_chat")
        for parent, child, suggested in ((space, inner, True), (space, room, False), (inner, room, False)):
            content = {"via": ["one.test"], "suggested": suggested}
            await at.alice.set_state(parent, "m.space.child", content, child)
        await at.alice.set_state(space, "m.space.child", {"via": ["one.test"], "suggested": True}, hidden)
        _, answer = await at.ask("GET", f"{V1}/hierarchy/{seg(space)}?suggested_only=true")
        assert {child["state_key"] for child in answer["room"]["children_state"]} == {inner, hidden}
        assert [child["room_id"] for child in answer["children"]] == [inner]
        assert answer["children"][0]["children_state"] == []
        assert answer["inaccessible_children"] == [hidden]


async def test_devices_and_keys_of_our_users_are_told_and_claimed_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        user, name = at.alice.user_id, at.alice.device_id
        keys = {
            "user_id": user,
            "device_id": name,
            "algorithms": [],
            "keys": {f"ed25519:{name}": "key"},
            "signatures": {user: {f"ed25519:{name}": "signature"}},
        }
        one_time = {"signed_curve25519:A": {"key": "a", "signatures": {}}}
        await at.alice.post("/keys/upload", {"device_keys": keys, "one_time_keys": one_time})
        status, answer = await at.ask("GET", f"{V1}/user/devices/{seg(user)}")
        assert status == 200
        assert type(answer["stream_id"]) is int
        assert [(device["device_id"], device["keys"]) for device in answer["devices"]] == [(name, keys)]
        body = {"device_keys": {user: []}}
        status, answer = await at.ask("POST", f"{V1}/user/keys/query", body)
        assert answer["device_keys"][user][name]["keys"] == keys["keys"]
        claim = {"one_time_keys": {user: {name: "signed_curve25519"}}}
        status, answer = await at.ask("POST", f"{V1}/user/keys/claim", claim)
        assert answer["one_time_keys"] == {user: {name: one_time}}
        assert await at.ask("POST", f"{V1}/user/keys/claim", claim) == (200, {"one_time_keys": {}})


async def test_an_openid_token_stands_for_its_user(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        token = await at.alice.post(f"/user/{seg(at.alice.user_id)}/openid/request_token", {})
        uri = f"{V1}/openid/userinfo?access_token="
        found = await at.peer.request("GET", "one.test", uri + token["access_token"], headers=[])
        assert found == (200, {"sub": at.alice.user_id})
        status, answer = await at.peer.request("GET", "one.test", uri + "wrong", headers=[])
        assert (status, answer["errcode"]) == (401, "M_UNKNOWN_TOKEN")


async def test_who_we_are_and_where_is_told_to_anybody(tmp_path: Path) -> None:
    async with scene(tmp_path, delegated_server="real.one.test:443") as at:
        status, answer = await at.peer.request("GET", "one.test", f"{V1}/version", headers=[])
        assert (status, answer["server"]["name"]) == (200, "minihs")
        uri = "/.well-known/matrix/server"
        found = await at.peer.request("GET", "one.test", uri, headers=[])
        assert found == (200, {"m.server": "real.one.test:443"})


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_transaction_is_answered_for_each_pdu(tmp_path: Path, slash: str) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        await tell(at, "empty" + slash)
        event_id = await at.alice.send(room, "hello")
        _, answer = await at.ask("GET", f"{V1}/event/{seg(event_id)}")
        pdu = answer["pdus"][0]
        body = {"origin": "peer.test", "origin_server_ts": 0, "pdus": [pdu, {"room_id": room}]}
        status, answer = await at.ask("PUT", f"{V1}/send/t{slash}", body)
        assert status == 200
        assert answer["pdus"][event_id] == {}


async def test_forward_extremities_are_told_to_room_mates(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        last = await at.alice.send(room, "the last word")
        uri = f"/_matrix/federation/unstable/org.matrix.msc4370/extremities/{seg(room)}"
        assert await at.ask("GET", uri) == (200, {"prev_events": [last]})
        other = await at.alice.create_room(preset="private_chat")
        status, _ = await at.ask("GET", uri.replace(seg(room), seg(other)))
        assert status == 403
