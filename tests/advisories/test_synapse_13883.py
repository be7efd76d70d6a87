# SPDX-License-Identifier: Apache-2.0
"""Synapse #13883, #8106, #7381: JSON that implementations read differently, so that hashes and signatures
differed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minihs.matrix import canonical
from minihs.store.events import Outcome
from tests.advisories.kit import Siege, siege

AS_TEXT = {
    "a float that is whole": "1.0",
    "an exponent": "1e3",
    "negative zero": "-0",
    "a float": "0.5",
    "2^53": "9007199254740992",
    "2^64": "18446744073709551616",
    "no number": "NaN",
    "infinity": "1e400",
    "a lone surrogate": '"\\ud800"',
    "surrogates the wrong way round": '"\\ude00\\ud83d"',
    "a key twice": '{"a":1,"a":2}',
    "a leading zero": "01",
    "a control character": '"\x01"',
    "not UTF-8": '"\udcff"',
    "two values": "1 2",
}
NOT_JSON = {
    "no number", "infinity", "a lone surrogate", "surrogates the wrong way round", "a leading zero",
    "a control character", "not UTF-8", "two values",
}  # fmt: skip
REFUSED_IN_12 = {"a float that is whole", "an exponent", "a float", "2^53", "2^64"}


async def sent_as_text(at: Siege, text: str) -> tuple[int, str]:
    """The status, and the id of the event with that in its content, whose other bytes are right."""
    pdu = at.event("x.y", {"value": "@@"})
    whole = json.dumps({"origin": "peer.test", "origin_server_ts": 0, "pdus": [pdu], "edus": []})
    raw = whole.replace('"@@"', text).encode("utf-8", "surrogateescape")
    try:
        # As it is read by most, so that the signatures hold.
        value = json.loads(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        sealed = at.seal({**pdu, "content": {"value": value}})
        shown = json.dumps({**json.loads(whole), "pdus": [{**sealed, "content": {"value": "@@"}}]})
        raw = shown.replace('"@@"', text).encode("utf-8", "surrogateescape")
        body = {**json.loads(whole), "pdus": [sealed]}
        canonical.encode(body)
    except ValueError:
        sealed, body = pdu, json.loads(whole)
    status, _ = await at.send_body(body, body=raw)
    return status, at.id_of(sealed)


@pytest.mark.parametrize("name", AS_TEXT)
async def test_text_that_is_read_in_two_ways(tmp_path: Path, name: str) -> None:
    async with siege(tmp_path) as at:
        status, event_id = await sent_as_text(at, AS_TEXT[name])
        if name in NOT_JSON:
            assert status in (400, 401)
            assert at.outcome(event_id) is None
        elif name in REFUSED_IN_12:
            assert status in (200, 401)
            assert at.outcome(event_id) is None
        else:
            # One reading: what was verified is what is there.
            assert status == 200
            found = at.rooms.parts.graph.stored(event_id)
            assert found is not None
            assert found.outcome is Outcome.ACCEPTED or found.event.content == {}
        await at.unharmed()
