# SPDX-License-Identifier: Apache-2.0
"""Key documents: those of others that are refused, and our own, as the server itself and as a notary."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from minihs.federation.key_document import MAX_VALIDITY_MS, BadKeyDocument, parse
from minihs.federation.keyring import Keyring
from minihs.federation.own_keys import OwnKeys, read_old_keys
from minihs.matrix.canonical import JsonObject
from minihs.matrix.signatures import SignatureError, sign_json, verify_json
from minihs.testing.hostile import KEY_PATH, Received, Reply, ScriptedPeer
from tests.federation.keyring_kit import key_of, keyring_of, make_event
from tests.federation.kit import Caller

DAY = 24 * 3600 * 1000


# -- key documents --


def broken_documents(peer: ScriptedPeer) -> dict[str, Any]:
    good = peer.key_document()
    other = key_of(9)
    signed_by_other = sign_json({**good, "signatures": {}}, peer.name, other)
    return {
        "not an object": [good],
        "another server's": sign_json(
            {**good, "server_name": "x.test", "signatures": {}}, "x.test", peer.key
        ),
        "no name": {key: value for key, value in good.items() if key != "server_name"},
        "not signed": {**good, "signatures": {}},
        "signatures of another kind": {**good, "signatures": [1]},
        "changed after signing": {**good, "valid_until_ts": good["valid_until_ts"] + 1},
        "signed with a key that is not in it": signed_by_other,
        "signed with an old key only": peer_with_old_key_only(peer),
        "a time that is a truth value": peer.key_document(valid_until_ts=True),
        "a time that is text": peer.key_document(valid_until_ts="1"),
        "a time that is a float": peer.key_document(valid_until_ts=1.5),
        "a time beyond all": peer.key_document(valid_until_ts=2**63),
        "a negative time": peer.key_document(valid_until_ts=-1),
        "no keys": peer.key_document(verify_keys={}),
        "keys of another kind": peer.key_document(verify_keys=[]),
        "old keys of another kind": peer.key_document(old_verify_keys=[]),
        "keys that are no keys": peer.key_document(verify_keys={peer.key.key_id: {"key": "AAAA"}}),
        "keys that are text": peer.key_document(verify_keys={peer.key.key_id: peer.key.verify_key_base64}),
        "keys not in base64": peer.key_document(verify_keys={peer.key.key_id: {"key": "!" * 43}}),
        "keys that are numbers": peer.key_document(verify_keys={peer.key.key_id: {"key": 5}}),
    }


def peer_with_old_key_only(peer: ScriptedPeer) -> JsonObject:
    fresh = key_of(8)
    return peer.key_document(
        verify_keys={fresh.key_id: {"key": fresh.verify_key_base64}},
        old_verify_keys={peer.key.key_id: {"key": peer.key.verify_key_base64, "expired_ts": 1}},
    )


async def test_broken_key_documents_are_refused(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    assert set(parse(peer.key_document(), "peer.test").keys) == {peer.key.key_id}
    for document in broken_documents(peer).values():
        with pytest.raises(BadKeyDocument):
            parse(document, "peer.test")


async def test_what_else_is_in_a_document_does_no_harm(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    good = {peer.key.key_id: {"key": peer.key.verify_key_base64}}
    document = peer.key_document(
        verify_keys={**good, "rsa:1": {"key": "x"}, "ed25519:bad": {"key": "x"}, "ed25519:": None},
        old_verify_keys={
            "ed25519:a": {"key": peer.key.verify_key_base64, "expired_ts": 5},
            "ed25519:b": {"key": peer.key.verify_key_base64},
            "ed25519:c": {"key": peer.key.verify_key_base64, "expired_ts": True},
            "ed25519:d": 7,
        },
        new_field={"float": 1.5},
    )
    assert set(parse(document, "peer.test").keys) == {peer.key.key_id, "ed25519:a"}


# -- serving --


async def test_our_own_document_is_one_that_we_would_believe(us: Caller) -> None:
    document = keyring_of(us).own_document()
    parsed = parse(document, us.name)
    assert parsed.keys[us.key.key_id].public_key == us.key.verify_key
    assert 3600_000 < parsed.valid_until_ts - us.clock.now_ms() <= MAX_VALIDITY_MS


async def test_retired_keys_stay_in_our_document_and_on_our_events(us: Caller, tmp_path: Any) -> None:
    old = key_of(4)
    path = tmp_path / "old"
    path.write_text(f"# retired\n{old.key_id} {old.verify_key_base64} 1600000000000 # in 2020\n")
    own = OwnKeys(us.name, us.key, us.runtime.clock, read_old_keys(path))
    keyring = Keyring(own, us.db, us.runtime, us.client)
    assert keyring.own_document()["old_verify_keys"] == {
        old.key_id: {"key": old.verify_key_base64, "expired_ts": 1600000000000}
    }
    before = make_event(us.name, old, 1600000000000)
    after = make_event(us.name, old, 1600000000001)
    verdicts = await keyring.verify_events([before, after])
    assert verdicts[0] is None
    assert isinstance(verdicts[1], SignatureError)


@pytest.mark.parametrize(
    "line", ["x", "ed25519:a b", "ed25519:a !!! 5", "ed25519:a AAAA five", "rsa:a AAAA 5"]
)
def test_a_broken_file_of_retired_keys_is_an_error(tmp_path: Any, line: str) -> None:
    (tmp_path / "old").write_text(line)
    with pytest.raises(ValueError):
        read_old_keys(tmp_path / "old")
    assert read_old_keys(tmp_path / "none") == {}


async def test_as_a_notary_we_sign_what_the_server_signed(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    [document] = await keyring.query_keys({"peer.test": {}})
    verify_json(document, "peer.test", peer.key.key_id, peer.key.verify_key)
    verify_json(document, us.name, us.key.key_id, us.key.verify_key)
    # For half of its life the document is not fetched again.
    await trio.sleep(11 * 3600)
    await keyring.query_keys({"peer.test": {"": 0}, "us.test": {}})
    assert len(peer.received(KEY_PATH)) == 1
    await trio.sleep(2 * 3600)
    await keyring.query_keys({"peer.test": {}})
    assert len(peer.received(KEY_PATH)) == 2


async def test_as_a_notary_we_answer_for_servers_that_are_gone(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    never = ScriptedPeer(us.internet, "never.test", clock=us.clock)
    never.host.down()
    await keyring.query_keys({"peer.test": {}})
    peer.host.down()
    await trio.sleep(30 * 24 * 3600)
    answer = await keyring.query_keys({"peer.test": {peer.key.key_id: 0}, "never.test": {}, "us.test": {}})
    assert [document["server_name"] for document in answer] == ["peer.test", "us.test"]


async def test_a_demand_for_longer_validity_makes_us_ask_again(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    await keyring.query_keys({"peer.test": {peer.key.key_id: 0}})
    await trio.sleep(60)
    await keyring.query_keys({"peer.test": {peer.key.key_id: us.clock.now_ms()}})
    assert len(peer.received(KEY_PATH)) == 1
    await keyring.query_keys({"peer.test": {peer.key.key_id: us.clock.now_ms() + DAY - 30_000}})
    assert len(peer.received(KEY_PATH)) == 2


async def test_we_sign_no_document_that_does_not_hold(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    for number, (what, document) in enumerate(broken_documents(peer).items()):
        peer.on("GET", KEY_PATH, lambda _, document=document: Reply(json=document))
        await trio.sleep(2 * 3600)
        assert await keyring.query_keys({"peer.test": {}}) == [], what
        assert len(peer.received(KEY_PATH)) == number + 1


async def test_a_query_for_many_servers_is_answered_in_time(us: Caller) -> None:
    keyring = keyring_of(us)

    def never(_: Received) -> Reply:
        return Reply(delay=10_000)

    peers = [ScriptedPeer(us.internet, f"p{number}.test", clock=us.clock) for number in range(40)]
    for peer in peers:
        peer.on("GET", KEY_PATH, never)
    start = trio.current_time()
    answer = await keyring.query_keys({peer.name: {} for peer in peers} | {"us.test": {}})
    assert len(answer) == 1
    assert trio.current_time() - start <= 16
