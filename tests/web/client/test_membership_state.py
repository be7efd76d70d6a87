# SPDX-License-Identifier: Apache-2.0
"""PUT state m.room.member does what the verbs do (client-server-api, "Room membership")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from .rooms_kit import Person, TestHome, open_home


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[TestHome]:
    async with open_home(tmp_path) as home:
        yield home


async def put(person: Person, room: str, user: str, membership: str) -> str:
    path = f"/rooms/{quote(room, safe='')}/state/m.room.member/{quote(user)}"
    event_id: str = (await person.put(path, {"membership": membership}))["event_id"]
    return event_id


async def test_memberships_set_by_hand_are_the_same(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room(preset="private_chat")
    await put(alice, room, bob.user_id, "invite")
    assert room in (await bob.sync())["rooms"]["invite"]
    joined = await put(bob, room, bob.user_id, "join")
    path = f"/rooms/{quote(room, safe='')}"
    assert (await bob.get(f"{path}/event/{quote(joined)}"))["content"]["membership"] == "join"
    await put(alice, room, bob.user_id, "leave")
    assert (await bob.get("/joined_rooms"))["joined_rooms"] == []
    await put(alice, room, bob.user_id, "ban")
    answer = await bob.ask("POST", f"{path}/join")
    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")
    await put(alice, room, bob.user_id, "leave")
    await put(alice, room, bob.user_id, "invite")
    await put(bob, room, bob.user_id, "leave")
    assert (await bob.sync())["rooms"]["invite"] == {}


async def test_what_is_no_membership_is_refused(home: TestHome) -> None:
    alice = await home.person("alice")
    room = await alice.room()
    path = f"/rooms/{quote(room, safe='')}/state/m.room.member/"
    for user, content, errcode in (
        ("nobody", {"membership": "invite"}, "M_INVALID_PARAM"),
        ("@bob:example.org", {}, "M_BAD_JSON"),
        ("@bob:example.org", {"membership": 1}, "M_BAD_JSON"),
    ):
        answer = await alice.ask("PUT", path + quote(user), content)
        assert (answer.status, answer.json["errcode"]) == (400, errcode)
