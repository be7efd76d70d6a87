# SPDX-License-Identifier: Apache-2.0
"""What an event may cost, counted in statements: time is measured by scripts/bench, and can't be asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.graph import MAX_ABSENT, Graph
from minihs.store.reader import ReadConnection
from minihs.store.writer import Tx
from tests.rooms.hostile_paths import scenes
from tests.rooms.test_branches import Branch, forks

PDUS = 40


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many were run, by who runs them: "read" on the loop, "write" in transactions."""
    count = {"read": 0, "write": 0}
    for name, cls in (("read", ReadConnection), ("write", Tx)):
        real = cls.execute

        def counting(self: Any, *args: Any, _real: Any = real, _name: str = name) -> Any:
            count[_name] += 1
            return _real(self, *args)

        monkeypatch.setattr(cls, "execute", counting)
    return count


async def test_a_message_from_another_server_costs_few_statements(
    tmp_path: Path, statements: dict[str, int]
) -> None:
    async with scenes(tmp_path, "11") as scene:
        await scene.world.send("e.test", "v.test", [scene.good()[0]])
        batch = Branch(scene, scene.forger.tips[0])
        for number in range(PDUS):
            batch.add("m.room.message", {"body": f"number {number}"})
        statements.update(read=0, write=0)
        await batch.send()
        assert scene.forger.tips == [batch.tip]
        assert statements["read"] / PDUS <= 3
        assert statements["write"] / PDUS <= 11


async def test_a_state_event_on_one_of_two_branches_costs_no_more_with_many_than_with_few(
    tmp_path: Path, statements: dict[str, int]
) -> None:
    async with forks(tmp_path, "11") as (scene, root):
        left = Branch(scene, root)
        left.add_state(PDUS, "left")
        await left.send()
        cost: dict[int, dict[str, int]] = {}
        tip = root
        for count in (PDUS // 2, PDUS):
            right = Branch(scene, tip)
            right.add_state(count, f"right {count}")
            statements.update(read=0, write=0)
            await right.send()
            cost[count] = {kind: number // count for kind, number in statements.items()}
            tip = right.tip
        assert cost[PDUS]["read"] <= cost[PDUS // 2]["read"] + 1
        assert cost[PDUS]["write"] <= cost[PDUS // 2]["write"] + 1


async def test_what_is_not_here_is_asked_for_once_until_the_next_commit(
    tmp_path: Path, statements: dict[str, int]
) -> None:
    async with scenes(tmp_path, "11") as scene:
        graph, db = scene.victim.parts.graph, scene.victim.parts.db
        pdu, event_id = scene.good()
        for _ in range(3):
            assert graph.stored(event_id) is None
            assert graph.stored_many([event_id]) == {}
        await db.write(lambda tx: None)
        statements["read"] = 0
        for _ in range(3):
            assert graph.stored(event_id) is None
            assert graph.stored_many([event_id]) == {}
        assert statements["read"] == 1
        await scene.world.send("e.test", "v.test", [pdu])
        assert graph.stored(event_id) is not None


async def test_a_bounded_number_of_events_is_remembered_as_not_here(
    tmp_path: Path, statements: dict[str, int]
) -> None:
    async with scenes(tmp_path, "11") as scene:
        graph = Graph(scene.victim.parts.db.read)
        for number in range(MAX_ABSENT):
            assert not graph.has(f"${number}")
        statements["read"] = 0
        assert not graph.has("$0")
        assert statements["read"] == 0
        assert not graph.has("$one more")  # which makes it forget all others
        assert not graph.has("$0")
        assert statements["read"] == 2


async def test_a_batch_looks_ahead_with_one_look_at_what_is_new(
    tmp_path: Path, statements: dict[str, int]
) -> None:
    async with scenes(tmp_path, "11") as scene:
        event = scene.good()[0]
        await scene.world.send("e.test", "v.test", [event])
        held = Event.from_wire(event, ROOM_VERSIONS["11"]).event_id
        parts = scene.world.servers["v.test"].parts
        new = [f"$new{number}" for number in range(PDUS)]
        batch = parts.batch(parts.take_head(scene.room_id))
        parts.graph.forget(held)
        statements.update(read=0)
        batch.look_ahead([*new, held])
        assert statements["read"] == 2  # which of them have numbers, and the one that has
        assert parts.graph.has(held)
        assert not any(map(parts.graph.has, new))
        assert statements["read"] == 2
        batch.discard()
