# SPDX-License-Identifier: Apache-2.0
"""CVE-2022-31152: some auth rules were not implemented, so servers disagreed about a room for ever.

That every numbered rule of every room version has an event that it decides is held by
tests/matrix/test_auth_rules_every_rule.py. Here are those that Synapse had left out, against a whole server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, MALLORY, siege
from tests.matrix.test_auth_rules_every_rule import POINTS


def test_every_version_has_its_rules_counted() -> None:
    assert {version for _, _, version, _ in POINTS} == set(ROOM_VERSIONS)
    assert len(POINTS) > 400


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
async def test_what_a_rule_forbids_is_rejected_in_every_version(tmp_path: Path, version: str) -> None:
    everybody = {"users": {MALLORY: 60}} if version == "12" else {"users": {MALLORY: 60, ALICE: 100}}
    async with siege(tmp_path, version=version, room={"power_level_content_override": everybody}) as at:
        member = at.state()["m.room.member", MALLORY]
        levels = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels/")
        create = at.state()["m.room.create", ""]
        citing = [member, at.state()["m.room.power_levels", ""], *([] if version == "12" else [create])]

        def changed(**changes: Any) -> Any:
            return at.event("m.room.power_levels", {**levels, **changes}, "")

        attacks = {
            # Auth events that do not belong there: twice the same key, and one that the event has no use for.
            "two of one key": at.event(auth=[*citing, member]),
            "an auth event that is not called for": at.event(
                auth=[*citing, at.state()["m.room.history_visibility", ""]]
            ),
            "without its sender's member event": at.event(auth=[each for each in citing if each != member]),
            # Levels above one's own, taken from or given to whomever.
            "a level above one's own": changed(ban=61),
            "somebody raised above oneself": changed(users={**levels["users"], "@x:peer.test": 61}),
            "an event raised above oneself": changed(events={**levels["events"], "m.room.topic": 61}),
            "a state key of another user": at.event("x.y", {}, ALICE),
            "a ban of one's better": at.event("m.room.member", {"membership": "ban"}, ALICE),
            "an unban of nobody": at.event("m.room.member", {"membership": "knock"}, "@x:peer.test"),
            "a second create event": at.event("m.room.create", {"room_version": version}, ""),
        }
        if version not in ("1", "2", "3", "4", "5"):
            attacks["a notification level above one's own"] = changed(notifications={"room": 61})
        answer = await at.send(*attacks.values())
        for name, pdu in attacks.items():
            said, outcome = answer.get(at.id_of(pdu), {}), at.outcome(at.id_of(pdu))
            assert outcome is Outcome.REJECTED or (outcome is None and "error" in said), name
        await at.unharmed()
