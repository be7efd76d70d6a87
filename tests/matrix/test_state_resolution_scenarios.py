# SPDX-License-Identifier: Apache-2.0
"""State resolution told as stories: each file of scenarios/ is one, and its name is what happens in it.

A file has: `why` in words; `events`, made in order after each other or `after` those named (the room begins
with "create", "creator", "levels" and "rules"), `ts` being seconds; `states`, each that `after` an event,
`but` with some keys changed; and by version, of what state is expected, the keys that matter
("type|state_key": id of an event, or null).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.state_resolution import AuthGraph, ChainIndex, resolve
from minihs.testing.events import RoomFactory
from tests.matrix import oracle

SCENARIOS = Path(__file__).with_name("scenarios")
ALICE = "@alice:a.test"
FIRST = {
    "create": ("m.room.create", ""),
    "creator": ("m.room.member", ALICE),
    "levels": ("m.room.power_levels", ""),
    "rules": ("m.room.join_rules", ""),
}

AFTER_THE_FIRST = 1_800_000_000_000

type State = dict[tuple[str, str], str]


def stories() -> Iterator[Any]:
    for path in sorted(SCENARIOS.glob("*.json")):
        story = json.loads(path.read_text())
        for expected in story["expect"]:
            for version in expected["versions"]:
                yield pytest.param(version, story, expected["state"], id=f"{path.stem}-v{version}")


class Told:
    """A story's room in one version, and its events by their names."""

    def __init__(self, version: str, story: dict[str, Any]) -> None:
        self.room = RoomFactory(version=version, creator=ALICE)
        self.events = {name: self.room.state[key] for name, key in FIRST.items()}
        for number, event in enumerate(story["events"]):
            self.events[event["id"]] = self._make(event, AFTER_THE_FIRST + 1000 * event.get("ts", number))
        self.room.rejected = {self.events[name].event_id for name in story.get("rejected", ())}
        self.states = [self._state(**state) for state in story["states"]]

    def _make(self, event: dict[str, Any], ts: int) -> Event:
        after = [self.events[name] for name in event["after"]] if "after" in event else None
        content = event["content"]
        if event["type"] == "m.room.power_levels":
            return self.room.set_power_levels(event["sender"], **content, after=after, ts=ts)
        return self.room.send(event["sender"], event["type"], content, event["state_key"], after=after, ts=ts)

    def _state(self, after: str, but: dict[str, str | None] | None = None) -> State:
        state = {key: event.event_id for key, event in self.room.state_after(self.events[after]).items()}
        for key, name in (but or {}).items():
            if name is None:
                del state[key_of(key)]
            else:
                state[key_of(key)] = self.events[name].event_id
        return state

    def expected_id(self, name: str | None) -> str | None:
        for words, by in (("highest id of ", str), ("lowest SHA-1 of ", descending_sha1)):
            if name is not None and name.startswith(words):
                candidates = name.removeprefix(words).split(", ")
                return max((self.events[candidate].event_id for candidate in candidates), key=by)
        return self.events[name].event_id if name is not None else None


def descending_sha1(event_id: str) -> int:
    return -int(sha1(event_id.encode(), usedforsecurity=False).hexdigest(), 16)


def key_of(text: str) -> tuple[str, str]:
    type, _, state_key = text.partition("|")
    return type, state_key


@pytest.mark.parametrize(("version", "story", "expected"), list(stories()))
def test_what_the_story_says_happens(
    version: str, story: dict[str, Any], expected: dict[str, str | None]
) -> None:
    told = Told(version, story)
    for states in itertools.permutations(told.states):
        resolved = resolve(told.room.version, states, told.room)
        for key, name in expected.items():
            assert resolved.get(key_of(key)) == told.expected_id(name), key
    # The story is about no other key: there, the state is the same on all sides.
    for key in resolved.keys() | {key for state in told.states for key in state}:
        if "|".join(key) not in expected:
            values = {state.get(key) for state in told.states}
            assert {resolved.get(key)} == values, key


@pytest.mark.parametrize(("version", "story", "expected"), list(stories()))
def test_the_oracle_and_the_lean_form_say_the_same(
    version: str, story: dict[str, Any], expected: dict[str, str | None]
) -> None:
    told = Told(version, story)
    resolved = resolve(told.room.version, told.states, told.room)
    assert resolved == oracle.resolve(told.room.version, told.states, told.room.events, told.room.rejected)

    keys = {key for state in told.states for key in state}
    keys = {key for key in keys if len({state.get(key) for state in told.states}) > 1}
    parts = [{key: state[key] for key in keys if key in state} for state in told.states]
    rest = {key: event_id for key, event_id in told.states[0].items() if key not in keys}
    graph = AuthGraph(told.room)
    index = ChainIndex(graph, rest.values())
    lean = resolve(told.room.version, parts, told.room, rest=rest, rest_chain=index, graph=graph)
    assert rest | lean == resolved


def test_every_version_has_stories() -> None:
    told = {version for param in stories() for version in [param.values[0]]}
    assert told == set(ROOM_VERSIONS)


def test_every_story_says_why() -> None:
    for path in SCENARIOS.glob("*.json"):
        story = json.loads(path.read_text())
        assert story["why"].endswith("."), path
        assert set(story) <= {"why", "events", "rejected", "states", "expect"}, path
