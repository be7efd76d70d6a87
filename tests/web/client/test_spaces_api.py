# SPDX-License-Identifier: Apache-2.0
"""Spaces and room summaries over HTTP (client-server-api, "Spaces", "Room Previews")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from .rooms_kit import Person, TestHome, open_home

V1 = "/_matrix/client/v1"
UNSTABLE = "/_matrix/client/unstable"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[TestHome]:
    async with open_home(tmp_path) as home:
        yield home


async def space(person: Person, *children: str, **request: Any) -> str:
    room = await person.room(creation_content={"type": "m.space"}, **request)
    for number, child in enumerate(children):
        content = {"via": ["example.org"], "order": f"a{number}", "suggested": number == 0}
        await person.put(f"/rooms/{quote(room)}/state/m.space.child/{quote(child, safe='')}", content)
    return room


async def hierarchy(person: Person, room: str, query: str = "", prefix: str = V1) -> Any:
    return await person.get(f"{prefix}/rooms/{quote(room, safe='')}/hierarchy{query}")


def ids_of(answer: Any) -> list[str]:
    return [room["room_id"] for room in answer["rooms"]]


async def test_the_tree_of_a_space(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    leaf = await alice.room(name="Leaf", topic="Green")
    inner = await space(alice, leaf)
    secret = await alice.room(preset="private_chat")
    root = await space(alice, inner, secret)
    answer = await hierarchy(alice, root)
    assert ids_of(answer) == [root, inner, leaf, secret]
    first, last = answer["rooms"][0], answer["rooms"][2]
    assert first["room_type"] == "m.space"
    assert [child["state_key"] for child in first["children_state"]] == [inner, secret]
    assert (last["name"], last["topic"], last["join_rule"]) == ("Leaf", "Green", "public")
    assert last["num_joined_members"] == 1
    # Bob sees what is open to him.
    assert ids_of(await hierarchy(bob, root)) == [root, inner, leaf]
    assert ids_of(await hierarchy(bob, root, prefix=f"{UNSTABLE}/org.matrix.msc2946")) == [root, inner, leaf]
    refused = await bob.ask("GET", f"{V1}/rooms/{quote(secret, safe='')}/hierarchy")
    assert (refused.status, refused.json["errcode"]) == (403, "M_FORBIDDEN")


async def test_a_tree_comes_page_by_page_and_within_its_depth(home: TestHome) -> None:
    alice = await home.person("alice")
    leaves = [await alice.room() for _ in range(3)]
    inner = await space(alice, leaves[0])
    root = await space(alice, inner, *leaves[1:])
    everything = ids_of(await hierarchy(alice, root))
    assert everything == [root, inner, *leaves]
    page = await hierarchy(alice, root, "?limit=2")
    rest = await hierarchy(alice, root, f"?limit=5&from={page['next_batch']}")
    assert ids_of(page) + ids_of(rest) == everything
    assert "next_batch" not in rest
    assert ids_of(await hierarchy(alice, root, "?max_depth=1")) == [root, inner, *leaves[1:]]
    assert ids_of(await hierarchy(alice, root, "?suggested_only=true")) == [root, inner, leaves[0]]
    for query in ("?from=x", "?limit=0", "?max_depth=-1", "?suggested_only=perhaps"):
        answer = await alice.ask("GET", f"{V1}/rooms/{quote(root, safe='')}/hierarchy{query}")
        assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM"), query


async def test_a_circle_of_spaces_ends(home: TestHome) -> None:
    alice = await home.person("alice")
    one = await space(alice)
    two = await space(alice, one)
    path = f"/rooms/{quote(one)}/state/m.space.child/{quote(two, safe='')}"
    await alice.put(path, {"via": ["example.org"]})
    assert ids_of(await hierarchy(alice, one)) == [one, two]


async def test_the_summary_of_a_room(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room(name="Lounge", room_alias_name="lounge")
    alias = quote("#lounge:example.org")
    for path in (
        f"{V1}/room_summary/{quote(room, safe='')}",
        f"{V1}/room_summary/{alias}",
        f"{UNSTABLE}/im.nheko.summary/summary/{alias}",
        f"{UNSTABLE}/im.nheko.summary/rooms/{quote(room, safe='')}/summary",
    ):
        summary = await bob.get(path)
        assert (summary["room_id"], summary["name"]) == (room, "Lounge"), path
        assert "membership" not in summary
    assert (await alice.get(f"{V1}/room_summary/{alias}"))["membership"] == "join"
    anonymous = await home.house.ask("GET", f"{V1}/room_summary/{alias}")
    assert anonymous.json["name"] == "Lounge"


async def test_a_room_that_is_not_ones_own_to_see_has_no_summary(home: TestHome) -> None:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.room(preset="private_chat")
    for target in (room, "!unknown:example.org"):
        answer = await bob.ask("GET", f"{V1}/room_summary/{quote(target, safe='')}")
        assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")
    answer = await bob.ask("GET", f"{V1}/room_summary/nonsense")
    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")
    await alice.post(f"/rooms/{quote(room)}/invite", {"user_id": bob.user_id})
    assert (await bob.get(f"{V1}/room_summary/{quote(room, safe='')}"))["membership"] == "invite"
