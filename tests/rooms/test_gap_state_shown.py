# SPDX-License-Identifier: Apache-2.0
"""A state of which a part is shown redacted by /event, which goes by what the asker may see, and whole by
/state: it is taken whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.event import Event
from minihs.matrix.federation_errors import Unreachable
from tests.rooms.forge import rows_of
from tests.rooms.hostile_paths import ALICE, Scene, scenes

ACL = {"allow": ["*"], "deny": ["bad.test"]}


async def unheard(scene: Scene, type: str, content: dict[str, Any], state_key: str = "") -> Event:
    """Something that h.test said, and v.test did not hear."""
    h = scene.world.servers["h.test"]
    event_id = await h.send(ALICE, scene.room_id, type, content, state_key=state_key)
    await scene.world.deliver_between("h.test", "e.test")
    event = h.parts.graph.event(event_id)
    assert event is not None
    return event


def content_of(scene: Scene, type: str, state_key: str = "") -> Any:
    event_id = scene.forger.state.get((type, state_key))
    event = None if event_id is None else scene.victim.parts.graph.event(event_id)
    return None if event is None else event.content


def tell(scene: Scene, before: list[Event], shown: dict[str, Any]) -> list[str]:
    """What e.test says of the state: that as the victim has it, and `before`. By /event, `shown`. Returns
    at which events the whole state was asked for."""
    state, chain = scene.forger.state_answer()
    ids, chain_ids = scene.forger.state_ids_answer()
    asked: list[str] = []

    def whole(room_id: str, event_id: str) -> Any:
        asked.append(event_id)
        return [*state, *(event.json for event in before)], chain

    scene.answer_honestly(shown)
    scene.answers["get_state_ids"] = ([*ids, *(event.event_id for event in before)], chain_ids)
    scene.answers["get_state"] = whole
    return asked


async def test_the_parent_itself(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        acl = await unheard(scene, "m.room.server_acl", ACL)
        child, child_id = scene.good(prev=[acl.event_id])
        asked = tell(scene, [acl], {acl.event_id: acl.redacted().json})
        ids, chain_ids = scene.forger.state_ids_answer()
        scene.answers["get_state_ids"] = (ids, chain_ids)  # before it
        await scene.world.send("e.test", "v.test", [child])
        assert asked == [child_id]
        assert child_id in rows_of(scene.victim)
        assert content_of(scene, "m.room.server_acl") == ACL


async def test_the_state_before_the_parent(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        acl = await unheard(scene, "m.room.server_acl", ACL)
        name = await unheard(scene, "m.room.name", {"name": "Hall"})
        parent, parent_id = scene.good(prev=[name.event_id])
        child, child_id = scene.good(prev=[parent_id])
        shown = {acl.event_id: acl.redacted().json, name.event_id: name.json, parent_id: parent}
        asked = tell(scene, [acl, name], shown)
        await scene.world.send("e.test", "v.test", [child])
        assert asked == [parent_id]
        assert child_id in rows_of(scene.victim)
        assert content_of(scene, "m.room.server_acl") == ACL
        assert content_of(scene, "m.room.name") == {"name": "Hall"}


@pytest.mark.parametrize("way", ["unreachable", "without it", "no whole one"])
async def test_without_a_whole_one_what_is_left_is_taken(tmp_path: Path, way: str) -> None:
    async with scenes(tmp_path, "12") as scene:
        acl = await unheard(scene, "m.room.server_acl", ACL)
        parent, parent_id = scene.good(prev=[acl.event_id])
        child, child_id = scene.good(prev=[parent_id])
        tell(scene, [acl], {acl.event_id: acl.redacted().json, parent_id: parent})
        state, chain = scene.forger.state_answer()

        def other(*_args: Any) -> Any:
            if way == "unreachable":
                raise Unreachable("e.test", "is not there")
            return ([*state, acl.redacted().json] if way == "no whole one" else state), chain

        scene.answers["get_state"] = other
        await scene.world.send("e.test", "v.test", [child])
        assert child_id in rows_of(scene.victim)
        assert content_of(scene, "m.room.server_acl") == {}


async def test_of_what_is_no_state_or_a_membership_nothing_is_missed(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        member = await unheard(
            scene, "m.room.member", {"membership": "join", "displayname": "Alice"}, state_key=ALICE
        )
        parent, parent_id = scene.good(prev=[member.event_id])
        child, child_id = scene.good(prev=[parent_id])
        said = Event.from_store(parent, member.version, parent_id)
        shown = {member.event_id: member.redacted().json, parent_id: said.redacted().json}
        asked = tell(scene, [member], shown)
        await scene.world.send("e.test", "v.test", [child])
        assert child_id in rows_of(scene.victim)
        assert asked == []
