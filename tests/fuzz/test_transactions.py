# SPDX-License-Identifier: Apache-2.0
"""Transactions that are almost valid as a whole, to the last byte: where one is taken, what is good in it is
delivered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minihs.matrix import canonical
from minihs.matrix.canonical import MAX_CARRIED_DEPTH
from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, MALLORY, V1, seg
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.strategies import Body, bodies, odd_values
from tests.fuzz.target import Target

names = (
    st.none()
    | st.none()
    | st.text(min_size=1, max_size=8)
    | st.sampled_from(["..", ".", "%", "\0", "x" * 3000])
)


@fuzz(10)
@given(
    version=st.sampled_from(["1", "5", "11", "12"]),
    body=bodies,
    name=names,
    more=st.lists(odd_values, max_size=2),
)
def test_a_transaction(arena: Arena, version: str, body: Body, name: str | None, more: list[object]) -> None:
    async def attack(target: Target) -> None:
        await target.room(version)
        vital = target.vital_state()
        good = target.siege.event()
        number = next(target.numbers)
        text = f"good {number}"
        messages = {ALICE: {"*": {"text": text}}}
        content = {"sender": MALLORY, "type": "x.y", "message_id": text, "messages": messages}
        edu = {"edu_type": "m.direct_to_device", "content": content}
        whole = {
            "origin": "peer.test",
            "origin_server_ts": target.siege.world.clock.now_ms(),
            "pdus": [good, *more],
            "edus": [edu, *more],
        }
        data = body.of(whole)
        uri = f"{V1}/send/{seg(name or '')}{number}"
        status, answer = await target.ask("PUT", uri, data)
        await target.siege.rest()
        if status == 200:
            read = canonical.loads(data, max_depth=MAX_CARRIED_DEPTH)
            if good in read.get("pdus", []) and vital == target.vital_state():
                event_id = target.id_of(good)
                assert answer["pdus"].get(event_id) == {}, target.shown()
                assert target.siege.outcome(event_id) is Outcome.ACCEPTED, target.shown()
            if edu in read.get("edus", []):
                told = (await target.siege.alice.sync()).get("to_device", {}).get("events", [])
                assert text in [event["content"].get("text") for event in told], target.shown()

    arena.run(attack)
