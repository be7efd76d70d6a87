# SPDX-License-Identifier: Apache-2.0
"""Presence, OpenID, and what there is none of; and that no route lets a wrong type through as a 500."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from minihs.web.routes.client import (
    account,
    account_data,
    devices,
    filters,
    keys,
    login,
    misc,
    profile,
    push_rules,
    register,
    room_keys,
    server_admin,
    to_device,
)
from minihs.web.routing import Auth, Route

from .kit import PASSWORD, TestServer, open_server, refused

MODULES = [
    account,
    account_data,
    devices,
    filters,
    keys,
    login,
    misc,
    profile,
    push_rules,
    register,
    room_keys,
    server_admin,
    to_device,
]
ROUTES: list[Route] = [route for module in MODULES for route in module.routes.all]


class TestTurn:
    async def test_without_a_turn_server_clients_go_on(self, server: TestServer) -> None:
        assert (await (await server.user("alice")).get("/voip/turnServer")).json == {}

    async def test_credentials_are_what_the_turn_server_computes(self, tmp_path: Path) -> None:
        settings = {"uris": ["turn:turn.example.org?transport=udp"], "shared_secret": "between us"}
        async with open_server(tmp_path, turn={**settings, "lifetime_minutes": 60}) as server:
            alice = await server.user("alice")
            asked = server.clock.now_ms() // 1000
            answer = (await alice.get("/voip/turnServer")).json
        expiry, _, user_id = answer["username"].partition(":")
        assert asked <= int(expiry) - 3600 <= server.clock.now_ms() // 1000
        assert user_id == alice.user_id
        mac = hmac.new(b"between us", answer["username"].encode(), hashlib.sha1).digest()
        assert base64.b64decode(answer["password"]) == mac
        assert (answer["uris"], answer["ttl"]) == (settings["uris"], 3600)


class TestPresence:
    async def test_ones_own_is_set_and_seen_by_who_shares_a_room(self, server: TestServer) -> None:
        alice, bob, carol = [await server.user(name) for name in ("alice", "bob", "carol")]
        await server.share_a_room(alice.user_id, bob.user_id)
        path = f"/presence/{alice.user_id}/status"
        assert (await alice.get(path)).json == {"presence": "offline"}
        assert (await alice.put(path, {"presence": "online", "status_msg": "here"})).json == {}
        seen = (await bob.get(path)).json
        assert (seen["presence"], seen["status_msg"], seen["currently_active"]) == ("online", "here", True)
        assert seen["last_active_ago"] < 60_000
        assert refused(await carol.get(path), 403, "M_FORBIDDEN")

    async def test_an_online_user_becomes_away(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = f"/presence/{alice.user_id}/status"
        await alice.put(path, {"presence": "online"})
        server.clock.step(600_000)
        seen = (await alice.get(path)).json
        assert seen["presence"] == "unavailable"
        assert seen["last_active_ago"] >= 600_000

    async def test_syncing_shows_the_user_and_keeps_the_message(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = f"/presence/{alice.user_id}/status"
        await alice.put(path, {"presence": "offline", "status_msg": "gone"})
        server.users.presence.seen(alice.user_id)
        seen = (await alice.get(path)).json
        assert (seen["presence"], seen["status_msg"]) == ("online", "gone")

    @pytest.mark.parametrize(
        "body", [{}, {"presence": "busy"}, {"presence": 1}, {"presence": "online", "status_msg": 1}]
    )
    async def test_malformed_presence_is_refused(self, server: TestServer, body: Any) -> None:
        alice = await server.user("alice")
        assert (await alice.put(f"/presence/{alice.user_id}/status", body)).status == 400

    async def test_others_can_not_be_set_and_unknown_ones_not_found(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        answer = await alice.put(f"/presence/{bob.user_id}/status", {"presence": "online"})
        assert refused(answer, 403, "M_FORBIDDEN")
        assert refused(await alice.get("/presence/@nobody:example.org/status"), 404, "M_NOT_FOUND")


class TestOpenId:
    async def test_a_token_stands_for_its_user_for_an_hour(self, server: TestServer) -> None:
        alice = await server.user("alice")
        answer = (await alice.post(f"{alice.path}/openid/request_token", {})).json
        assert (answer["token_type"], answer["matrix_server_name"]) == ("Bearer", "example.org")
        assert server.users.openid_user(answer["access_token"]) == alice.user_id
        alice.token = answer["access_token"]
        assert refused(await alice.get("/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        server.clock.step(answer["expires_in"] * 1000 + 1)
        assert server.users.openid_user(answer["access_token"]) is None

    async def test_not_for_another_user(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        assert refused(await alice.post(f"{bob.path}/openid/request_token", {}), 403, "M_FORBIDDEN")


async def test_what_there_is_none_of_is_said_harmlessly(server: TestServer) -> None:
    alice = await server.user("alice")
    assert (await alice.get("/voip/turnServer")).json == {}
    assert (await alice.get("/thirdparty/protocols")).json == {}
    assert (await alice.get("/thirdparty/location/irc")).json == []
    assert (await alice.get("/thirdparty/user")).json == []
    assert refused(await alice.get("/thirdparty/protocol/irc"), 404, "M_NOT_FOUND")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.paths[0]}")
def test_every_route_that_is_for_users_asks_for_a_token(route: Route) -> None:
    open_to_all = ("/login", "/register", "/refresh", "/logout", "/requestToken", "/profile/")
    assert route.auth is Auth.CLIENT or any(part in route.paths[0] for part in open_to_all)


async def test_no_wrong_type_anywhere_is_our_fault(server: TestServer) -> None:
    """Each route with a body, each body wrong in some way: a 4xx with an errcode, or a harmless 200."""
    alice = await server.user("alice")
    await alice.post("/room_keys/version", {"algorithm": "x", "auth_data": {}})
    fields = [
        "auth",
        "username",
        "password",
        "type",
        "identifier",
        "device_keys",
        "one_time_keys",
        "messages",
        "fallback_keys",
        "master_key",
        "rooms",
        "sessions",
        "actions",
        "conditions",
        "enabled",
        "presence",
        "devices",
        "display_name",
        "search_term",
        "new_password",
        "refresh_token",
        "displayname",
        "locked",
        "@alice:example.org",
        "room",
        "algorithm",
        "auth_data",
        "order",
        "tags",
    ]
    values: list[Any] = [None, True, 0, -1, 1.5, 2**70, "", "x" * 100, [], [[]], {}, {"x": {"y": []}}, "\0"]
    bodies: list[Any] = [[], 7, "x", None, *(dict.fromkeys(fields, value) for value in values)]
    for route in ROUTES:
        if route.method == "GET" or route.handler.__name__ in ("logout", "logout_all"):
            continue
        path = route.paths[0]
        for name, value in [("user_id", alice.user_id), ("device_id", "X"), ("room_id", "!r:example.org"),
                            ("field", "displayname"), ("kind", "override"), ("version", "1")]:  # fmt: skip
            path = path.replace(f"{{{name}}}", value)
        path = path.replace("{", "").replace("}", "") + "?version=1"
        for body in bodies:
            answer = await alice.ask(route.method, path, body)
            assert answer.status < 500, (route.method, path, body, answer)
            if answer.status >= 400 and answer.status != 401:
                assert answer.json["errcode"].startswith("M_"), (path, body, answer)
    assert (await server.login("alice", PASSWORD)).user_id == alice.user_id
