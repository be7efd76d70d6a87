# SPDX-License-Identifier: Apache-2.0
"""All else that we ask other servers, answered almost rightly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from minihs.matrix.signatures import POLICY_KEY_ID, SigningKey, sign_event
from minihs.rooms.policy import DOWN_MS
from minihs.testing.hostile import Received, Reply
from tests.advisories.kit import MALLORY, V1
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.strategies import (
    RAW_ANSWERS,
    Answered,
    ByteEdit,
    JsonObject,
    TextEdit,
    answers,
    byte_edits,
    text_edits,
)
from tests.fuzz.target import Target
from tests.fuzz.test_edus import cross_signing_key, device_keys
from tests.media.peers import DOWNLOAD, multipart

POLICY_KEY = SigningKey(b"o" * 32, POLICY_KEY_ID.partition(":")[2])
ROOM = "!x:peer.test"
CLIENT_V1 = "/_matrix/client/v1"


@dataclass(frozen=True)
class Question:
    """What alice does, and what the peer is asked then and answers."""

    method: str
    path: str
    body: JsonObject | None
    asked: tuple[str, str]
    answer: Any


SUMMARY = {
    "room_id": ROOM,
    "num_joined_members": 5,
    "world_readable": True,
    "guest_can_join": False,
    "join_rule": "public",
    "name": "x",
    "avatar_url": "mxc://peer.test/x",
    "canonical_alias": "#x:peer.test",
    "allowed_room_ids": ["!y:peer.test"],
    "room_type": "m.space",
    "children_state": [
        {
            "type": "m.space.child",
            "sender": MALLORY,
            "state_key": "!y:peer.test",
            "content": {"via": ["peer.test"], "order": "a", "suggested": True},
            "origin_server_ts": 5,
        }
    ],
}
KEYS = {
    "device_keys": {MALLORY: {"D": device_keys()}},
    "master_keys": {MALLORY: cross_signing_key("master")},
    "self_signing_keys": {MALLORY: cross_signing_key("self_signing")},
}
KEY = {"key": "x" * 43, "signatures": {MALLORY: {"ed25519:D": "x" * 86}}, "fallback": True}

QUESTIONS = {
    "keys": Question(
        "POST", "/keys/query", {"device_keys": {MALLORY: []}}, ("POST", f"{V1}/user/keys/query"), KEYS
    ),
    "one-time keys": Question(
        "POST",
        "/keys/claim",
        {"one_time_keys": {MALLORY: {"D": "signed_curve25519"}}},
        ("POST", f"{V1}/user/keys/claim"),
        {"one_time_keys": {MALLORY: {"D": {"signed_curve25519:A": KEY}}}},
    ),
    "public rooms": Question(
        "POST",
        "/publicRooms?server=peer.test",
        {"limit": 5},
        ("POST", f"{V1}/publicRooms"),
        {"chunk": [SUMMARY], "next_batch": "x", "prev_batch": "y", "total_room_count_estimate": 1},
    ),
    "hierarchy": Question(
        "GET",
        f"{CLIENT_V1}/room_summary/{ROOM}?via=peer.test",
        None,
        ("GET", f"{V1}/hierarchy/"),
        {
            "room": SUMMARY,
            "children": [{**SUMMARY, "room_id": "!y:peer.test"}],
            "inaccessible_children": ["!z:peer.test"],
        },
    ),
    "profile": Question(
        "GET",
        f"/profile/{MALLORY}",
        None,
        ("GET", f"{V1}/query/profile"),
        {"displayname": "x", "avatar_url": "mxc://peer.test/x", "m.tz": "Europe/Paris"},
    ),
    "alias": Question(
        "GET",
        "/directory/room/%23x:peer.test",
        None,
        ("GET", f"{V1}/query/directory"),
        {"room_id": ROOM, "servers": ["peer.test", "x.test"]},
    ),
}


def about(number: int, value: Any) -> Any:
    """Each time about another user or room: answers are kept."""
    return json.loads(json.dumps(value).replace("mallory", f"mallory{number}").replace("!x", f"!x{number}"))


@pytest.mark.parametrize("what", list(QUESTIONS))
@fuzz(3)
@given(answer=answers, raw=st.none() | st.none() | st.none() | st.sampled_from(RAW_ANSWERS))
def test_an_answer(arena: Arena, what: str, answer: Answered, raw: bytes | None) -> None:
    question = QUESTIONS[what]

    async def attack(target: Target) -> None:
        number = next(target.numbers)
        body, said = (about(number, value) for value in (question.body, question.answer))
        target.on(*question.asked, said, answer)
        if raw is not None:
            target.scripts[question.asked] = Reply(raw=raw)
        await target.client(question.method, about(number, question.path), body)
        assert target.peer.received(question.asked[1]), "it was not asked"

    arena.run(attack)


@fuzz(3)
@given(answer=answers, raw=st.none() | st.none() | st.sampled_from(RAW_ANSWERS))
def test_an_answer_to_a_transaction(arena: Arena, answer: Answered, raw: bytes | None) -> None:
    """Whatever is said of the last one, the next goes out once the server is heard from again."""

    async def attack(target: Target) -> None:
        place = await target.room("12")
        target.on("PUT", f"{V1}/send/", {"pdus": {"$x": {"error": "no"}, "$y": {}}}, answer)
        if raw is not None:
            target.scripts["PUT", f"{V1}/send/"] = Reply(raw=raw)
        await target.siege.alice.send(place.room_id, "spoiled")
        await trio.sleep(5)
        del target.scripts["PUT", f"{V1}/send/"]
        text = f"good {next(target.numbers)}"
        await target.siege.alice.send(place.room_id, text)
        target.is_heard_from()
        for _ in range(100):
            await trio.sleep(30)
            if any(text.encode() in received.body for received in target.peer.received(f"{V1}/send/")):
                return
        raise AssertionError(f"it never went out; {target.shown()}")

    arena.run(attack)


@fuzz(3)
@given(version=st.sampled_from(["2", "12"]), answer=answers, ours=st.booleans())
def test_what_a_policy_server_says(arena: Arena, version: str, answer: Answered, ours: bool) -> None:
    async def attack(target: Target) -> None:
        place = await target.room(version)
        target.at.vital = {}  # the room is of no use to others
        await target.siege.send(target.siege.seal(target.base("policy")))

        def sign(received: Received) -> Any:
            pdu = sign_event({**received.json, "signatures": {}}, target.version, "peer.test", POLICY_KEY)
            return pdu["signatures"]

        target.on("POST", "/_matrix/policy/v1/sign", sign, answer)
        if ours:
            await target.client(
                "PUT", f"/rooms/{place.room_id}/send/m.room.message/{next(target.numbers)}", {}
            )
        else:
            await trio.sleep(DOWN_MS / 1000 + 1)  # it is not asked for a while after it failed
            await target.siege.send(target.siege.event())
        assert target.peer.received("/_matrix/policy/v1/sign"), "it was not asked"
        await target.siege.alice.sync()

    arena.run(attack)


@fuzz(3)
@given(
    version=st.sampled_from(["2", "12"]),
    edits=st.lists(byte_edits, max_size=2),
    kind=st.lists(text_edits(['"', ";", "boundary=", "é", "=", "x" * 300, "multipart/", "\t"]), max_size=2),
    location=st.none() | st.sampled_from(["https://x.test/y", "http://peer.test", "//", "https://[::1"]),
)
def test_media(
    arena: Arena, version: str, edits: list[ByteEdit], kind: list[TextEdit], location: str | None
) -> None:
    async def attack(target: Target) -> None:
        more = {} if location is None else {"Location": location}
        right = multipart(
            b"content" * 50, Content_Type="image/png", Content_Disposition='inline; filename="x"', **more
        )
        body, ((name, value),) = right.body or b"", right.headers
        for byte_edit in edits:
            body = byte_edit.apply(body)
        for text_edit in kind:
            value = text_edit.apply(value)
        value = value.encode("ascii", "ignore").decode().strip()
        target.sent.append(f"{value} {body!r}")
        target.scripts["GET", DOWNLOAD] = Reply(body=body, headers=[(name, value)])
        path = f"{CLIENT_V1}/media/download/peer.test/m{next(target.numbers)}"
        status = await target.download(path)
        assert status in (200, 400, 404, 413, 502, 504), f"{status}; {target.shown()}"

    arena.run(attack)
