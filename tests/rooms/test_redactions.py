# SPDX-License-Identifier: Apache-2.0
"""Redactions between servers: in whatever order they come, by whom they count, and what they never touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.store.events import Outcome
from tests.rooms.forge import rows_of
from tests.rooms.hostile_paths import ALICE, EVE, VIC, Scene, scenes
from tests.rooms.world import stored, timeline_of

type JsonObject = dict[str, Any]

VERSIONS = ["1", "2", "3", "6", "10", "11", "12"]


def redaction(scene: Scene, sender: str, target: str, **options: Any) -> tuple[JsonObject, str]:
    content: JsonObject = {"redacts": target} if scene.forger.version.redacts_in_content else {}
    fields = {} if scene.forger.version.redacts_in_content else {"redacts": target}
    pdu = scene.forger.draft("m.room.redaction", sender, content, **fields, **options)
    sealed = scene.forger.seal(pdu, sender.partition(":")[2])
    return sealed, scene.forger.id_of(sealed)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_redaction_may_come_before_its_target(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        target, target_id = scene.good()
        mine, mine_id = redaction(scene, EVE, target_id)
        await scene.world.send("e.test", "v.test", [mine])
        assert rows_of(scene.victim)[mine_id] == Outcome.ACCEPTED
        await scene.world.send("e.test", "v.test", [target])
        found = stored(scene.victim, target_id)
        assert found is not None
        assert found.event.content == {}
        assert found.redacted_by is not None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["redaction", "target"])
async def test_a_redaction_by_who_may_not_has_no_effect(tmp_path: Path, version: str, first: str) -> None:
    async with scenes(tmp_path, version) as scene:
        target = scene.forger.seal(
            scene.forger.draft("m.room.message", ALICE, {"body": "hers"}, prev=scene.forger.tips), "h.test"
        )
        target_id = scene.forger.id_of(target)
        evil, _ = redaction(scene, EVE, target_id)
        await scene.world.send("e.test", "v.test", [evil, target] if first == "redaction" else [target, evil])
        found = stored(scene.victim, target_id)
        assert found is not None
        assert found.event.content == {"body": "hers"}
        assert found.redacted_by is None


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_never_redacted(tmp_path: Path, version: str) -> None:
    """The create event, events of other rooms, and nothing by itself."""
    async with scenes(tmp_path, version) as scene:
        create = scene.forger.state["m.room.create", ""]
        elsewhere = await scene.victim.send(VIC, scene.other_room, "m.room.message", {"body": "there"})
        for target_id in (create, elsewhere):
            before = stored(scene.victim, target_id)
            assert before is not None
            pdu, event_id = redaction(scene, ALICE, target_id)
            await scene.world.send("h.test", "v.test", [pdu])
            assert rows_of(scene.victim)[event_id] == Outcome.ACCEPTED
            found = stored(scene.victim, target_id)
            assert found is not None
            assert found.event.content == before.event.content
        if version in ("1", "2"):
            own, own_id = redaction(scene, ALICE, "$own:h.test", event_id="$own:h.test")
            await scene.world.send("h.test", "v.test", [own])
            assert rows_of(scene.victim)[own_id] == Outcome.ACCEPTED


async def test_history_is_redacted_by_what_we_know_already(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        target, target_id = scene.good()
        mine, mine_id = redaction(scene, EVE, target_id, prev=[target_id])
        scene.answer_honestly({target_id: target})
        await scene.world.send("e.test", "v.test", [mine])
        scene.answers["backfill"] = [target]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
        found = stored(scene.victim, target_id)
        assert found is not None
        assert found.event.content == {}
        assert mine_id in timeline_of(scene.victim, scene.room_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_redaction_may_come_right_before_its_target(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        target, target_id = scene.good()
        mine, _ = redaction(scene, EVE, target_id)
        await scene.world.send("e.test", "v.test", [mine, target])
        found = stored(scene.victim, target_id)
        assert found is not None
        assert found.event.content == {}
        assert found.redacted_by is not None
