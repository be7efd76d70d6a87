# SPDX-License-Identifier: Apache-2.0
"""What another server can ask, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from minihs.e2ee.device_keys import MAX_CLAIMED
from minihs.testing.hostile import KEY_PATH, ScriptedPeer
from tests.together.kit import MALLORY, V1, scene, seg, with_mallory
from tests.web.client.keys_kit import CrossSigning


async def test_queries_that_nobody_knows_are_not_found(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        status, answer = await at.ask("GET", V1 + "/query/weather?city=Bonn")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")
        status, answer = await at.ask("GET", V1 + "/query/profile")
        assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")


async def test_custom_profile_fields_are_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.alice.put(f"/profile/{seg(at.alice.user_id)}/org.example.pet", {"org.example.pet": "cat"})
        uri = f"{V1}/query/profile?user_id={seg(at.alice.user_id)}"
        await at.alice.put(f"/profile/{seg(at.alice.user_id)}/displayname", {"displayname": "Alice"})
        assert await at.ask("GET", uri) == (200, {"displayname": "Alice", "org.example.pet": "cat"})
        assert await at.ask("GET", uri + "&field=displayname") == (200, {"displayname": "Alice"})
        assert await at.ask("GET", uri + "&field=org.example.pet") == (200, {"org.example.pet": "cat"})
        for nothing in (uri + "&field=org.example.dog", f"{V1}/query/profile?user_id={seg('@no:one.test')}"):
            status, answer = await at.ask("GET", nothing)
            assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_the_public_rooms_elsewhere_are_read_page_by_page_and_searched(tmp_path: Path) -> None:
    async with scene(tmp_path, "two.test") as at:
        bob = await at.world["two.test"].user("bob")
        named = {"preset": "public_chat", "visibility": "public"}
        rooms = [await at.alice.create_room(**named, name=f"Hall {number}") for number in range(3)]
        space = await at.alice.create_room(**named, name="Attic", creation_content={"type": "m.space"})
        pages = [await bob.get("/publicRooms", server="one.test", limit=3)]
        pages.append(await bob.get("/publicRooms", server="one.test", limit=3, since=pages[0]["next_batch"]))
        assert [len(page["chunk"]) for page in pages] == [3, 1]
        assert {each["room_id"] for page in pages for each in page["chunk"]} == {*rooms, space}
        assert "next_batch" not in pages[1]
        first = await bob.get("/publicRooms", server="one.test", limit=3, since=pages[1]["prev_batch"])
        assert first["chunk"] == pages[0]["chunk"]
        for wanted, found in (
            ({"generic_search_term": "hALL"}, rooms),
            ({"room_types": ["m.space"]}, [space]),
            ({"room_types": [None]}, rooms),
            ({"generic_search_term": "cellar"}, []),
        ):
            page = await bob.post("/publicRooms?server=one.test", {"filter": wanted})
            assert sorted(each["room_id"] for each in page["chunk"]) == sorted(found)


async def test_of_a_list_of_public_rooms_elsewhere_only_so_much_is_passed_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        rooms = [{"room_id": f"!r{n}:peer.test", "num_joined_members": "many", "x": 1} for n in range(600)]
        answer = {"chunk": [None, {"room_id": 5}, *rooms], "next_batch": 5, "total_room_count_estimate": 602}
        at.peer.on("POST", f"{V1}/publicRooms", answer)
        page = await at.alice.get("/publicRooms", server="peer.test")
        assert len(page["chunk"]) == 498
        assert page["chunk"][0] == {
            "room_id": "!r0:peer.test",
            "num_joined_members": 0,
            "world_readable": False,
            "guest_can_join": False,
        }
        assert page["total_room_count_estimate"] == 602
        assert "next_batch" not in page


async def test_the_size_of_a_room_is_told_to_who_may_join_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        public = await at.alice.create_room(preset="public_chat")
        private = await at.alice.create_room(preset="private_chat")
        unstable = "/_matrix/federation/unstable/rooms/"
        status, answer = await at.ask("GET", f"{unstable}{seg(public)}/complexity")
        assert status == 200
        assert answer["v1"] == round(len(await at.alice.state(public)) / 500, 2)
        status, _ = await at.ask("GET", f"{unstable}{seg(private)}/complexity")
        assert status == 404


async def test_obsolete_endpoints_are_unrecognized(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        for method, uri in (
            ("POST", f"{V1}/query_auth/!room:one.test/$event"),
            ("GET", "/_matrix/key/v1"),
            ("GET", f"{V1}/pull?origin=peer.test&v=1"),
            ("POST", "/_matrix/policy/v1/sign"),
        ):
            status, answer = await at.ask(method, uri, {} if method == "POST" else None)
            assert (status, answer["errcode"]) == (404, "M_UNRECOGNIZED"), uri


async def test_a_binding_may_be_put_or_posted(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        body = {"medium": "email", "address": "a@mail.test", "mxid": at.alice.user_id, "invites": []}
        for method in ("PUT", "POST"):
            assert await at.ask(method, V1 + "/3pid/onbind", body) == (200, {})
        status, answer = await at.ask("PUT", V1 + "/3pid/onbind", {**body, "mxid": "@nobody:one.test"})
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")


async def test_an_event_is_found_by_its_time(tmp_path: Path) -> None:
    async with scene(tmp_path, "two.test") as at:
        bob = await at.world["two.test"].user("bob")
        room = await at.alice.create_room(preset="public_chat")
        await bob.join(room, "one.test")
        first = await at.alice.send(room, "first")
        sent = at.world.clock.now_ms()
        federation = at.world["two.test"].server.services.federation
        found, ts = await federation.timestamp_to_event("one.test", room, sent + 1000, "b")
        assert found == first
        assert ts <= sent
        path = f"{V1}/timestamp_to_event/{seg(room)}"
        status, answer = await at.ask("GET", f"{path}?ts=0&dir=f")
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        status, answer = await at.ask("GET", f"{path}?ts=0&dir=x")
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")


async def test_members_are_omitted_by_the_joins_query(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await at.alice.create_room(preset="public_chat", name="Hall")
        status, answer = await at.ask(
            "PUT", f"/_matrix/federation/v2/send_join/{seg(room)}/$x?omit_members=yes", {}
        )
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")


async def test_of_a_user_what_they_published_is_told_and_nothing_else(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        alice, bob = at.alice, await at.world["one.test"].user("bob")
        keys: dict[str, Any] = {}
        for client in (alice, bob):
            user, name = client.user_id, client.device_id
            keys[user] = {
                "user_id": user,
                "device_id": name,
                "algorithms": [],
                "keys": {f"ed25519:{name}": "key"},
                "signatures": {user: {f"ed25519:{name}": "signature"}},
            }
            await client.post("/keys/upload", {"device_keys": keys[user]})
        own = CrossSigning(alice.user_id)
        await alice.post("/keys/device_signing/upload", own.upload())
        await alice.put(f"/devices/{alice.device_id}", {"display_name": "Phone"})
        status, answer = await at.ask("GET", f"{V1}/user/devices/{seg(alice.user_id)}")
        assert (status, type(answer.pop("stream_id"))) == (200, int)
        device = {"device_id": alice.device_id, "keys": keys[alice.user_id], "device_display_name": "Phone"}
        assert answer == {
            "user_id": alice.user_id,
            "devices": [device],
            "master_key": own.key("master"),
            "self_signing_key": own.key("self_signing"),
        }
        for wanted, found in (([], [alice.device_id]), ([alice.device_id], [alice.device_id]), (["X"], [])):
            body = {"device_keys": {alice.user_id: wanted, "@nobody:one.test": [], MALLORY: []}}
            status, answer = await at.ask("POST", f"{V1}/user/keys/query", body)
            assert (status, list(answer["device_keys"])) == (200, [alice.user_id])
            assert list(answer["device_keys"][alice.user_id]) == found
            assert answer["master_keys"] == {alice.user_id: own.key("master")}
            assert answer["self_signing_keys"] == {alice.user_id: own.key("self_signing")}
            assert set(answer) == {"device_keys", "master_keys", "self_signing_keys"}


async def test_a_notary_that_is_asked_for_longer_validity_asks_the_server_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        other = ScriptedPeer(at.world.internet, "other.test", clock=at.world.clock)
        key_id, path = other.key.key_id, "/_matrix/key/v2/query"

        async def ask(form: str, until: int | None) -> None:
            query = "" if until is None else f"?minimum_valid_until_ts={until}"
            criteria = {} if until is None else {"minimum_valid_until_ts": until}
            if form == "POST":
                answer = await at.ask("POST", path, {"server_keys": {"other.test": {key_id: criteria}}})
            else:
                answer = await at.ask("GET", f"{path}/other.test{form}{query}")
            assert (answer[0], len(answer[1]["server_keys"])) == (200, 1)

        for number, form in enumerate(("", f"/{seg(key_id)}", "POST")):
            await trio.sleep(60)
            await ask(form, None)
            asked = len(other.received(KEY_PATH))
            assert asked == number + 1
            # Of what we have the server said a minute ago that it is good for a day.
            await trio.sleep(60)
            await ask(form, at.world.clock.now_ms() + 24 * 3600 * 1000 - 30_000)
            assert len(other.received(KEY_PATH)) == asked + 1, form


async def test_without_a_list_of_versions_only_the_first_is_understood(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        for version, expected in (("1", 200), ("2", 400)):
            room = await at.alice.create_room(preset="public_chat", room_version=version)
            status, answer = await at.ask("GET", f"{V1}/make_join/{seg(room)}/{seg(MALLORY)}")
            assert (status, answer["room_version"]) == (expected, version)


async def test_missing_events_are_ten_unless_more_are_wanted(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        first, *_, last = [await at.alice.send(room, str(n)) for n in range(23)]
        body = {"earliest_events": [first], "latest_events": [last]}
        for limit, given in ((None, 10), (20, 20), (21, 20)):
            asked = body if limit is None else {**body, "limit": limit}
            _, answer = await at.ask("POST", f"{V1}/get_missing_events/{seg(room)}", asked)
            told = [pdu["content"]["body"] for pdu in answer["events"]]
            assert told == [str(n) for n in range(22 - given, 22)]


async def test_the_directory_comes_page_by_page_and_by_kind(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.alice.create_room(preset="public_chat", name="not published")
        for number in range(3):
            kind = {"creation_content": {"type": "m.space"}} if number == 2 else {}
            await at.alice.create_room(preset="public_chat", visibility="public", name=str(number), **kind)

        async def pages(method: str, **options: Any) -> list[str]:
            names: list[str] = []
            while True:
                if method == "GET":
                    query = "&".join(f"{name}={value}" for name, value in options.items())
                    status, answer = await at.ask("GET", f"{V1}/publicRooms?{query}")
                else:
                    status, answer = await at.ask("POST", f"{V1}/publicRooms", options)
                assert status == 200
                names += [each["name"] for each in answer["chunk"]]
                assert len(answer["chunk"]) <= 2
                for entry in answer["chunk"]:
                    assert entry["num_joined_members"] == 1
                    assert (entry["world_readable"], entry["guest_can_join"]) == (False, False)
                if "next_batch" not in answer:
                    return sorted(names)
                options["since"] = answer["next_batch"]

        assert await pages("GET", limit=2) == ["0", "1", "2"]
        assert await pages("POST", limit=2) == ["0", "1", "2"]
        assert await pages("POST", limit=2, filter={"room_types": ["m.space"]}) == ["2"]
        assert await pages("POST", limit=1, filter={"room_types": [None]}) == ["0", "1"]


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        _, made = await at.alice.ask("POST", "/_matrix/media/v1/create", {})
        media_id = made["content_uri"].rpartition("/")[2]
        for uri in (f"download/{media_id}?", f"thumbnail/{media_id}?width=32&height=32&"):
            start = trio.current_time()
            status, answer = await at.ask("GET", f"{V1}/media/{uri}timeout_ms=3000")
            assert (status, answer["errcode"]) == (504, "M_NOT_YET_UPLOADED")
            assert 2.9 <= trio.current_time() - start <= 4


async def test_who_is_reached_under_its_own_name_has_no_delegation(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        status, answer = await at.peer.request("GET", "one.test", "/.well-known/matrix/server", headers=[])
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_an_openid_token_that_has_expired_stands_for_nobody(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        token = await at.alice.post(f"/user/{seg(at.alice.user_id)}/openid/request_token", {})
        await trio.sleep(token["expires_in"] + 1)
        uri = f"{V1}/openid/userinfo?access_token={token['access_token']}"
        status, answer = await at.peer.request("GET", "one.test", uri, headers=[])
        assert (status, answer["errcode"]) == (401, "M_UNKNOWN_TOKEN")


async def test_several_keys_of_a_device_are_claimed_at_once(tmp_path: Path) -> None:
    """The form of MSC3983, as Synapse asks: each algorithm as often as keys are wanted."""
    async with scene(tmp_path) as at:
        user, device = at.alice.user_id, at.alice.device_id
        keys = {f"a:{n}": f"key {n}" for n in range(4)} | {"b:0": "another"}
        await at.alice.post("/keys/upload", {"one_time_keys": keys, "fallback_keys": {"a:last": "for ever"}})

        async def claim(*algorithms: str) -> Any:
            body = {"one_time_keys": {user: {device: list(algorithms)}, MALLORY: {"X": ["a"]}}}
            status, answer = await at.ask("POST", "/_matrix/federation/unstable/user/keys/claim", body)
            return answer["one_time_keys"][user][device] if status == 200 else answer["errcode"]

        assert await claim("a", "b", "a") == {"a:0": "key 0", "a:1": "key 1", "b:0": "another"}
        assert await claim("a", "a", "a") == {"a:2": "key 2", "a:3": "key 3", "a:last": "for ever"}
        assert await claim(*["a"] * MAX_CLAIMED) == {"a:last": "for ever"}
        assert await claim(*["a"] * (MAX_CLAIMED + 1)) == "M_BAD_JSON"
