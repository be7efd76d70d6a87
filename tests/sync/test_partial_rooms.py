# SPDX-License-Identifier: Apache-2.0
"""What clients see of a room that was joined by part of its state: whole servers, over HTTP, in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from minihs.federation.client import FederationClient
from minihs.matrix.federation_errors import Unreachable
from minihs.rooms import whole
from minihs.testing.api import ApiClient, ApiError
from minihs.testing.clock import run_virtual
from minihs.testing.servers import Cluster, cluster, eventually
from tests.sync.world import bodies, state_of

virtual = pytest.mark.trio(run=run_virtual)

LAZY = json.dumps({"room": {"state": {"lazy_load_members": True}}})
MEMBER = "m.room.member"
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"


@dataclass
class Scene:
    """Alice's room on one.test, with many of her friends; Bob joins it from two.test."""

    world: Cluster
    alice: ApiClient
    friends: list[ApiClient]
    bob: ApiClient
    room: str
    held: list[bool]

    async def complete(self) -> None:
        self.held.clear()
        await eventually(lambda: not self.is_partial, within=600, what="the room is whole")

    @property
    def is_partial(self) -> bool:
        return self.world["two.test"].server.services.rooms.parts.whole.is_partial(self.room)

    @property
    def uri(self) -> str:
        return f"/rooms/{quote(self.room)}"

    def entry(self, answer: Any) -> Any:
        return answer["rooms"]["join"].get(self.room)


@asynccontextmanager
async def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **room: Any) -> AsyncIterator[Scene]:
    held = [True]
    honest = FederationClient.state_at

    @asynccontextmanager
    async def state_at(self: Any, host: str, *args: Any) -> AsyncIterator[Any]:
        if held:
            raise Unreachable(host, "is busy")
        async with honest(self, host, *args) as answer:
            yield answer

    monkeypatch.setattr(FederationClient, "state_at", state_at)
    async with cluster("one.test", folder=tmp_path) as world:
        await world.add(
            "two.test",
            federation={
                "ca_file": world.internet.write_ca_file(tmp_path),
                "notaries": [],
                "partial_joins": True,
            },
        )
        alice = await world["one.test"].user("alice")
        room_id = await alice.create_room(preset="public_chat", **room)
        friends = [await world["one.test"].user(f"friend{n}") for n in range(8)]
        for friend in friends:
            await friend.join(room_id)
        await alice.send(room_id, "before bob came")
        bob = await world["two.test"].user("bob")
        yield Scene(world, alice, friends, bob, room_id, held)
        await world.stop("two.test")


def members(entry: Any) -> set[str]:
    return {key for type, key in state_of(entry["state"]) if type == MEMBER}


@virtual
async def test_who_loads_members_lazily_sees_the_room_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, monkeypatch, name="Den") as scene:
        bob, friend = scene.bob, scene.friends[7]
        first = await bob.sync(filter=LAZY)
        await bob.join(scene.room, "one.test")
        assert scene.is_partial
        answer = await bob.sync(filter=LAZY, since=first["next_batch"])
        entry = scene.entry(answer)
        assert state_of(entry["state"])["m.room.name", ""]["content"] == {"name": "Den"}
        assert bob.user_id in {event.get("state_key") for event in entry["timeline"]["events"]}
        # Whom nobody told us of is shown as who says something cites them.
        await friend.send(scene.room, "hello, Bob")
        answer = await bob.sync(5_000, filter=LAZY, since=answer["next_batch"])
        entry = scene.entry(answer)
        assert bodies(entry["timeline"]["events"]) == ["hello, Bob"]
        assert members(entry) == {friend.user_id}
        said = await bob.send(scene.room, "hello, friend")
        await trio.sleep(2)
        assert said in [event["event_id"] for event in await friend.messages(scene.room, limit=3)]
        assert scene.is_partial
        answer = await bob.sync(filter=LAZY, since=answer["next_batch"])
        await scene.complete()
        answer = await bob.sync(5_000, filter=LAZY, since=answer["next_batch"])
        entry = scene.entry(answer)
        # All members are known, and none of them is news.
        assert entry["summary"]["m.joined_member_count"] == 10
        assert members(entry) == set()
        assert entry["timeline"]["events"] == []
        answer = await bob.sync(filter=LAZY, since=answer["next_batch"])
        assert scene.entry(answer) is None


@virtual
async def test_who_wants_all_members_sees_the_room_when_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, monkeypatch) as scene:
        bob = scene.bob
        first = await bob.sync()
        await bob.join(scene.room, "one.test")
        await scene.alice.send(scene.room, "hello, Bob")
        await trio.sleep(2)
        assert scene.entry(await bob.sync()) is None
        answer = await bob.sync(since=first["next_batch"])
        assert scene.entry(answer) is None
        await scene.complete()
        answer = await bob.sync(5_000, since=answer["next_batch"])
        entry = scene.entry(answer)
        everybody = {scene.alice.user_id, *(friend.user_id for friend in scene.friends)}
        assert everybody <= members(entry)
        assert "hello, Bob" in bodies(entry["timeline"]["events"])
        assert entry["summary"]["m.joined_member_count"] == 10
        assert len(entry["summary"]["m.heroes"]) == 5
        answer = await bob.sync(since=answer["next_batch"])
        assert scene.entry(answer) is None


@virtual
async def test_what_needs_all_members_waits_for_them_and_the_rest_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, monkeypatch, name="Den") as scene:
        bob, uri = scene.bob, scene.uri
        await bob.join(scene.room, "one.test")
        assert await bob.get(f"{uri}/state/m.room.name") == {"name": "Den"}
        assert (await bob.get(f"{uri}/state/{MEMBER}/{quote(bob.user_id)}"))["membership"] == "join"
        waiting = [
            f"{uri}/members",
            f"{uri}/joined_members",
            f"{uri}/state",
            f"{uri}/state/{MEMBER}/{quote(scene.friends[6].user_id)}",
        ]
        answers: dict[str, Any] = {}

        async def ask(path: str) -> None:
            answers[path] = await bob.get(path)

        async with trio.open_nursery() as nursery:
            for path in waiting:
                nursery.start_soon(ask, path)
            await trio.sleep(5)
            assert answers == {}
            await scene.complete()
        assert len(answers[waiting[0]]["chunk"]) == len(answers[waiting[1]]["joined"]) == 10
        assert answers[waiting[3]]["membership"] == "join"


@virtual
async def test_a_request_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, monkeypatch) as scene:
        await scene.bob.join(scene.room, "one.test")
        start = trio.current_time()
        with pytest.raises(ApiError) as refusal:
            await scene.bob.get(f"{scene.uri}/members")
        assert refusal.value.status == 504
        assert whole.MAX_WAIT <= trio.current_time() - start < whole.MAX_WAIT + 5
        with pytest.raises(ApiError) as refusal:
            await scene.alice.get("/rooms/!none/members")  # who may not ask is told at once
        assert refusal.value.status == 403


@virtual
async def test_sliding_sync_tells_of_the_room_at_once_and_of_all_members_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, monkeypatch, name="Den") as scene:
        bob, friend = scene.bob, scene.friends[7]
        await bob.join(scene.room, "one.test")
        await friend.send(scene.room, "hello")
        await trio.sleep(2)

        async def slide(states: list[list[str]], pos: str | None) -> Any:
            body = {
                "lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 5, "required_state": states}},
                "conn_id": json.dumps(states),
            }
            query = {} if pos is None else {"pos": pos}
            answer = await bob.do("POST", SLIDING, body, **query)
            return answer["rooms"].get(scene.room, {}), answer["pos"]

        def shown(entry: Any) -> set[str]:
            return {each["state_key"] for each in entry.get("required_state", ()) if each["type"] == MEMBER}

        lazy, everybody = [["m.room.member", "$LAZY"]], [["m.room.member", "*"]]
        entry, lazy_pos = await slide(lazy, None)
        assert (entry["name"], entry["initial"]) == ("Den", True)
        assert {friend.user_id, bob.user_id} <= shown(entry)
        entry, all_pos = await slide(everybody, None)
        assert entry["initial"] is True
        assert scene.friends[6].user_id not in shown(entry)
        await scene.complete()
        entry, _ = await slide(lazy, lazy_pos)
        assert entry["joined_count"] == 10
        assert shown(entry) == set()
        entry, _ = await slide(everybody, all_pos)
        assert {each.user_id for each in (scene.alice, *scene.friends)} <= shown(entry)


@virtual
async def test_history_waits_and_then_is_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, monkeypatch) as scene:
        bob = scene.bob
        await bob.join(scene.room, "one.test")
        await scene.friends[7].send(scene.room, "after bob came")
        await trio.sleep(2)
        query = {"dir": "b", "limit": 100, "filter": json.dumps({"lazy_load_members": True})}
        page = await bob.get(f"{scene.uri}/messages", **query)
        assert bodies(page["chunk"]) == ["after bob came"]
        assert scene.friends[7].user_id in {event["state_key"] for event in page["state"]}
        assert "end" in page  # there is more
        with pytest.raises(ApiError) as refusal:
            await bob.get(f"{scene.uri}/messages", **query, **{"from": page["end"]})
        assert refusal.value.status == 504
        await scene.complete()
        texts: list[str] = []
        start: str | None = page["end"]
        while start is not None:
            page = await bob.get(f"{scene.uri}/messages", **query, **{"from": start})
            texts += bodies(page["chunk"])
            start = page.get("end")
        assert texts == ["before bob came"]


@virtual
async def test_a_restart_in_between_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, monkeypatch) as scene:
        bob, world = scene.bob, scene.world
        await bob.join(scene.room, "one.test")
        answer = await bob.sync(filter=LAZY)
        assert scene.entry(answer) is not None
        await world.stop("two.test")
        await scene.alice.send(scene.room, "while two.test was down")
        await world.start("two.test")
        assert scene.is_partial
        await scene.complete()
        for _ in range(20):
            answer = await bob.sync(30_000, filter=LAZY, since=answer["next_batch"])
            entry = scene.entry(answer)
            if entry is not None and bodies(entry["timeline"]["events"]):
                break
        assert bodies(entry["timeline"]["events"]) == ["while two.test was down"]


@virtual
async def test_devices_of_members_are_news_once_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encryption = {
        "type": "m.room.encryption",
        "state_key": "",
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    async with scenes(tmp_path, monkeypatch, initial_state=[encryption]) as scene:
        bob = scene.bob
        await bob.join(scene.room, "one.test")
        answer = await bob.sync(filter=LAZY)
        since = answer["next_batch"]
        await scene.complete()
        answer = await bob.sync(filter=LAZY, since=since)
        everybody = {scene.alice.user_id, *(friend.user_id for friend in scene.friends)}
        assert everybody <= set(answer["device_lists"]["changed"])
        changes = await bob.get("/keys/changes", **{"from": since, "to": answer["next_batch"]})
        assert everybody <= set(changes["changed"])


@virtual
async def test_receipts_and_typing_of_members_whom_nobody_told_us_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, monkeypatch) as scene:
        bob, friend = scene.bob, scene.friends[7]
        await bob.join(scene.room, "one.test")
        said = await bob.send(scene.room, "read this")
        answer = await bob.sync(filter=LAZY)
        await trio.sleep(2)
        await friend.post(f"{scene.uri}/receipt/m.read/{quote(said)}")
        await friend.put(f"{scene.uri}/typing/{quote(friend.user_id)}", {"typing": True, "timeout": 20_000})
        seen: set[str] = set()
        for _ in range(10):
            answer = await bob.sync(5_000, filter=LAZY, since=answer["next_batch"])
            entry = scene.entry(answer) or {"ephemeral": {"events": []}}
            seen |= {
                event["type"] for event in entry["ephemeral"]["events"] if friend.user_id in json.dumps(event)
            }
        assert seen == {"m.receipt", "m.typing"}
