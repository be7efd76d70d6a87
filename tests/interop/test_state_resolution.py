# SPDX-License-Identifier: Apache-2.0
"""State resolution as Synapse has it, on random rooms: who differs from the others has another room.

Nothing counts as rejected here: what was rejected against the state before it Synapse never lets in, while by
the specification it may win.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from minihs.matrix.state_resolution import resolve
from tests.interop.kit.synapse import synapse_python
from tests.matrix.random_rooms import forks, made_up_states

RESOLVER = Path(__file__).with_name("synapse_resolver.py")
FAMILIES = {"v1": ["1"], "v2": ["2", "3", "6", "9", "10", "11"], "v2.1": ["12"]}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_result_is_synapses(family: str) -> None:
    asked: list[dict[str, Any]] = []
    ours: list[list[list[str]]] = []

    @seed(1)
    @settings(
        max_examples=120,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(forks(FAMILIES[family]) | made_up_states(FAMILIES[family]))
    def collect(given: Any) -> None:
        room, states = given
        room.rejected = set()
        asked.append(
            {
                "version": room.version.version,
                "room_id": room.room_id,
                "events": {event_id: event.json for event_id, event in room.events.items()},
                "states": [[[*key, event_id] for key, event_id in state.items()] for state in states],
            }
        )
        resolved = resolve(room.version, states, room)
        ours.append(sorted([*key, event_id] for key, event_id in resolved.items()))

    collect()
    answer = subprocess.run(
        [str(synapse_python()), str(RESOLVER)],
        input="".join(json.dumps(room) + "\n" for room in asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    theirs = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(theirs) == len(ours) > 50
    for room, mine, other in zip(asked, ours, theirs, strict=True):
        assert mine == other, room
