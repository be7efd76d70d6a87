# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minihs.matrix import hashes, unpadded
from minihs.matrix.event import Event
from minihs.matrix.redaction import redact
from minihs.matrix.room_versions import ROOM_VERSIONS
from tests.matrix.events import ALL_VERSIONS, event_of, pdu_of

V10 = ROOM_VERSIONS["10"]


def test_the_content_hash_of_the_vectors_in_the_appendices() -> None:
    minimal = {
        "room_id": "!x:domain",
        "sender": "@a:domain",
        "origin": "domain",
        "origin_server_ts": 1000000,
        "signatures": {},
        "hashes": {},
        "type": "X",
        "content": {},
        "prev_events": [],
        "auth_events": [],
        "depth": 3,
        "unsigned": {"age_ts": 1000000},
    }
    assert unpadded.encode(hashes.content_hash(minimal)) == "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"
    assert hashes.with_content_hash(minimal)["hashes"] == {
        "sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"
    }
    assert minimal["hashes"] == {}


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"sender": "@b:c"}, True),
        ({"content": {}}, True),
        ({"depth": 6}, True),
        ({"type": "other"}, True),
        ({"unknown": 1}, True),
        ({"signatures": {}}, False),
        ({"unsigned": {"a": 1}}, False),
    ],
)
def test_everything_counts_for_the_content_hash_except_hashes_signatures_and_unsigned(
    change: dict[str, Any], counts: bool
) -> None:
    for version in ALL_VERSIONS:
        event = event_of(version)
        assert hashes.has_right_content_hash(event)
        changed = Event.from_store({**event.json, **change}, version, event.event_id)
        assert hashes.has_right_content_hash(changed) is not counts


@pytest.mark.parametrize("claimed", ["", "x", "!!!", "A" * 43, 5, None])
def test_a_content_hash_that_is_wrong_or_malformed_is_wrong(claimed: Any) -> None:
    event = Event.from_store({**pdu_of(V10), "hashes": {"sha256": claimed}}, V10, "$x")
    assert not hashes.has_right_content_hash(event)
    assert not hashes.has_right_content_hash(Event.from_store({**pdu_of(V10), "hashes": {}}, V10, "$x"))


def test_a_content_hash_may_be_written_in_any_base64() -> None:
    event = event_of(V10, content={"n": 12})
    digest = hashes.content_hash(event.json)
    assert b"+" in unpadded.encode(digest).encode() or b"/" in unpadded.encode(digest).encode()
    for text in (unpadded.encode(digest) + "=", unpadded.encode_urlsafe(digest)):
        again = Event.from_store({**event.json, "hashes": {"sha256": text}}, V10, "$x")
        assert hashes.has_right_content_hash(again)


def test_the_reference_hash_is_that_of_the_redacted_event() -> None:
    for version in ALL_VERSIONS:
        pdu = pdu_of(version, type="m.room.topic", state_key="")
        digest = hashes.reference_hash(pdu, version)
        assert hashes.reference_hash(redact(pdu, version), version) == digest
        assert hashes.reference_hash({**pdu, "signatures": {}, "unsigned": {"a": 1}}, version) == digest
        assert hashes.reference_hash({**pdu, "content": {"redacted": "anyway"}}, version) == digest
        assert hashes.reference_hash({**pdu, "hashes": {"sha256": "other"}}, version) != digest
        assert hashes.reference_hash({**pdu, "depth": 6}, version) != digest


def test_the_event_id_is_stated_or_made_of_the_reference_hash() -> None:
    pdu = pdu_of(ROOM_VERSIONS["1"])
    assert hashes.event_id_of(pdu, ROOM_VERSIONS["1"]) == pdu["event_id"]
    assert hashes.event_id_of(pdu, ROOM_VERSIONS["2"]) == pdu["event_id"]
    # A hash whose base64 differs between the alphabets.
    pdu = next(
        pdu
        for pdu in (pdu_of(ROOM_VERSIONS["3"], depth=n) for n in range(100))
        if "/" in hashes.event_id_of(pdu, ROOM_VERSIONS["3"])
        and "+" in hashes.event_id_of(pdu, ROOM_VERSIONS["3"])
    )
    digest = hashes.reference_hash(pdu, ROOM_VERSIONS["3"])
    assert hashes.event_id_of(pdu, ROOM_VERSIONS["3"]) == "$" + unpadded.encode(digest)
    as_v4 = replace(ROOM_VERSIONS["3"], event_format=3)
    assert hashes.event_id_of(pdu, as_v4) == "$" + unpadded.encode_urlsafe(digest)
