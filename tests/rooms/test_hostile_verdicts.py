# SPDX-License-Identifier: Apache-2.0
"""Which auth checks an event must pass depends on how it came: every row of admission.CHECKS is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.rooms.admission import Source
from minihs.store.events import Outcome
from tests.rooms.forge import rows_of
from tests.rooms.hostile_paths import ALICE, EVE, PATHS, Path_, Result, Scene, scenes

type JsonObject = dict[str, Any]

WAYS = [
    (source, way, check)
    for source, way in PATHS
    for check in ("auth_events", "before", "current")
    if source is not Source.INVITE and way not in ("send_leave", "send_knock")
]


async def _take_back(scene: Scene) -> tuple[list[str], dict[str, str]]:
    """Eve may set the topic and anybody may join, and then neither. The extremities and rules of before."""
    h = scene.world.servers["h.test"]
    levels = h.parts.graph.event(scene.forger.state["m.room.power_levels", ""])
    assert levels is not None
    mighty = {**levels.content, "users": {**levels.content.get("users", {}), EVE: 50}}
    await h.send(ALICE, scene.room_id, "m.room.power_levels", mighty, state_key="")
    await scene.world.deliver()
    tips = scene.forger.tips
    old = {key[0]: event_id for key, event_id in scene.forger.state.items() if key[1] == ""}
    await h.send(ALICE, scene.room_id, "m.room.power_levels", levels.content, state_key="")
    await h.send(ALICE, scene.room_id, "m.room.join_rules", {"join_rule": "invite"}, state_key="")
    await scene.world.deliver()
    return tips, old


def _draft(scene: Scene, way: str, old: dict[str, str], prev: list[str]) -> JsonObject:
    """Allowed by the rules of before, which it cites; built on `prev`."""
    if way == "send_join":
        user_id = scene.somebody()
        make = scene.forger.draft("m.room.member", user_id, {"membership": "join"}, user_id, prev=prev)
        auth = [old["m.room.power_levels"], old["m.room.join_rules"]]
    else:
        make = scene.forger.draft("m.room.topic", EVE, {"topic": "mine"}, "", prev=prev)
        auth = [old["m.room.power_levels"], scene.forger.state["m.room.member", EVE]]
    if scene.forger.version.create_event_in_auth_events:
        auth.append(old["m.room.create"])
    return make | {"auth_events": scene.forger.references(auth)}


@pytest.mark.parametrize(("source", "way", "check"), WAYS)
@pytest.mark.parametrize("version", ["10", "12"])
async def test_each_path_makes_the_auth_checks_of_its_row_and_no_others(
    tmp_path: Path, source: Source, way: str, check: str, version: str
) -> None:
    failed = {
        "auth_events": Outcome.REJECTED,
        "before": Outcome.REJECTED,
        "current": Outcome.SOFT_FAILED,
    }[check]
    expected = failed if check in source.checks else Outcome.ACCEPTED
    async with scenes(tmp_path, version) as scene:
        tips, old = await _take_back(scene)
        pdu = _draft(scene, way, old, tips if check == "current" else scene.forger.tips)
        if check == "auth_events":
            pdu["auth_events"] = [auth for auth in pdu["auth_events"] if auth == old["m.room.create"]]
        path: Path_ = PATHS[source, way]
        result: Result = await path.send(scene, scene.forger.seal(pdu))
        stored = rows_of(scene.victim)
        assert stored.get(result.event_id) == expected, result.error
        for good in result.good:
            assert stored.get(good) == Outcome.ACCEPTED
        if way == "send_join":
            assert result.error is not None
            assert (result.error.status, result.error.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(("source", "way"), [key for key in PATHS if key[0] is not Source.INVITE])
@pytest.mark.parametrize("version", ["2", "12"])
async def test_an_event_without_its_auth_events_is_not_judged_on_any_path(
    tmp_path: Path, source: Source, way: str, version: str
) -> None:
    """Neither accepted nor rejected: it may be fine, once its auth events are there."""
    if way == "send_knock" and version == "2":
        pytest.skip("rooms of this version can't be knocked on")
    async with scenes(tmp_path, version, "knock" if way == "send_knock" else "public") as scene:
        pdu = PATHS[source, way].base(scene)
        pdu["auth_events"] = [*pdu["auth_events"], *scene.forger.references(["$never_seen:e.test"])]
        scene.answer_honestly({})
        result = await PATHS[source, way].send(scene, scene.forger.seal(pdu))
        assert result.event_id not in rows_of(scene.victim)
        if source is Source.MEMBERSHIP:
            assert result.error is not None
            assert result.error.status == 403


@pytest.mark.parametrize(("source", "way"), [key for key in PATHS if key[0] is not Source.INVITE])
@pytest.mark.parametrize("version", ["2", "10", "12"])
async def test_an_event_authorised_by_another_room_is_rejected_on_every_path(
    tmp_path: Path, source: Source, way: str, version: str
) -> None:
    if way == "send_knock" and version == "2":
        pytest.skip("rooms of this version can't be knocked on")
    async with scenes(tmp_path, version, "knock" if way == "send_knock" else "public") as scene:
        pdu = PATHS[source, way].base(scene)
        there = scene.victim.parts.head(scene.other_room)
        levels = scene.victim.parts.graph.lookup(there.current, ("m.room.power_levels", ""))
        assert levels is not None
        here = scene.forger.state["m.room.power_levels", ""]
        ids = [each if version != "2" else each[0] for each in pdu["auth_events"]]
        ids = [levels if each == here else each for each in ids]
        assert levels in ids
        pdu["auth_events"] = scene.forger.references(ids)
        result = await PATHS[source, way].send(scene, scene.forger.seal(pdu))
        outcome = rows_of(scene.victim).get(result.event_id)
        if source is Source.SEND_JOIN_ANSWER:
            assert outcome is None  # that event is not in the answer, so it can't be judged by it
        else:
            assert outcome == Outcome.REJECTED
        if source is Source.MEMBERSHIP:
            assert result.error is not None
            assert result.error.status == 403
