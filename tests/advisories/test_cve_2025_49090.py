# SPDX-License-Identifier: Apache-2.0
"""CVE-2025-49090 (Hydra, MSC4297): state resolution could be made to take a room back to an older state.

The two problems of MSC4297 are scenarios in tests/matrix/scenarios, under version 11 and 12. Here a server
that tells of old state tries it on a whole server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.advisories.kit import ALICE, MALLORY, Siege, siege

SCENARIOS = Path(__file__).parent.parent / "matrix" / "scenarios"


@pytest.mark.parametrize("problem", ["A", "B"])
def test_both_problems_of_the_proposal_are_scenarios(problem: str) -> None:
    whys = {path.name: json.loads(path.read_text()).get("why", "") for path in SCENARIOS.glob("*.json")}
    assert [name for name, why in whys.items() if f"Problem {problem} of MSC4297" in why]


async def test_an_old_state_at_a_gap_does_not_take_the_room_back(tmp_path: Path) -> None:
    """Mallory had power once. Her server claims that the state at a gap is the one of that time."""
    override = {"users": {MALLORY: 90}}
    async with siege(tmp_path, room={"power_level_content_override": override}) as at:
        old_ids, old_chain = at.forger.state_ids_answer()
        old_auth = at.forger.auth_events("m.room.topic", MALLORY, "", {})
        then = at.forger.tips
        await trio.sleep(1)  # or it would be the ids that decide
        levels = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels/")
        await at.alice.set_state(at.room, "m.room.power_levels", {**levels, "users": {}})
        await at.alice.set_state(at.room, "m.room.topic", {"topic": "in peace"})
        await at.alice.set_state(at.room, "m.room.join_rules", {"join_rule": "invite"})
        before = at.state()

        # on an old branch
        beside = at.event("m.room.topic", {"topic": "mine"}, "", prev=then, auth=old_auth)
        # and over a gap, behind which everything is said to be as it was
        gap = at.event(prev=then)
        at.answer_gaps(state_ids={"pdu_ids": old_ids, "auth_chain_ids": old_chain})
        at.serve_events({at.id_of(gap): gap})
        after = at.event("m.room.topic", {"topic": "mine"}, "", prev=[at.id_of(gap)], auth=old_auth)
        merge = at.event(prev=[at.id_of(beside), at.id_of(after), *at.forger.tips])
        for pdu in (beside, after, merge):
            await at.send(pdu)

        assert changed(at, before) <= {("m.room.topic", "")}
        topic = await at.alice.get(f"/rooms/{at.room}/state/m.room.topic/")
        assert topic["topic"] == "in peace"
        assert before["m.room.power_levels", ""] == at.state()["m.room.power_levels", ""]
        assert ALICE in str(await at.alice.get(f"/rooms/{at.room}/joined_members"))
        await at.unharmed()


def changed(at: Siege, before: dict[tuple[str, str], str]) -> set[Any]:
    now = at.state()
    return {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
