# SPDX-License-Identifier: Apache-2.0
"""Keys by way of notaries: what they are asked for, and what they can't do."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from minihs.matrix.canonical import JsonObject
from minihs.matrix.federation_errors import KeyUnavailable
from minihs.matrix.signatures import SigningKey, sign_json
from minihs.store import server_keys
from minihs.testing.hostile import Reply, ScriptedPeer
from tests.federation.keyring_kit import QUERY, key_of, keyring_of, make_event
from tests.federation.kit import Caller

# -- notaries --


def notary_answer(notary: ScriptedPeer, *documents: JsonObject) -> JsonObject:
    return {"server_keys": [sign_json(document, notary.name, notary.key) for document in documents]}


async def test_the_keys_of_a_server_that_is_gone_come_from_a_notary(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    gone = ScriptedPeer(us.internet, "gone.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    notary.on("POST", QUERY, notary_answer(notary, gone.key_document()))
    gone.host.down()
    event = make_event("gone.test", gone.key, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    [asked] = notary.received(QUERY)
    assert asked.json == {
        "server_keys": {"gone.test": {gone.key.key_id: {"minimum_valid_until_ts": event.origin_server_ts}}}
    }


async def test_a_notary_is_not_asked_when_the_server_answers(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    event = make_event("peer.test", peer.key, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    assert notary.requests == []


async def test_all_that_is_missing_is_asked_of_the_notary_at_once(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    gone = [ScriptedPeer(us.internet, f"gone{number}.test", clock=us.clock) for number in range(20)]
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    notary.on("POST", QUERY, notary_answer(notary, *(peer.key_document() for peer in gone)))
    events = [make_event(peer.name, peer.key, us.clock.now_ms()) for peer in gone]
    for peer in gone:
        peer.host.down()
    assert await keyring.verify_events(events) == [None] * 20
    assert len(notary.received(QUERY)) == 1


async def poisoned(us: Caller, notary: ScriptedPeer, answer: Any) -> Any:
    """What a gone server's event is found to be, when the notary says this."""
    gone = ScriptedPeer(us.internet, "gone.test", clock=us.clock)
    gone.host.down()
    notary.on("POST", QUERY, answer)
    [verdict] = await keyring_of(us, "notary.test").verify_events(
        [make_event("gone.test", gone.key, us.clock.now_ms())]
    )
    return verdict


def poisons(gone: ScriptedPeer, notary: ScriptedPeer) -> dict[str, Any]:
    document = gone.key_document()
    stranger = key_of(7)
    unsigned = {**document, "signatures": {}}
    return {
        "not signed by the server": notary_answer(notary, unsigned),
        "signed for the server by the notary": {
            "server_keys": [sign_json(sign_json(unsigned, "gone.test", notary.key), notary.name, notary.key)]
        },
        "not signed by the notary": {"server_keys": [document]},
        "signed by somebody as the notary": {"server_keys": [sign_json(document, notary.name, stranger)]},
        "changed on the way": notary_answer(notary, {**document, "valid_until_ts": 2**50}),
        "under another name": notary_answer(notary, {**document, "server_name": "other.test"}),
        "not what was asked for": notary_answer(notary, notary.key_document()),
        "no list": {"server_keys": {}},
        "a list of nonsense": {"server_keys": [None, 5, "x", [], {}, {"server_name": 5}]},
        "not JSON": Reply(body=b"<html>"),
        "an error": Reply(500),
    }


@pytest.mark.parametrize(
    "poison",
    [
        "not signed by the server",
        "signed for the server by the notary",
        "not signed by the notary",
        "signed by somebody as the notary",
        "changed on the way",
        "under another name",
        "not what was asked for",
        "no list",
        "a list of nonsense",
        "not JSON",
        "an error",
    ],
)
async def test_a_notary_cannot_poison(us: Caller, poison: str) -> None:
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    gone = ScriptedPeer(us.internet, "gone.test", clock=us.clock)
    table = poisons(gone, notary)
    assert isinstance(await poisoned(us, notary, table[poison]), KeyUnavailable)
    assert server_keys.get(us.db.read, "gone.test") == {}


async def test_a_notary_does_not_override_what_the_server_itself_said(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    honest = peer.key
    event = make_event("peer.test", honest, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    before = server_keys.get(us.db.read, "peer.test")
    # The thief of a domain shows the notary another key under the same id, and one that retires the old.
    thief = SigningKey.generate(b"\6" * 32, "scripted")
    peer.key = thief
    forged = peer.key_document(
        old_verify_keys={"ed25519:new": {"key": thief.verify_key_base64, "expired_ts": 1}}
    )
    notary.on("POST", QUERY, notary_answer(notary, forged))
    peer.host.down()
    unknown = make_event("peer.test", key_of(3), us.clock.now_ms())
    await keyring.verify_events([unknown])
    assert len(notary.received(QUERY)) == 1
    after = server_keys.get(us.db.read, "peer.test")
    assert after[honest.key_id] == before[honest.key_id]


async def test_what_a_notary_said_is_corrected_by_the_server_itself(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    honest = peer.key
    peer.key = SigningKey.generate(b"\6" * 32, "scripted")
    notary.on("POST", QUERY, notary_answer(notary, peer.key_document()))
    peer.host.down()
    await keyring.verify_events([make_event("peer.test", peer.key, us.clock.now_ms())])
    peer.host.up()
    peer.key = honest
    await trio.sleep(3600)
    await keyring._fetcher.refresh("peer.test")
    stored = server_keys.get(us.db.read, "peer.test")[honest.key_id]
    assert stored.public_key == honest.verify_key
    assert stored.direct
