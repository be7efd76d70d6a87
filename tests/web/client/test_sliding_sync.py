# SPDX-License-Identifier: Apache-2.0
"""Sliding sync over HTTP: see tests/sync/sliding for what it tells."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from trio.testing import MockClock

from .rooms_kit import Json, Person, TestHome, open_home

UNSTABLE = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
STABLE = "/_matrix/client/v4/sync"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[TestHome]:
    async with open_home(tmp_path) as home:
        yield home


def window(limit: int = 10) -> Json:
    return {"all": {"ranges": [[0, 19]], "timeline_limit": limit, "required_state": [["m.room.create", ""]]}}


async def slide(person: Person, pos: str = "", wait_ms: int = 0, **body: Any) -> Json:
    query = f"?timeout={wait_ms}" + (f"&pos={quote(pos, safe='')}" if pos else "")
    return await person.post(UNSTABLE + query, {"lists": window(), **body})


def said(room: Json) -> list[str]:
    return [event["content"]["body"] for event in room["timeline"] if event["type"] == "m.room.message"]


async def test_it_is_announced(home: TestHome) -> None:
    answer = await home.house.ask("GET", "/_matrix/client/versions")
    assert answer.json["unstable_features"]["org.matrix.simplified_msc3575"] is True


async def test_a_client_is_told_of_its_rooms_and_then_of_what_is_new(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room(name="Den")
    await bob.post(f"/rooms/{quote(room)}/join")
    first = await slide(bob, conn_id="main")
    assert first["lists"] == {"all": {"count": 1}}
    assert first["rooms"][room]["name"] == "Den"
    assert first["rooms"][room]["joined_count"] == 2
    assert [event["type"] for event in first["rooms"][room]["required_state"]] == ["m.room.create"]
    await alice.say(room, "hello")
    second = await slide(bob, first["pos"], conn_id="main")
    assert said(second["rooms"][room]) == ["hello"]
    assert (await slide(bob, second["pos"], conn_id="main"))["rooms"] == {}


async def test_a_waiting_client_is_answered_when_something_is_said(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    pos = (await slide(alice))["pos"]
    answers: list[Json] = []

    async def wait() -> None:
        answers.append(await slide(alice, pos, 30_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        await alice.say(room, "hello")
    assert said(answers[0]["rooms"][room]) == ["hello"]


async def test_a_client_that_hangs_up_is_not_waited_for(home: TestHome, autojump_clock: MockClock) -> None:
    alice = await home.person("alice")
    await alice.room()
    pos = (await slide(alice))["pos"]
    notifier = home.server.services.sync.notifier
    with trio.move_on_after(1):
        await slide(alice, pos, 30_000)
    await trio.testing.wait_all_tasks_blocked()
    assert len(notifier) == 0
    assert (await slide(alice, pos))["rooms"] == {}


async def test_its_tokens_are_good_for_history(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    for number in range(3):
        await alice.say(room, str(number))
    answer = await slide(alice, lists=window(limit=1))
    told = answer["rooms"][room]
    page = await alice.get(f"/rooms/{quote(room)}/messages?dir=b&limit=2&from={quote(told['prev_batch'])}")
    assert [event["content"]["body"] for event in page["chunk"]] == ["1", "0"]
    page = await alice.get(f"/rooms/{quote(room)}/messages?dir=b&limit=1&from={quote(answer['pos'])}")
    assert [event["content"]["body"] for event in page["chunk"]] == ["2"]


async def test_errors(home: TestHome) -> None:
    alice = await home.person("alice")

    async def refusal(target: str, body: Any) -> tuple[int, str]:
        answer = await alice.ask("POST", target, body)
        return answer.status, answer.json["errcode"]

    assert await refusal(f"{UNSTABLE}?pos=x", {}) == (400, "M_UNKNOWN_POS")
    assert await refusal(f"{UNSTABLE}?timeout=x", {}) == (400, "M_INVALID_PARAM")
    assert await refusal(f"{UNSTABLE}?set_presence=busy", {}) == (400, "M_INVALID_PARAM")
    assert await refusal(UNSTABLE, []) == (400, "M_BAD_JSON")
    assert await refusal(UNSTABLE, b"{") == (400, "M_NOT_JSON")
    assert await refusal(UNSTABLE, {"lists": []}) == (400, "M_BAD_JSON")
    for body in ({"pos": 1}, {"timeout": "1"}, {"set_presence": 1}):
        assert await refusal(STABLE, body) == (400, "M_BAD_JSON"), body
    for body in ({"timeout": -1}, {"set_presence": "busy"}):
        assert await refusal(STABLE, body) == (400, "M_INVALID_PARAM"), body
    assert await refusal(STABLE, {"pos": "x"}) == (400, "M_UNKNOWN_POS")
    alice.token = "nobody's"
    assert await refusal(UNSTABLE, {}) == (401, "M_UNKNOWN_TOKEN")


async def test_the_path_of_the_msc_has_everything_in_the_body(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    wanted = {"timeline_limit": 1, "range": [0, 9], "required_state": {"include": [{}]}}
    body = {"lists": {"all": wanted}, "set_presence": "offline", "conn_id": "main"}
    first = await alice.post(STABLE, body)
    assert first["rooms"][room]["membership"] == "join"
    assert first["rooms"][room]["lists"] == ["all"]
    await alice.say(room, "hello")
    second = await alice.post(STABLE, {**body, "pos": first["pos"], "timeout": 30_000})
    assert said(second["rooms"][room]) == ["hello"]


async def test_members_at_a_position_and_keys_changed_since(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    pos = (await slide(alice))["pos"]
    members = await alice.get(f"/rooms/{quote(room)}/members?at={quote(pos)}")
    assert [event["state_key"] for event in members["chunk"]] == [alice.user_id]


async def test_a_position_survives_a_restart(tmp_path: Path) -> None:
    async with open_home(tmp_path) as home:
        alice = await home.person("alice", "PHONE")
        room = await alice.room(name="Den")
        first = await slide(alice)
        second = await slide(alice, first["pos"])
        await alice.say(room, "hello")
    async with open_home(tmp_path) as home:
        alice.house = home.house
        third = await slide(alice, second["pos"])
    assert said(third["rooms"][room]) == ["hello"]
    assert "initial" not in third["rooms"][room]
    assert "name" not in third["rooms"][room]
