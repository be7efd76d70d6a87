# SPDX-License-Identifier: Apache-2.0
"""Every endpoint for clients, asked wrongly: wrong types, missing fields, foreign ids and tokens, deep and
large bodies. The answer is an errcode, never a 5xx, and what is refused leaves nothing behind.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from minihs.matrix.canonical import MAX_WIRE_DEPTH
from minihs.web.route_modules import ROUTE_MODULES
from minihs.web.routing import MIB, Auth, Route
from tests.web.client.kit import PASSWORD, refused
from tests.web.client.rooms_kit import Person, TestHome, open_home
from tests.web.kit import Response

ROUTES: list[Route] = [
    route
    for module in ROUTE_MODULES
    for route in module.routes.all
    if route.api == "client" and "/static/" not in route.paths[0]
]
FOR_USERS = [route for route in ROUTES if route.auth is Auth.CLIENT]

WRONG: list[Any] = [None, True, -1, 2**70, "\0", "x" * 300, [1], {"x": []}]

USER = {"type": "m.id.user", "user": "alice"}
KEY = {"first_message_index": 0, "forwarded_count": 0, "is_verified": True, "session_data": {"x": "y"}}
PUSHER = {
    "kind": "http",
    "app_id": "a",
    "pushkey": "k",
    "app_display_name": "A",
    "device_display_name": "D",
    "lang": "en",
    "data": {"url": "https://push.test/_matrix/push/v1/notify", "format": "event_id_only"},
}
SLIDING = {
    "conn_id": "c",
    "lists": {
        "all": {"ranges": [[0, 9]], "timeline_limit": 3, "required_state": [["*", "*"]], "filters": {}}
    },
    "room_subscriptions": {"{room_id}": {"timeline_limit": 3, "required_state": [["m.room.name", ""]]}},
    "extensions": {"e2ee": {"enabled": True}, "receipts": {"enabled": True, "lists": ["*"], "rooms": ["*"]}},
}
BODIES: dict[str, Any] = {
    "account/password": {"new_password": "new", "logout_devices": False},
    "account/deactivate": {"erase": False},
    "account_data/{type}": {"any": "thing"},
    "tags/{tag}": {"order": 0.5},
    "devices/{device_id}": {"display_name": "Phone"},
    "delete_devices": {"devices": ["OTHER"]},
    "directory/room/{alias}": {"room_id": "{room_id}"},
    "directory/list/room/{room_id}": {"visibility": "private"},
    "publicRooms": {
        "limit": 5,
        "since": "",
        "filter": {"generic_search_term": "x", "room_types": ["m.space"]},
    },
    "user/{user_id}/filter": {
        "event_fields": ["type"],
        "presence": {"limit": 1, "types": ["x"]},
        "room": {
            "timeline": {"limit": 1, "senders": ["@a:b"]},
            "rooms": ["{room_id}"],
            "include_leave": True,
        },
    },
    "keys/upload": {
        "one_time_keys": {"signed_curve25519:A": {"key": "k", "signatures": {}}},
        "fallback_keys": {"signed_curve25519:B": {"key": "f", "fallback": True, "signatures": {}}},
    },
    "keys/query": {"device_keys": {"{user_id}": ["D"]}, "timeout": 1000},
    "keys/claim": {"one_time_keys": {"{user_id}": {"D": "signed_curve25519"}}, "timeout": 1000},
    "keys/device_signing/upload": {
        "master_key": {"user_id": "{user_id}", "usage": ["master"], "keys": {"ed25519:abc": "abc"}}
    },
    "keys/signatures/upload": {"{user_id}": {"D": {"signatures": {"{user_id}": {"ed25519:D": "s"}}}}},
    "login": {"type": "m.login.password", "identifier": USER, "password": "wrong", "device_id": "D"},
    "login/get_token": {"auth": {"type": "m.login.password", "identifier": USER, "password": "wrong"}},
    "refresh": {"refresh_token": "x"},
    "register": {
        "username": "new",
        "password": "p",
        "auth": {"type": "m.login.dummy"},
        "inhibit_login": True,
    },
    "presence/{user_id}/status": {"presence": "online", "status_msg": "x"},
    "profile/{user_id}/{field}": {"displayname": "A"},
    "user_directory/search": {"search_term": "x", "limit": 5},
    "pushrules/global/{kind}/{rule_id}": {
        "actions": ["notify", {"set_tweak": "sound", "value": "default"}],
        "conditions": [{"kind": "event_match", "key": "type", "pattern": "x"}],
    },
    "pushrules/global/{kind}/{rule_id}/enabled": {"enabled": True},
    "pushrules/global/{kind}/{rule_id}/actions": {"actions": ["notify"]},
    "pushers/set": PUSHER,
    "rooms/{room_id}/receipt/{receipt_type}/{event_id}": {"thread_id": "main"},
    "rooms/{room_id}/read_markers": {"m.fully_read": "{event_id}", "m.read": "{event_id}"},
    "rooms/{room_id}/report/{event_id}": {"score": -50, "reason": "x"},
    "rooms/{room_id}/report": {"reason": "x"},
    "users/{user_id}/report": {"reason": "x"},
    "room_keys/version": {"algorithm": "m.x", "auth_data": {"public_key": "k"}},
    "room_keys/version/{version}": {"algorithm": "m.x", "auth_data": {"public_key": "k"}, "version": "1"},
    "room_keys/keys": {"rooms": {"{room_id}": {"sessions": {"s": KEY}}}},
    "rooms/{room_id}/state/{event_type}/{state_key}": {"topic": "x"},
    "createRoom": {
        "visibility": "private",
        "room_alias_name": "x",
        "name": "N",
        "topic": "T",
        "invite": ["@bob:example.org"],
        "room_version": "12",
        "creation_content": {"m.federate": True},
        "initial_state": [{"type": "m.room.topic", "state_key": "", "content": {"topic": "x"}}],
        "preset": "private_chat",
        "is_direct": True,
        "power_level_content_override": {"users": {}, "events": {"m.x": 50}, "ban": 50},
    },
    "rooms/{room_id}/join": {"reason": "x", "third_party_signed": {"sender": "@a:b", "mxid": "@a:b"}},
    "knock/{room_id}": {"reason": "x"},
    "rooms/{room_id}/invite": {"user_id": "@bob:example.org", "reason": "x"},
    "rooms/{room_id}/kick": {"user_id": "@bob:example.org", "reason": "x"},
    "rooms/{room_id}/ban": {"user_id": "@bob:example.org", "reason": "x"},
    "rooms/{room_id}/unban": {"user_id": "@bob:example.org", "reason": "x"},
    "rooms/{room_id}/send/{event_type}/{txn_id}": {
        "msgtype": "m.text",
        "body": "x",
        "m.relates_to": {
            "rel_type": "m.thread",
            "event_id": "{event_id}",
            "m.in_reply_to": {"event_id": "$x"},
        },
        "m.mentions": {"user_ids": ["@a:b"], "room": True},
    },
    "rooms/{room_id}/redact/{event_id}/{txn_id}": {"reason": "x"},
    "search": {
        "search_categories": {
            "room_events": {
                "search_term": "x",
                "keys": ["content.body"],
                "filter": {"rooms": ["{room_id}"], "limit": 3},
                "order_by": "rank",
                "event_context": {"before_limit": 1, "after_limit": 1, "include_profile": True},
                "include_state": True,
                "groupings": {"group_by": [{"key": "room_id"}]},
            }
        }
    },
    "admin/lock/{user_id}": {"locked": False},
    "admin/suspend/{user_id}": {"suspended": False},
    "simplified_msc3575/sync": SLIDING,
    "v4/sync": SLIDING,
    "sendToDevice/{event_type}/{txn_id}": {"messages": {"{user_id}": {"*": {"x": 1}}}},
    "rooms/{room_id}/typing/{user_id}": {"typing": True, "timeout": 1000},
    "rooms/{room_id}/upgrade": {"new_version": "11", "additional_creators": ["@bob:example.org"]},
    "dehydrated_device": {"device_id": "D", "device_data": {"algorithm": "x"}, "device_keys": {}},
    "events": {"next_batch": "1"},
}
QUERIES = [
    "at",
    "dir",
    "event_id",
    "filter",
    "from",
    "full_state",
    "kind",
    "limit",
    "max_depth",
    "membership",
    "not_membership",
    "only",
    "order",
    "recurse",
    "room_id",
    "scope",
    "search_term",
    "set_presence",
    "since",
    "suggested_only",
    "timeout",
    "to",
    "token",
    "ts",
    "url",
    "username",
    "use_state_after",
    "user_id",
    "version",
    "width",
    "height",
    "method",
    "conn_id",
    "pos",
]


class World(NamedTuple):
    home: TestHome
    alice: Person
    names: dict[str, str]

    def path(self, route: Route, **other: str) -> str:
        """With what exists in each place."""
        return fill(route.paths[0], {**self.names, **other})

    def pos(self) -> int:
        return int(self.home.server.services.db.read.execute("SELECT pos FROM stream").fetchone()[0])


def fill(path: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def body_of(route: Route) -> Any:
    """The longest key that the path ends with."""
    found = [key for key in BODIES if route.paths[0].endswith(key)]
    return BODIES[max(found, key=len)] if found and route.method in ("POST", "PUT") else None


def named(value: Any, names: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, each in names.items():
        text = text.replace(f"{{{name}}}", each)
    return json.loads(text)


def mutations(body: Any) -> Iterator[Any]:
    """The body with one value at a time wrong, or gone; and what is no body at all."""
    yield from ([], 7, "x", None, {})
    for way in ways(body):
        *before, last = way
        for wrong in WRONG:
            changed = copy.deepcopy(body)
            inner = changed
            for step in before:
                inner = inner[step]
            inner[last] = wrong
            yield changed
        changed = copy.deepcopy(body)
        inner = changed
        for step in before:
            inner = inner[step]
        del inner[last]
        yield changed


def ways(value: Any, to: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*to, key)
        yield from ways(inner, (*to, key))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_home(tmp_path, registration={"mode": "open", "shared_secret": "s"}) as home:
        alice, bob = await home.person("alice", "D"), await home.person("bob")
        room = await alice.room(preset="private_chat", invite=[bob.user_id])
        event = await alice.say(room, "soup")
        await alice.post("/room_keys/version", BODIES["room_keys/version"])
        names = {
            "user_id": alice.user_id,
            "room_id": room,
            "room_id_or_alias": room,
            "event_id": event,
            "alias": "#a:example.org",
            "device_id": "D",
            "type": "m.x",
            "event_type": "m.room.topic",
            "state_key": "",
            "txn_id": "t",
            "tag": "u.x",
            "field": "displayname",
            "kind": "override",
            "rule_id": ".m.rule.master",
            "receipt_type": "m.read",
            "version": "1",
            "filter_id": "1",
            "protocol": "irc",
            "server": "example.org",
            "media_id": "abc",
            "stage": "m.login.dummy",
        }
        yield World(home, alice, names)


def is_in_order(answer: Response) -> bool:
    """Answered, or refused as it should be."""
    if answer.status >= 500:
        return False
    return answer.status < 400 or answer.status == 401 or answer.json["errcode"].startswith("M_")


ENDING = ("logout", "logout_all", "deactivate", "leave", "forget", "delete_device", "upgrade")


@pytest.mark.parametrize("part", range(4))
async def test_no_wrong_value_in_a_body_is_our_fault_or_leaves_anything(world: World, part: int) -> None:
    with_body = [route for route in ROUTES if body_of(route) is not None]
    assert len(with_body) > 50
    number = 0
    for route in with_body[part::4]:
        if route.handler.__name__ in ("upgrade", "create_room"):
            continue  # see below
        for body in mutations(named(body_of(route), world.names)):
            number += 1
            path = world.path(route, txn_id=f"t{number}") + "?version=1"
            before = world.pos()
            answer = await world.alice.ask(route.method, path, body)
            assert is_in_order(answer), (route.method, path, body, answer)
            if answer.status >= 400:
                assert world.pos() == before, (route.method, path, body, answer)
    assert number > 300


@pytest.mark.parametrize("end", ["createRoom", "upgrade"])
async def test_no_room_is_made_of_wrong_values(world: World, end: str) -> None:
    [route] = [route for route in ROUTES if route.paths[0].endswith(end)]
    for body in mutations(named(body_of(route), world.names)):
        before = world.pos()
        answer = await world.alice.ask(route.method, world.path(route), body)
        assert is_in_order(answer), (body, answer)
        assert answer.status == 200 or world.pos() == before, (body, answer)
        if answer.status == 200 and end == "upgrade":
            break


async def test_no_wrong_value_in_a_query_is_our_fault(world: World) -> None:
    values = ["", "0", "-1", "9" * 30, "x", "\0", "{", "{}", "[]", "true", "@a:b", "!", "s1_2"]
    for route in ROUTES:
        if route.method != "GET" or route.handler.__name__ in ("thumbnail", "legacy_thumbnail"):
            continue
        for value in values:
            query = urlencode({name: value for name in QUERIES if (name, value[:1]) != ("timeout", "9")})
            answer = await world.alice.ask("GET", f"{world.path(route)}?{query}")
            assert is_in_order(answer), (route.paths[0], value, answer)


async def test_ids_of_nothing_are_refused(world: World) -> None:
    for route in ROUTES:
        if "{" not in route.paths[0]:
            continue
        for wrong in [
            "",
            "x",
            "\0",
            "!x",
            "$x",
            "@x:example.org",
            "#x:example.org",
            "x" * 300,
            "ä",
            "%2F",
            "..",
            "*",
        ]:
            path = fill(route.paths[0], dict.fromkeys(world.names, wrong))
            answer = await world.alice.ask(route.method, path, named(body_of(route) or {}, world.names))
            assert answer.status == 502 or is_in_order(answer), (route.method, path, answer)  # of no server


async def test_nothing_is_done_without_a_good_token(world: World) -> None:
    refreshable = {
        "type": "m.login.password",
        "identifier": USER,
        "password": PASSWORD,
        "refresh_token": True,
    }
    login = await world.home.house.ask("POST", "/_matrix/client/v3/login", body=refreshable)
    world.home.server.services.runtime.clock.step(login.json["expires_in_ms"] + 1)  # type: ignore[attr-defined]  # the world's own clock
    tokens = [
        (None, "M_MISSING_TOKEN"),
        ("x", "M_UNKNOWN_TOKEN"),
        (login.json["access_token"], "M_UNKNOWN_TOKEN"),
    ]
    assert len(FOR_USERS) > 100
    for route in FOR_USERS:
        body = named(body_of(route) or {}, world.names)
        for token, errcode in tokens:
            answer = await world.home.house.ask(route.method, world.path(route), body=body, token=token)
            assert refused(answer, 401, errcode), (route.method, route.paths[0], answer)


OPEN_TO_ALL = {
    "profile",
    "profile_field",
    "visibility",
    "report_user",
    "report_room",
    "query",
    "openid_token",
    "knock",
}
"""Handlers that tell or take something of anybody."""


async def test_others_do_not_get_at_ones_room_or_data(world: World) -> None:
    mallory = await world.home.person("mallory")
    asked = 0
    for route in FOR_USERS:
        path = route.paths[0]
        if ("{room_id" not in path and "{user_id}" not in path) or route.handler.__name__ in OPEN_TO_ALL:
            continue
        body = named(body_of(route) or {}, world.names)
        answer = await mallory.ask(route.method, world.path(route) + "?dir=b&ts=1", body)
        asked += 1
        assert answer.status in (403, 404), (route.method, path, answer)
        assert b"soup" not in answer.body
    assert asked > 40


async def test_deep_json_is_refused_everywhere(world: World) -> None:
    levels = MAX_WIRE_DEPTH + 1
    deep = b'{"x":' * levels + b"1" + b"}" * levels
    for route in ROUTES:
        if body_of(route) is not None:
            answer = await world.alice.ask(route.method, world.path(route), deep)
            assert refused(answer, 400, "M_NOT_JSON"), (route.method, route.paths[0], answer)


async def test_ten_megabytes_are_refused_everywhere_before_they_are_sent(world: World) -> None:
    for route in ROUTES:
        if body_of(route) is not None and route.body_cap < 10 * MIB:
            visitor = world.home.house.visit()
            head = (
                f"{route.method} {world.path(route)} HTTP/1.1\r\nHost: example.org\r\n"
                f"Authorization: Bearer {world.alice.token}\r\nContent-Length: {10 * MIB}\r\n\r\n"
            )
            await visitor.send(head.encode() + b"{")
            answer = await visitor.response(route.method)
            await visitor.hang_up()
            assert refused(answer, 413, "M_TOO_LARGE"), (route.method, route.paths[0], answer)
