# SPDX-License-Identifier: Apache-2.0
"""What another server can ask, over HTTP."""

from __future__ import annotations

from pathlib import Path

from tests.together.kit import V1, scene, seg


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
        status, answer = await at.ask("GET", uri)
        assert (status, answer["org.example.pet"]) == (200, "cat")
        assert await at.ask("GET", uri + "&field=org.example.pet") == (200, {"org.example.pet": "cat"})
        status, answer = await at.ask("GET", uri + "&field=org.example.dog")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


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
