# SPDX-License-Identifier: Apache-2.0
"""Profiles of our users and of others, and the user directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.federation_errors import RemoteRefused, Unreachable

from .kit import TestServer, open_server, refused

REMOTE = "@bob:other.example"


class RemoteProfiles:
    """Another server that knows bob."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str | None]] = []

    async def query_profile(self, host: str, user_id: str, field: str | None = None) -> dict[str, Any]:
        self.asked.append((host, user_id, field))
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: dict[str, Any] = self.answer
        return answer


class TestOwn:
    async def test_fields_are_set_read_and_removed(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = f"/profile/{alice.user_id}"
        assert (await alice.get(path)).json == {}
        fields = {
            "displayname": "Alice",
            "avatar_url": "mxc://example.org/abc",
            "m.tz": "Europe/London",
            "org.example.pronouns": [{"language": "en"}],
            "org.example.none": None,
        }
        for name, value in fields.items():
            assert (await alice.put(f"{path}/{name}", {name: value})).json == {}
            assert (await server.ask("GET", f"{path}/{name}")).json == {name: value}
        assert (await server.ask("GET", path)).json == fields
        for name in fields:
            assert (await alice.delete(f"{path}/{name}")).json == {}
            assert refused(await alice.get(f"{path}/{name}"), 404, "M_NOT_FOUND")
        assert (await alice.delete(f"{path}/m.tz")).json == {}
        assert (await alice.get(path)).json == {}

    async def test_the_unstable_path_is_the_same(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = f"/_matrix/client/unstable/uk.tcpip.msc4133/profile/{alice.user_id}/m.tz"
        assert (await alice.put(path, {"m.tz": "UTC"})).status == 200
        assert (await alice.get(path)).json == {"m.tz": "UTC"}

    async def test_rooms_hear_of_a_new_name_and_picture_only(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = f"/profile/{alice.user_id}"
        await alice.put(f"{path}/displayname", {"displayname": "Alice"})
        await alice.put(f"{path}/displayname", {"displayname": "Alice"})
        await alice.put(f"{path}/m.tz", {"m.tz": "UTC"})
        assert server.rooms.profiles == [alice.user_id]
        await alice.put(f"{path}/displayname", {"displayname": ""})
        assert server.rooms.profiles == [alice.user_id] * 2
        assert refused(await alice.get(f"{path}/displayname"), 404, "M_NOT_FOUND")

    async def test_only_ones_own_can_be_changed(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        path = f"/profile/{bob.user_id}/displayname"
        assert refused(await alice.put(path, {"displayname": "x"}), 403, "M_FORBIDDEN")
        assert refused(await alice.delete(path), 403, "M_FORBIDDEN")
        assert refused(await server.ask("PUT", path, {"displayname": "x"}), 401, "M_MISSING_TOKEN")

    @pytest.mark.parametrize(
        ("field", "body", "errcode"),
        [
            ("displayname", {"displayname": 1}, "M_BAD_JSON"),
            ("displayname", {"displayname": None}, "M_BAD_JSON"),
            ("displayname", {"displayname": "x" * 2000}, "M_INVALID_PARAM"),
            ("displayname", {"m.tz": "x"}, "M_MISSING_PARAM"),
            ("displayname", [], "M_BAD_JSON"),
            ("avatar_url", {"avatar_url": "https://example.org/x.png"}, "M_INVALID_PARAM"),
            ("avatar_url", {"avatar_url": "mxc://" + "x" * 2000}, "M_INVALID_PARAM"),
            ("m.tz", {"m.tz": []}, "M_BAD_JSON"),
            ("Capital", {"Capital": 1}, "M_INVALID_PARAM"),
            ("_x", {"_x": 1}, "M_INVALID_PARAM"),
            ("x%00", {"x\0": 1}, "M_INVALID_PARAM"),
            ("x" * 300, {"x" * 300: 1}, "M_KEY_TOO_LARGE"),
            ("org.example.big", {"org.example.big": "x" * 70_000}, "M_PROFILE_TOO_LARGE"),
        ],
    )
    async def test_bad_fields_are_refused(
        self, server: TestServer, field: str, body: Any, errcode: str
    ) -> None:
        alice = await server.user("alice")
        assert refused(await alice.put(f"/profile/{alice.user_id}/{field}", body), 400, errcode)
        assert (await alice.get(f"/profile/{alice.user_id}")).json == {}

    async def test_all_fields_together_are_limited(self, server: TestServer) -> None:
        alice = await server.user("alice")
        answers = [
            await alice.put(f"/profile/{alice.user_id}/org.f{i}", {f"org.f{i}": "x" * 20_000})
            for i in range(4)
        ]
        assert [answer.status for answer in answers] == [200, 200, 200, 400]

    @pytest.mark.parametrize("user_id", ["@nobody:example.org", "@nobody:EXAMPLE.org"])
    async def test_unknown_users_are_not_found(self, server: TestServer, user_id: str) -> None:
        alice = await server.user("alice")
        answer = await alice.get(f"/profile/{user_id}")
        assert answer.status == 404
        assert answer.json["errcode"] == "M_NOT_FOUND"

    @pytest.mark.parametrize("user_id", ["nobody", "%00", "@x:", "@x:a%2Fb", "!r:example.org"])
    async def test_what_is_no_user_id_is_refused(self, server: TestServer, user_id: str) -> None:
        assert refused(await server.ask("GET", f"/profile/{user_id}"), 400, "M_INVALID_PARAM")


class TestRemote:
    async def test_profiles_of_others_come_from_their_servers(self, tmp_path: Path) -> None:
        remote = RemoteProfiles({"displayname": "Bob", "avatar_url": 7, "m.tz": "UTC"})
        async with open_server(tmp_path, federation=remote) as server:
            alice = await server.user("alice")
            assert (await alice.get(f"/profile/{REMOTE}")).json == {"displayname": "Bob", "m.tz": "UTC"}
            assert (await alice.get(f"/profile/{REMOTE}/displayname")).json == {"displayname": "Bob"}
            assert refused(await alice.get(f"/profile/{REMOTE}/avatar_url"), 404, "M_NOT_FOUND")
            assert remote.asked[0] == ("other.example", REMOTE, None)

    async def test_strangers_can_not_make_us_ask(self, tmp_path: Path) -> None:
        remote = RemoteProfiles({"displayname": "Bob"})
        async with open_server(tmp_path, federation=remote) as server:
            assert refused(await server.ask("GET", f"/profile/{REMOTE}"), 403, "M_FORBIDDEN")
            assert remote.asked == []

    @pytest.mark.parametrize(
        ("error", "status", "errcode"),
        [
            (RemoteRefused("other.example", 404, {"errcode": "M_NOT_FOUND"}), 404, "M_NOT_FOUND"),
            (RemoteRefused("other.example", 403, {"errcode": "M_FORBIDDEN"}), 403, "M_FORBIDDEN"),
            (Unreachable("other.example", "no answer"), 502, "M_UNKNOWN"),
        ],
    )
    async def test_failures_say_what_they_are(
        self, tmp_path: Path, error: Exception, status: int, errcode: str
    ) -> None:
        async with open_server(tmp_path, federation=RemoteProfiles(error)) as server:
            alice = await server.user("alice")
            assert refused(await alice.get(f"/profile/{REMOTE}"), status, errcode)


class TestDirectory:
    async def test_local_users_are_found_by_name_and_id(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await server.user("bobby")
        await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Robert"})
        for term in ("bob", "BOB"):
            found = (await alice.post("/user_directory/search", {"search_term": term})).json
            assert [user["user_id"] for user in found["results"]] == [bob.user_id, "@bobby:example.org"]
            assert found["limited"] is False
        found = (await alice.post("/user_directory/search", {"search_term": "robe"})).json
        assert found["results"] == [{"user_id": bob.user_id, "display_name": "Robert"}]
        limited = (await alice.post("/user_directory/search", {"search_term": "bob", "limit": 1})).json
        assert limited["limited"] is True
        assert len(limited["results"]) == 1

    async def test_closed_accounts_are_not_found(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await bob.confirmed("POST", "/account/deactivate", {})
        found = (await alice.post("/user_directory/search", {"search_term": "bob"})).json
        assert found == {"results": [], "limited": False}

    @pytest.mark.parametrize(
        "body", [{}, {"search_term": 1}, {"search_term": "x", "limit": "1"}, {"search_term": "x", "limit": 0},
                 {"search_term": "x", "limit": True}, {"search_term": "x" * 300}]
    )  # fmt: skip
    async def test_malformed_searches_are_refused(self, server: TestServer, body: Any) -> None:
        alice = await server.user("alice")
        assert (await alice.post("/user_directory/search", body)).status == 400
