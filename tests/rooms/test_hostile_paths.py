# SPDX-License-Identifier: Apache-2.0
"""Every path by which an event gets in makes the checks that the table in rooms/admission.py promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms import gap_state
from minihs.rooms.admission import CHECKS, Source
from minihs.store.events import Outcome
from tests.rooms.attacks import Attack, attacks
from tests.rooms.forge import rows_of
from tests.rooms.hostile_paths import PATHS, Result, Scene, scenes

OTHER_TESTS = {Source.COUNTERSIGNED, Source.OWN_JOIN, Source.SHOWN_STATE}


def test_every_source_has_its_checks_and_a_path_that_is_tried() -> None:
    assert set(CHECKS) == set(Source)
    assert {source for source, _ in PATHS} | OTHER_TESTS == set(Source)
    for checks in CHECKS.values():
        assert checks[:4] == ("format", "room", "signatures", "hash")


def paths_and_versions() -> list[tuple[Source, str, str]]:
    found = []
    for source, way in PATHS:
        versions = ["2", "10", "12"] if way != "send_knock" else ["10", "12"]
        found += [(source, way, version) for version in versions]
    return found


@pytest.mark.parametrize(("source", "way", "version"), paths_and_versions())
async def test_what_is_wrong_with_a_pdu_by_itself_is_seen_on_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Source, way: str, version: str
) -> None:
    if way == "state":
        monkeypatch.setattr(gap_state, "MAX_SINGLE_FETCHES", 0)
    path = PATHS[source, way]
    async with scenes(tmp_path, version, "knock" if way == "send_knock" else "public") as scene:
        # All paths call the same function; that all of it is called needs no more than one case of each kind.
        every_type = source in (Source.TRANSACTION, Source.INVITE)
        of_history = source is Source.BACKFILL
        for attack in attacks(ROOM_VERSIONS[version], every_type=every_type, of_history=of_history):
            if way == "send_leave" and attack.check == "hash":
                continue  # it would succeed, and Eve be gone
            bad = attack.change(scene.forger, path.base(scene))
            result = await path.send(scene, bad)
            _check(scene, source, attack, result)
            await scene.forget_inbox()


def _check(scene: Scene, source: Source, attack: Attack, result: Result) -> None:
    stored = rows_of(scene.victim)
    for good in result.good:
        assert stored.get(good) == Outcome.ACCEPTED, f"{attack}: a good event is not there"
    if attack.check == "hash":
        assert result.error is None, f"{attack}: {result.error}"
        assert stored.get(result.event_id) == Outcome.ACCEPTED, f"{attack}: is not there in its redacted form"
        found = scene.victim.parts.graph.stored(result.event_id)
        assert found is not None
        assert "smuggled" not in found.event.content, attack
        return
    assert result.event_id not in stored, f"{attack}: was let in"
    if source in (Source.MEMBERSHIP, Source.INVITE):
        assert result.error is not None, f"{attack}: was answered with 200"
        expected = (400, "M_INVALID_PARAM" if attack.check in ("signatures", "room") else "M_BAD_JSON")
        assert (result.error.status, result.error.errcode) == expected, attack
    if source is Source.TRANSACTION and attack.check == "signatures":
        assert "error" in result.answer["pdus"][result.event_id], attack
