# SPDX-License-Identifier: Apache-2.0
"""A room whose history has two branches: how often its current state is resolved, and that nobody is judged
by anything else than the resolved state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from minihs.rooms import graph
from minihs.store.events import Outcome
from tests.rooms import invariants
from tests.rooms.hostile_paths import ALICE, EVE, VIC, Scene, scenes

type JsonObject = dict[str, Any]

MALLORY = "@mallory:e.test"
VERSIONS = ["1", "6", "11", "12"]


@pytest.fixture
def resolutions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of conflicting keys with each resolution that is really done."""
    done: list[int] = []
    real = graph.resolve

    def counting(version: Any, state_sets: Sequence[Any], *args: Any, **options: Any) -> Any:
        done.append(max(map(len, state_sets)))
        return real(version, state_sets, *args, **options)

    monkeypatch.setattr(graph, "resolve", counting)
    return done


@asynccontextmanager
async def forks(tmp_path: Path, version: str) -> AsyncIterator[tuple[Scene, str]]:
    """Eve may set state; and where the branches begin."""
    async with scenes(tmp_path, version) as scene:
        h = scene.world.servers["h.test"]
        levels = {"users": {EVE: 50} if version == "12" else {ALICE: 100, EVE: 50}}
        await h.send(ALICE, scene.room_id, "m.room.power_levels", levels, state_key="")
        await scene.world.deliver()
        (root,) = scene.forger.tips
        yield scene, root


class Branch:
    """Events of Eve's server, each built on the one before."""

    def __init__(self, scene: Scene, root: str) -> None:
        self.scene, self.tip, self.pdus, self.ids = scene, root, list[JsonObject](), list[str]()

    def add(self, type: str, content: JsonObject, state_key: str | None = None, sender: str = EVE) -> str:
        forger = self.scene.forger
        pdu = forger.seal(forger.draft(type, sender, content, state_key, prev=[self.tip]))
        self.tip = forger.id_of(pdu)
        self.pdus.append(pdu)
        self.ids.append(self.tip)
        return self.tip

    def add_state(self, count: int, said: str) -> None:
        for number in range(count):
            self.add("org.example.state", {"said": said}, f"key {number}")

    async def send(self) -> None:
        await self.scene.world.send("e.test", "v.test", self.pdus)

    def outcome(self, event_id: str) -> Outcome | None:
        return self.scene.victim.parts.graph.outcome(event_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_state_on_two_branches_is_resolved_once_for_a_batch(
    tmp_path: Path, version: str, resolutions: list[int]
) -> None:
    async with forks(tmp_path, version) as (scene, root):
        left, right = Branch(scene, root), Branch(scene, root)
        left.add_state(20, "left")
        await left.send()
        assert resolutions == []

        right.add_state(20, "right")
        await right.send()
        assert resolutions == [20]

        assert all(right.outcome(event_id) is Outcome.ACCEPTED for event_id in right.ids)
        assert set(scene.forger.tips) == {left.tip, right.tip}
        invariants.check(scene.victim, scene.room_id)
        invariants.check_against_oracle(scene.world, scene.room_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_is_banned_on_one_branch_is_not_heard_on_the_other(
    tmp_path: Path, version: str, resolutions: list[int]
) -> None:
    async with forks(tmp_path, version) as (scene, root):
        start = Branch(scene, root)
        start.add("m.room.member", {"membership": "join"}, MALLORY, sender=MALLORY)
        await start.send()
        left, right = Branch(scene, start.tip), Branch(scene, start.tip)
        before = right.add("m.room.message", {"body": "nobody has banned me"}, sender=MALLORY)
        left.add("m.room.member", {"membership": "ban"}, MALLORY)
        left.add_state(5, "left")
        late = Branch(scene, before)
        late.add_state(5, "right")
        heard = late.add("m.room.message", {"body": "banned"}, sender=MALLORY)
        await right.send()
        await left.send()
        resolutions.clear()

        await late.send()
        assert right.outcome(before) is Outcome.ACCEPTED
        assert late.outcome(heard) is Outcome.SOFT_FAILED
        assert len(resolutions) <= 2
        invariants.check(scene.victim, scene.room_id)
        invariants.check_against_oracle(scene.world, scene.room_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_joins_on_one_of_two_branches_may_talk_there_at_once(tmp_path: Path, version: str) -> None:
    async with forks(tmp_path, version) as (scene, root):
        left, right = Branch(scene, root), Branch(scene, root)
        left.add_state(2, "left")
        await left.send()
        join = right.add("m.room.member", {"membership": "join"}, MALLORY, sender=MALLORY)
        forger = scene.forger
        auth = [*forger.auth_events("m.room.message", MALLORY, None, {}), join]
        pdu = forger.seal(forger.draft("m.room.message", MALLORY, {"body": "hi"}, prev=[join], auth=auth))
        right.pdus.append(pdu)
        await right.send()
        assert right.outcome(forger.id_of(pdu)) is Outcome.ACCEPTED
        invariants.check(scene.victim, scene.room_id)


async def test_a_user_of_ours_is_out_as_of_the_kick_and_not_as_of_the_end_of_the_batch(
    tmp_path: Path,
) -> None:
    async with forks(tmp_path, "11") as (scene, root):
        left, right = Branch(scene, root), Branch(scene, root)
        left.add_state(3, "left")
        await left.send()
        kick = right.add("m.room.member", {"membership": "leave"}, VIC)
        right.add_state(3, "right")
        await right.send()

        def pos_of(event_id: str) -> int:
            stored = scene.victim.parts.graph.stored(event_id)
            assert stored is not None
            assert stored.arrival is not None
            return stored.arrival

        (left_at,) = scene.victim.parts.db.read.execute(
            "SELECT l.pos FROM membership_log l JOIN event_ids i USING (event_nid) WHERE i.event_id = ?",
            (kick,),
        ).fetchone()
        assert left_at == pos_of(kick)
        assert all(pos_of(event_id) > left_at for event_id in right.ids[1:])
