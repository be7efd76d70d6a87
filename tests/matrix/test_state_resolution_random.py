# SPDX-License-Identifier: Apache-2.0
"""State resolution against the oracle, on random rooms."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minihs.matrix.auth_rules import AuthError, allowing_rule, check_auth_events
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.state_resolution import AuthGraph, ChainIndex, resolve
from minihs.matrix.state_resolution import graph as auth_graph
from minihs.testing.events import RoomFactory
from tests.matrix import oracle
from tests.matrix.oracle_auth import allowed, auth_events_right
from tests.matrix.random_rooms import State, forks, ids, made_up_states, rooms

VERSIONS = list(ROOM_VERSIONS)
FAMILIES = {"v1": ["1"], "v2": ["2", "3", "6", "8", "10", "11"], "v2.1": ["12"]}
ALGORITHMS = ["1", "2", "6", "8", "10", "11", "12", "12"]
SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

sets = forks(ALGORITHMS) | made_up_states(ALGORITHMS)


def by_oracle(room: RoomFactory, states: list[State]) -> State:
    return oracle.resolve(room.version, states, room.events, room.rejected)


@SLOW
@pytest.mark.parametrize("family", list(FAMILIES))
@given(st.data())
def test_the_result_is_the_oracles(family: str, data: st.DataObject) -> None:
    versions = FAMILIES[family]
    room, states = data.draw(forks(versions) | made_up_states(versions))
    assert room.version.state_res == family
    assert resolve(room.version, states, room) == by_oracle(room, states)


@SLOW
@given(sets, st.sampled_from([0, 1, 3, 8]))
def test_where_chains_are_no_longer_short_makes_no_difference(
    given: tuple[RoomFactory, list[State]], most: int
) -> None:
    room, states = given
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth_graph, "SHORT_CHAIN", most)
        assert resolve(room.version, states, room) == by_oracle(room, states)


@SLOW
@given(sets, st.randoms())
def test_the_order_of_the_states_does_not_matter(
    given: tuple[RoomFactory, list[State]], shuffle: random.Random
) -> None:
    room, states = given
    expected = resolve(room.version, states, room)
    shuffle.shuffle(states)
    states.append(dict(reversed(states[0].items())))
    assert resolve(room.version, states, room) == expected


def differing(states: list[State]) -> set[tuple[str, str]]:
    keys = {key for state in states for key in state}
    return {key for key in keys if len({state.get(key) for state in states}) > 1}


@SLOW
@given(sets)
def test_the_lean_form_gives_the_same(given: tuple[RoomFactory, list[State]]) -> None:
    room, states = given
    expected = resolve(room.version, states, room)
    keys = differing(states)
    parts = [{key: state[key] for key in keys if key in state} for state in states]
    graph = AuthGraph(room)
    index = ChainIndex(graph, states[0].values())
    for _ in range(2):  # the second time with what the graph remembers
        with index.without(parts[0].values()) as rest_chain:
            result = resolve(room.version, parts, room, rest=states[0], rest_chain=rest_chain, graph=graph)
        rest = {key: event_id for key, event_id in states[0].items() if key not in keys}
        assert not result.keys() & rest.keys()
        assert rest | result == expected


@SLOW
@given(sets)
def test_the_lean_form_may_be_given_more_keys_than_differ(given: tuple[RoomFactory, list[State]]) -> None:
    room, states = given
    expected = resolve(room.version, states, room)
    keys = {
        key for key in states[0].keys() | differing(states) if key in differing(states) or len(key[1]) % 2
    }
    parts = [{key: state[key] for key in keys if key in state} for state in states]
    rest = {key: event_id for key, event_id in states[0].items() if key not in keys}
    index = ChainIndex(AuthGraph(room), rest.values())
    result = resolve(room.version, parts, room, rest=rest, rest_chain=index)
    assert rest | result == expected


@SLOW
@given(rooms(VERSIONS, max_events=12), st.data())
def test_the_chain_index_is_the_auth_chain_after_any_changes(room: RoomFactory, data: st.DataObject) -> None:
    graph = AuthGraph(room)
    index = ChainIndex(graph)
    state: set[str] = set()
    events = st.sampled_from(list(room.events))
    for event_id in data.draw(st.lists(events, max_size=30)):
        if event_id in state:
            index.remove(event_id)
            state.remove(event_id)
        else:
            index.add(event_id)
            state.add(event_id)
        expected = oracle.auth_chain(state, room.events)
        assert {found for found in room.events if found in index} == expected == graph.chain(state)
        assert len(index) == len(expected)


@SLOW
@given(rooms(VERSIONS))
def test_the_rules_agree_with_the_oracles_rules(room: RoomFactory) -> None:
    states = [
        room.state_after(event) for event in list(room.events.values())[:3] + list(room.events.values())[-3:]
    ]
    for event in room.events.values():
        for state in states:
            try:
                allowing_rule(event, state)
            except AuthError:
                assert not allowed(event, state)
            else:
                assert allowed(event, state)
        auth_events = [room.events[auth_id] for auth_id in event.auth_events]
        try:
            check_auth_events(event, auth_events, room.rejected, room.create)
        except AuthError:
            assert not auth_events_right(event, room.events, room.rejected)
        else:
            assert auth_events_right(event, room.events, room.rejected)


@SLOW
@given(rooms(VERSIONS, max_events=14))
def test_a_whole_room_is_judged_as_the_oracle_does(room: RoomFactory) -> None:
    verdict = oracle.judge_room(room.version, room.events)
    assert verdict.rejected == room.rejected
    for event in room.events.values():
        assert verdict.after[event.event_id] == ids(room.state_after(event))


@pytest.mark.parametrize("version", VERSIONS)
def test_no_states_one_state_and_equal_states_need_no_resolving(version: str) -> None:
    room = RoomFactory(version=version)
    state = ids(room.state)
    assert resolve(room.version, [], room) == {}
    assert resolve(room.version, [state], room) == state
    assert resolve(room.version, [state, dict(state), state], room) == state
