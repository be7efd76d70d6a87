# SPDX-License-Identifier: Apache-2.0
"""EDUs of every type that are almost valid: the others of the transaction come through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from minihs.matrix import unpadded
from tests.advisories.kit import ALICE, MALLORY, V1
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.strategies import (
    Answered,
    Edit,
    JsonObject,
    edited,
    few_edits,
    mostly_right_answers,
    odd_values,
    some_edits,
    spoiled,
)
from tests.fuzz.target import Target

KINDS = [
    *("m.typing", "m.receipt", "m.presence", "m.direct_to_device", "m.device_list_update"),
    *("m.signing_key_update", "org.matrix.signing_key_update", "x.unknown"),
]
PUBLIC = unpadded.encode(b"k" * 32)


@dataclass(frozen=True)
class Edu:
    kind: str
    content: Sequence[Edit] = ()
    """Changes to the content."""
    edits: Sequence[Edit] = ()
    """Changes to all of it."""


edus = st.builds(Edu, st.sampled_from(KINDS), some_edits) | st.builds(
    Edu, st.sampled_from(KINDS), few_edits, some_edits
)


def device_keys() -> JsonObject:
    return {
        "user_id": MALLORY,
        "device_id": "D",
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {"ed25519:D": PUBLIC, "curve25519:D": PUBLIC},
        "signatures": {MALLORY: {"ed25519:D": "x" * 86}},
    }


def cross_signing_key(usage: str) -> JsonObject:
    return {
        "user_id": MALLORY,
        "usage": [usage],
        "keys": {f"ed25519:{PUBLIC}": PUBLIC},
        "signatures": {MALLORY: {f"ed25519:{PUBLIC}": "x" * 86}},
    }


def right(target: Target, kind: str) -> JsonObject:
    """The content of a right EDU."""
    room = target.at.room_id
    number = next(target.numbers)
    match kind:
        case "m.typing":
            return {"room_id": room, "user_id": MALLORY, "typing": True}
        case "m.receipt":
            read = {"data": {"ts": 5, "thread_id": "main"}, "event_ids": [target.siege.forger.tips[0]]}
            return {room: {"m.read": {MALLORY: read}}}
        case "m.presence":
            push = {"user_id": MALLORY, "presence": "online", "last_active_ago": 5, "currently_active": True}
            return {"push": [{**push, "status_msg": "x"}]}
        case "m.direct_to_device":
            messages = {ALICE: {"*": {"a": "b"}}}
            return {"sender": MALLORY, "type": "x.z", "message_id": f"m{number}", "messages": messages}
        case "m.device_list_update":
            return {
                "user_id": MALLORY,
                "device_id": "D",
                "stream_id": number,
                "prev_id": [number - 1],
                "deleted": False,
                "device_display_name": "phone",
                "keys": device_keys(),
            }
        case "m.signing_key_update" | "org.matrix.signing_key_update":
            return {
                "user_id": MALLORY,
                "master_key": cross_signing_key("master"),
                "self_signing_key": cross_signing_key("self_signing"),
            }
        case _:
            return {"a": "b"}


def made(target: Target, case: Edu) -> Any:
    content = edited(right(target, case.kind), case.content)
    return edited({"edu_type": case.kind, "content": content}, case.edits)


LARGE = Edu(
    "m.typing",
    [
        Edit((0,), "nest", size=3),
        Edit((0,), "blow up", size=4000),
        Edit((0, 0, 0), "blow up", size=300),
    ],
)
"""14 MB: no two of these fit into a transaction."""


@fuzz(10)
@example(cases=[LARGE, LARGE], version="12", answer=Answered())
@given(
    cases=st.lists(edus | odd_values, min_size=2, max_size=8),
    version=st.sampled_from(["2", "12"]),
    answer=mostly_right_answers,
)
def test_edus(arena: Arena, cases: Sequence[Any], version: str, answer: Answered) -> None:
    """A change of devices has us ask for them: the answer is almost valid, too."""

    async def attack(target: Target) -> None:
        await target.room(version)
        devices: JsonObject = {
            "user_id": MALLORY,
            "stream_id": next(target.numbers),
            "devices": [{"device_id": "D", "device_display_name": "x", "keys": device_keys()}],
            "master_key": cross_signing_key("master"),
            "self_signing_key": cross_signing_key("self_signing"),
        }
        target.on("GET", f"{V1}/user/devices/", devices, answer)
        query = {
            "device_keys": {MALLORY: {"D": device_keys()}},
            "master_keys": {MALLORY: cross_signing_key("master")},
        }
        target.on("POST", f"{V1}/user/keys/query", query, answer)
        sent = [made(target, case) if isinstance(case, Edu) else case for case in cases]
        await target.send([], sent)
        status, found = await target.client("POST", "/keys/query", {"device_keys": {MALLORY: []}})
        assert status == 200, found

    arena.run(attack, cases=len(cases) + spoiled(answer))
