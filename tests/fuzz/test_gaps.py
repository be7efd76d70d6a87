# SPDX-License-Identifier: Apache-2.0
"""What we are told when we ask for what is missing: events that are almost valid in answers that are."""

from __future__ import annotations

import pytest
from hypothesis import given

from minihs.matrix.canonical import MAX_CARRIED_DEPTH
from minihs.rooms import gap_state
from minihs.store.events import Outcome
from tests.advisories.kit import MALLORY, V1, seg
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.strategies import Answered, Pdu, mostly_right_answers, pdus, spoiled, versions
from tests.fuzz.target import Target, canonical_or_none

CLIENT_V1 = "/_matrix/client/v1"
WAYS = ["get_missing_events", "event", "state_ids", "state", "event_auth", "backfill", "timestamp"]


@pytest.mark.parametrize("way", WAYS)
@fuzz(4)
@given(version=versions, case=pdus(), answer=mostly_right_answers)
def test_an_answer_about_a_gap(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, way: str, version: str, case: Pdu, answer: Answered
) -> None:
    if way == "state":
        monkeypatch.setattr(gap_state, "MAX_SINGLE_FETCHES", 0)

    async def attack(target: Target) -> None:
        await target.room(version)
        good = target.vital_state()
        sibling = await tell(target, way, case, answer)
        # What a right answer holds beside what is wrong is taken.
        if sibling and answer.is_right and good == target.vital_state():
            assert target.siege.outcome(sibling) is Outcome.ACCEPTED, target.shown()
        await target.forget_inbox()

    arena.run(attack, cases=1 + spoiled(answer))


async def tell(target: Target, way: str, case: Pdu, answer: Answered) -> str | None:
    """Send an event that lacks something, and give it. Returns the id of what must be taken whatever is wrong
    with the rest."""
    siege = target.siege
    bad = target.pdu(case)
    bad_id = target.id_of(bad)
    sibling, ghost = siege.event(), siege.event()
    sibling_id, ghost_id = siege.id_of(sibling), siege.id_of(ghost)
    child = siege.event(prev=[ghost_id])
    target.answer_honestly()
    known = {bad_id: bad, sibling_id: sibling, ghost_id: ghost}
    for event_id, pdu in known.items():
        spoiled = answer if (way, event_id) == ("event", bad_id) else None
        whole = {"origin": "peer.test", "origin_server_ts": 0, "pdus": [pdu]}
        target.on("GET", f"{V1}/event/{seg(event_id)}", whole, spoiled)
    state_ids, chain_ids = siege.forger.state_ids_answer()
    state, chain = siege.forger.state_answer()
    match way:
        case "get_missing_events":
            child = siege.event(prev=[bad_id, sibling_id])
            target.on("POST", f"{V1}/get_missing_events/", {"events": [bad, sibling]}, answer)
        case "event_auth":
            auth = [*siege.forger.auth_events("m.room.message", MALLORY, None, {}), bad_id]
            child = siege.event(auth=auth)
            target.on("GET", f"{V1}/event_auth/", {"auth_chain": [*chain, bad]}, answer)
        case "state_ids" | "event":
            ids = {"pdu_ids": [*state_ids, bad_id], "auth_chain_ids": chain_ids}
            target.on("GET", f"{V1}/state_ids/", ids, answer if way == "state_ids" else None)
        case "state":
            ids = {"pdu_ids": [*state_ids, bad_id, sibling_id], "auth_chain_ids": chain_ids}
            target.on("GET", f"{V1}/state_ids/", ids)
            target.on(
                "GET", f"{V1}/state/", {"pdus": [*state, bad, sibling], "auth_chain": [*chain, bad]}, answer
            )
        case "timestamp":
            found = {"event_id": ghost_id, "origin_server_ts": ghost["origin_server_ts"]}
            target.on("GET", f"{V1}/timestamp_to_event/", found, answer)
            target.on("GET", f"{V1}/backfill/", {"pdus": [ghost, bad]})
        case "backfill":
            target.on("GET", f"{V1}/backfill/", {"pdus": [ghost, bad, sibling]}, answer)
    await target.send([child])
    if way == "backfill":
        await target.client("GET", f"/rooms/{seg(target.at.room_id)}/messages?dir=b&limit=30")
    elif way == "timestamp":
        query = f"ts={child['origin_server_ts']}&dir=f"
        await target.client("GET", f"{CLIENT_V1}/rooms/{seg(target.at.room_id)}/timestamp_to_event?{query}")
    # Of an answer that is no JSON, by our rules, nothing can be taken.
    is_json = canonical_or_none(bad, MAX_CARRIED_DEPTH - 2) is not None
    return sibling_id if way == "get_missing_events" and is_json else None
