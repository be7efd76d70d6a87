# SPDX-License-Identifier: Apache-2.0
"""Our answers beside those of a real Synapse. vectors/README.md says how the files were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import canonical, hashes, unpadded
from minihs.matrix.event import Event, EventError
from minihs.matrix.redaction import redact
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SigningKey, sign_event, sign_json, verify_event_signature, verify_json

VECTORS = Path(__file__).parent / "vectors"


def load(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    # Python's own parser: some hold lone surrogates, which ours refuses.
    about = json.loads((VECTORS / f"{name}.json").read_text())
    return about, about.pop("vectors")


ABOUT, EVENTS = load("events")
KEY = SigningKey.generate(unpadded.decode(ABOUT["seed"]), ABOUT["key_id"].removeprefix("ed25519:"))
SERVER = ABOUT["server_name"]


@pytest.mark.parametrize("vector", EVENTS, ids=lambda vector: f"{vector['room_version']}: {vector['name']}")
def test_events_are_hashed_named_redacted_and_signed_alike(vector: dict[str, Any]) -> None:
    version = ROOM_VERSIONS[vector["room_version"]]
    pdu = canonical.loads(canonical.dumps(vector["pdu"]))
    assert pdu == vector["pdu"]

    event = Event.from_wire({**pdu, "unsigned": {"age": 1.5}}, version)
    assert event.event_id == vector["event_id"]
    assert event.room_id == vector["room_id"]
    assert event.redacted().json == redact(pdu, version) == vector["redacted"]
    assert unpadded.encode(hashes.content_hash(pdu)) == vector["content_hash"]
    assert hashes.has_right_content_hash(event)
    assert unpadded.encode(hashes.reference_hash(pdu, version)) == vector["reference_hash"]
    verify_event_signature(event, SERVER, KEY.key_id, KEY.verify_key)

    bare = {k: v for k, v in pdu.items() if k not in ("signatures", "hashes", "unsigned")}
    signed = sign_event(hashes.with_content_hash(bare), version, SERVER, KEY)
    assert signed["signatures"] == pdu["signatures"]
    assert signed["hashes"] == pdu["hashes"]


FORMATS = load("formats")[1]
MESSAGES = FORMATS[0]["messages"]


@pytest.mark.parametrize("vector", FORMATS[1:], ids=lambda vector: vector["name"])
def test_malformed_pdus_are_refused_alike(vector: dict[str, Any]) -> None:
    accepted_in = set()
    for number, message in MESSAGES.items():
        pdu = {k: v for k, v in {**message, **vector["replace"]}.items() if k not in vector["remove"]}
        try:
            Event.from_wire(pdu, ROOM_VERSIONS[number])
            accepted_in.add(number)
        except EventError:
            pass
    assert accepted_in == set(vector["accepted_in"])


@pytest.mark.parametrize("vector", load("signed_json")[1], ids=lambda vector: ",".join(vector["value"]))
def test_json_is_signed_alike(vector: dict[str, Any]) -> None:
    assert sign_json(vector["value"], SERVER, KEY) == vector["signed"]
    verify_json(vector["signed"], SERVER, KEY.key_id, KEY.verify_key)
