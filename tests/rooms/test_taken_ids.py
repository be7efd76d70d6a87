# SPDX-License-Identifier: Apache-2.0
"""In room versions 1 and 2 a server chooses the ids of its events. Whatever else it sends under an id that we
know: what was judged is what is kept, and what is kept was judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.rooms.admission import Source
from minihs.rooms.placement import add_outlier
from minihs.store.events import Outcome, StoredEvent
from tests.rooms.forge import Forger, inbox_of, rows_of
from tests.rooms.hostile_paths import EVE, PATHS, Scene, scenes
from tests.rooms.world import state_of, timeline_of

ID = "$taken:e.test"
VERSIONS = ["1", "2"]


def draft(scene: Scene, body: str, *, room_id: str | None = None, **options: Any) -> Any:
    """A message with that id."""
    forger = Forger(scene.world, "e.test", "v.test", room_id or scene.room_id)
    return forger.draft("m.room.message", EVE, {"body": body}, event_id=ID, **options)


async def keep_outlier(scene: Scene, pdu: Any, room_id: str) -> None:
    parts = scene.victim.parts
    head = parts.head(room_id)
    batch = parts.batch(head)
    event = Forger(scene.world, "e.test", "v.test", room_id).event(pdu)
    verdict = add_outlier(batch, event, 1, head.create_event(parts.graph), Source.AUTH_CHAIN)
    assert verdict.outcome is Outcome.ACCEPTED
    await batch.commit()


def held(scene: Scene) -> StoredEvent:
    found = scene.victim.parts.graph.stored(ID)
    assert found is not None
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("of_another_room", [False, True])
async def test_an_event_that_we_hold_without_its_place_is_not_given_that_of_another(
    tmp_path: Path, version: str, of_another_room: bool
) -> None:
    async with scenes(tmp_path, version) as scene:
        v, seal = scene.victim, scene.forger.seal
        other = scene.other_room if of_another_room else scene.room_id
        before = set(v.parts.head(other).tips)
        await keep_outlier(scene, seal(draft(scene, "kept", room_id=other)), other)
        scene.answer_honestly({})
        child, child_id = scene.good(prev=[ID])
        good, good_id = scene.good()
        await scene.world.send("e.test", "v.test", [seal(draft(scene, "judged")), child, good])
        await scene.world.rest()
        assert held(scene).outlier
        assert held(scene).event.content == {"body": "kept"}
        assert ID not in timeline_of(v, scene.room_id) + timeline_of(v, other)
        # What follows an event of this room without its place follows a gap.
        taken = {good_id} if of_another_room else {good_id, child_id}
        assert set(v.parts.head(scene.room_id).tips) == taken
        if of_another_room:
            assert set(v.parts.head(other).tips) == before
        assert inbox_of(v) == {}


@pytest.mark.parametrize("version", [*VERSIONS, "11"])
async def test_a_redacted_form_is_completed_by_its_own_whole_only(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        whole = scene.forger.seal(draft(scene, "whole") if version in VERSIONS else scene.message())
        event_id = scene.forger.id_of(whole)
        graph = scene.victim.parts.graph
        await scene.world.send("e.test", "v.test", [{**whole, "content": {"body": "not what was hashed"}}])
        await scene.world.rest()
        levels = scene.forger.draft("m.room.power_levels", EVE, {"users": {EVE: 100}}, "", event_id=ID)
        if version in VERSIONS:
            for other in (draft(scene, "another"), levels):
                await scene.world.send("e.test", "v.test", [scene.forger.seal(other)])
                await scene.world.rest()
        found = graph.event(event_id)
        assert found is not None
        assert (found.type, found.content) == ("m.room.message", {})
        await scene.world.send("e.test", "v.test", [whole])
        await scene.world.rest()
        found = graph.event(event_id)
        assert found is not None
        assert found.content == whole["content"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_nobody_joins_by_the_id_of_something_else(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        v = scene.victim
        await scene.world.send("e.test", "v.test", [scene.forger.seal(draft(scene, "said"))])
        await scene.world.rest()
        assert ID in timeline_of(v, scene.room_id)
        user_id = scene.somebody()
        join = scene.forger.draft("m.room.member", user_id, {"membership": "join"}, user_id, event_id=ID)
        with pytest.raises(MatrixError) as refusal:
            await v.resident.send_join("e.test", scene.room_id, ID, scene.forger.seal(join))
        assert refusal.value.errcode == "M_FORBIDDEN"
        assert held(scene).event.content == {"body": "said"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_history_holds_no_second_event_of_an_id(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        kept = scene.forger.seal(draft(scene, "kept", room_id=scene.other_room))
        await keep_outlier(scene, kept, scene.other_room)
        judged = scene.forger.seal(draft(scene, "judged"))
        result = await PATHS[Source.BACKFILL, "backfill"].send(scene, judged)
        assert set(result.good) <= rows_of(scene.victim).keys()
        assert held(scene).outlier
        assert held(scene).event.content == {"body": "kept"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("of_another_room", [False, True])
async def test_the_state_of_a_join_holds_nothing_by_the_id_of_something_else(
    tmp_path: Path, version: str, of_another_room: bool
) -> None:
    async with scenes(tmp_path, version) as scene:
        v = scene.victim
        room_id = scene.other_room if of_another_room else scene.room_id
        said = scene.forger.seal(draft(scene, "said", room_id=room_id))
        await scene.world.send("e.test", "v.test", [said])
        await scene.world.rest()
        assert ID in timeline_of(v, room_id)
        user_id = scene.somebody()
        join = scene.forger.draft("m.room.member", user_id, {"membership": "join"}, user_id, event_id=ID)
        path = PATHS[Source.SEND_JOIN_ANSWER, "send_join answer"]
        result = await path.send(scene, scene.forger.seal(join))
        assert result.error is None
        assert set(result.good) <= set(state_of(v, scene.room_id).values())
        assert ("m.room.member", user_id) not in state_of(v, scene.room_id)
        assert held(scene).event.content == {"body": "said"}
