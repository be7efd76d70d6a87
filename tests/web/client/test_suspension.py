# SPDX-License-Identifier: Apache-2.0
"""What a suspended user may still do, and what not (client-server-api, "Account suspension")."""

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


async def suspended(home: TestHome, person: Person) -> None:
    await home.server.services.users.create_account("admin", "a long password", admin=True)
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "admin"}}
    answer = await home.house.ask(
        "POST", "/_matrix/client/v3/login", body={**login, "password": "a long password"}
    )
    admin = Person(home.house, answer.json)
    path = f"/_matrix/client/v1/admin/suspend/{quote(person.user_id)}"
    assert await admin.put(path, {"suspended": True}) == {"suspended": True}


async def test_a_suspended_user_reads_and_leaves_but_does_not_take_part(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room, other = await alice.room(), await alice.room()
    path = f"/rooms/{quote(room, safe='')}"
    await bob.post(path + "/join")
    theirs = await alice.say(room, "alice's")
    own = await bob.say(room, "bob's")
    await suspended(home, bob)
    for method, target, body in (
        ("POST", "/createRoom", {}),
        ("POST", f"/join/{quote(other, safe='')}", {}),
        ("POST", f"/knock/{quote(other, safe='')}", {}),
        ("POST", path + "/invite", {"user_id": "@carol:example.org"}),
        ("PUT", path + "/send/m.room.message/t1", {"body": "no"}),
        ("PUT", path + "/state/m.room.topic", {"topic": "no"}),
        ("PUT", path + f"/redact/{quote(theirs, safe='')}/t2", {}),
        ("POST", path + "/upgrade", {"new_version": "12"}),
        ("PUT", f"/profile/{quote(bob.user_id)}/displayname", {"displayname": "no"}),
    ):
        answer = await bob.ask(method, target, body)
        assert (answer.status, answer.json["errcode"]) == (403, "M_USER_SUSPENDED"), target
    assert room in (await bob.sync())["rooms"]["join"]
    assert (await bob.get(path + "/messages?dir=b"))["chunk"]
    await bob.put(path + f"/redact/{quote(own, safe='')}/t3")
    await bob.post(path + "/leave")
