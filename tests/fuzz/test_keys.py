# SPDX-License-Identifier: Apache-2.0
"""Key documents that are almost valid: as a server gives them, as a notary does, and what notaries are
asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minihs.matrix import canonical
from minihs.matrix.canonical import BadJson
from minihs.matrix.signatures import SignatureError, SigningKey, sign_json, verify_json
from minihs.testing.hostile import KEY_PATH, ScriptedPeer
from tests.advisories.kit import V1, seg
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.strategies import (
    Answered,
    Body,
    Edit,
    JsonObject,
    answers,
    bodies,
    edited,
    few_edits,
    mostly_right_answers,
    names,
    spoiled,
)
from tests.fuzz.target import NOTARY, Target

QUERY = "/_matrix/key/v2/query"


def document(target: Target, server: str, key: SigningKey, edits: Sequence[Edit]) -> Any:
    """Changed before it is signed, as far as it can be signed then."""
    right: JsonObject = {
        "server_name": server,
        "verify_keys": {key.key_id: {"key": key.verify_key_base64}},
        "old_verify_keys": {"ed25519:old": {"key": key.verify_key_base64, "expired_ts": 5}},
        "valid_until_ts": target.siege.world.clock.now_ms() + 24 * 3600 * 1000,
    }
    changed = edited(right, edits)
    try:
        return sign_json(changed, server, key)
    except (BadJson, TypeError, AttributeError):
        return changed


def vouches_for(data: bytes, server: str, key: SigningKey) -> bool:
    """The document says that this is a key of the server, and is signed with it. An opinion of its own."""
    try:
        said = canonical.loads(data)
        verify_json(said, server, key.key_id, key.verify_key)
        return bool(
            said["server_name"] == server
            and said["verify_keys"][key.key_id]["key"].rstrip("=") == key.verify_key_base64
        )
    except (ValueError, SignatureError, LookupError, TypeError, AttributeError):
        return False


@fuzz(7)
@given(edits=few_edits, answer=answers | mostly_right_answers)
def test_of_a_server(arena: Arena, edits: Sequence[Edit], answer: Answered) -> None:
    async def attack(target: Target) -> None:
        stranger = target.stranger(f"k{next(target.numbers)}.test")
        said = document(target, stranger.name, stranger.key, edits)
        stranger.on("GET", KEY_PATH, target.spoiled(said, answer))
        status, _ = await as_server(target, stranger)
        if status == 200:
            assert vouches_for(answer.body.of(said), stranger.name, stranger.key), target.shown()
        await target.ask("GET", f"{QUERY}/{stranger.name}", headers=[])

    arena.run(attack, cases=spoiled(edits, answer))


@fuzz(7)
@given(edits=few_edits, answer=answers | mostly_right_answers)
def test_by_a_notary(arena: Arena, edits: Sequence[Edit], answer: Answered) -> None:
    async def attack(target: Target) -> None:
        # It has no address, so that only the notary can tell its keys.
        gone = ScriptedPeer(
            target.siege.world.internet, f"gone{next(target.numbers)}.test", clock=target.peer.clock
        )
        gone.host.down()
        said = document(target, gone.name, gone.key, edits)
        signed = (
            sign_json(said, NOTARY, target.notary.key) if isinstance(said, dict) and is_json(said) else said
        )
        whole = {"server_keys": [signed]}
        target.notary.on("POST", QUERY, target.spoiled(whole, answer))
        status, _ = await as_server(target, gone)
        if status == 200:
            told = canonical.loads(answer.body.of(whole))["server_keys"]
            assert any(vouches_for(canonical.dumps(each), gone.name, gone.key) for each in told), (
                target.shown()
            )

    arena.run(attack, cases=spoiled(edits, answer))


def is_json(value: Any) -> bool:
    try:
        canonical.encode(value)
    except BadJson:
        return False
    return True


async def as_server(target: Target, peer: ScriptedPeer) -> tuple[int, Any]:
    """A signed question of a server whose key nobody knows yet."""
    uri = f"{V1}/query/profile?user_id={seg('@alice:one.test')}"
    authorization = peer.authorization("GET", "one.test", uri)
    status, answer = await target.ask("GET", uri, headers=[("Authorization", authorization)])
    assert status in (200, 401), f"{status} {answer}; sent: {target.shown()}"
    return status, answer


@fuzz(7)
@given(
    body=bodies,
    name=names,
    key_id=st.sampled_from(["", "ed25519:scripted", "x", "ed25519:" + "x" * 300, "%"]),
    until=st.integers() | names,
)
def test_a_question_to_us(arena: Arena, body: Body, name: str, key_id: str, until: object) -> None:
    async def attack(target: Target) -> None:
        criteria = {"minimum_valid_until_ts": target.siege.world.clock.now_ms() + 1000}
        asked = {
            "server_keys": {
                "peer.test": {"ed25519:scripted": criteria},
                "one.test": {},
                name: {key_id: criteria},
            }
        }
        await target.ask("POST", QUERY, body.of(asked), headers=[])
        tail = f"/{seg(key_id)}" if key_id else ""
        await target.ask(
            "GET", f"{QUERY}/{seg(name)}{tail}?minimum_valid_until_ts={seg(str(until))}", headers=[]
        )

    arena.run(attack, cases=2)
