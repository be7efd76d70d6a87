# SPDX-License-Identifier: Apache-2.0
"""CVE-2025-30355: malformed events, sent to servers all over the world, stopped their federation."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, MALLORY, V1, JsonObject, Siege, siege

ANYTHING: list[Any] = [
    None, True, False, 0, -1, 7, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 1.5, "", "x", "\0", "\U0001f600",
    "x" * 256,
    "x" * 5000, [], [[]], [None], ["$x"], [["$x", {}]], [{}], {}, {"a": 1}, {"": {"": {"": []}}}, MALLORY,
    ALICE,
    "!x:peer.test", "$x:peer.test", "@:", "@a", {"sha256": 5}, {"peer.test": {"ed25519:1": 5}},
    {"membership": 5},
]  # fmt: skip
FIELDS = [
    "type", "sender", "state_key", "content", "depth", "prev_events", "auth_events", "origin_server_ts",
    "hashes",
    "signatures", "unsigned", "redacts", "event_id", "origin", "membership", "prev_state", "x.y",
]  # fmt: skip
KINDS: list[tuple[str, JsonObject, str | None]] = [
    ("m.room.message", {"msgtype": "m.text", "body": "hi"}, None),
    ("m.room.member", {"membership": "join", "displayname": "M"}, MALLORY),
    ("m.room.member", {"membership": "invite"}, ALICE),
    ("m.room.member", {"membership": "knock"}, MALLORY),
    ("m.room.power_levels", {"users": {MALLORY: 0}, "events": {"x": 1}, "ban": 50}, ""),
    ("m.room.join_rules", {"join_rule": "restricted", "allow": [{"type": "x", "room_id": "!x:y"}]}, ""),
    ("m.room.server_acl", {"allow": ["*"], "deny": ["x"], "allow_ip_literals": True}, ""),
    ("m.room.history_visibility", {"history_visibility": "shared"}, ""),
    ("m.room.third_party_invite", {"display_name": "x", "public_keys": [{"public_key": "y"}]}, "token"),
    ("m.room.redaction", {"redacts": "$x"}, None),
    ("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$x", "key": "y"}}, None),
    ("m.room.encrypted", {"m.relates_to": {"rel_type": "m.thread", "event_id": "$x"}}, None),
    ("m.room.tombstone", {"replacement_room": "!x:peer.test", "body": "x"}, ""),
    ("m.space.child", {"via": ["peer.test"], "order": "x"}, "!x:peer.test"),
    ("m.room.policy", {"via": "peer.test", "public_keys": {"ed25519": "x"}}, ""),
]


def spoil(chance: random.Random, pdu: JsonObject) -> JsonObject:
    """One to three things about it are wrong: a field of it, or of its content."""
    pdu = copy.deepcopy(pdu)
    for _ in range(chance.randint(1, 3)):
        content = pdu.get("content")
        if isinstance(content, dict) and content and chance.random() < 0.5:
            where, key = content, chance.choice(sorted(content))
        else:
            where, key = pdu, chance.choice(FIELDS)
        if chance.random() < 0.2:
            where.pop(key, None)
        else:
            where[key] = copy.deepcopy(chance.choice(ANYTHING))
    return pdu


def almost_valid(at: Siege, chance: random.Random) -> JsonObject:
    pdu = at.draft(*chance.choice(KINDS))
    if chance.random() < 0.7:
        return at.seal(spoil(chance, pdu))  # rightly signed, whatever it is
    return spoil(chance, at.seal(pdu))


@pytest.mark.parametrize("version", ["1", "6", "12"])
async def test_nothing_malformed_stops_what_is_well_formed(tmp_path: Path, version: str) -> None:
    chance = random.Random(version)
    async with siege(tmp_path, version=version) as at:
        at.answer_gaps()
        arrived = []
        at.peer.on("PUT", f"{V1}/send/", lambda received: arrived.append(received.json) or {"pdus": {}})
        for _ in range(12):
            good = at.event()
            bad = [almost_valid(at, chance) for _ in range(49)]
            place = chance.randrange(50)
            answer = await at.send(*bad[:place], good, *bad[place:])
            assert answer[at.id_of(good)] == {}
            assert at.outcome(at.id_of(good)) is Outcome.ACCEPTED
            # What may stay of the room's rules so that the next is not refused for a good reason:
            await at.alice.sync()
        assert "m.room.message" in str(await at.alice.messages(at.room))
        assert len(await at.alice.state(at.room)) >= 5
        await at.unharmed()
        await trio.sleep(60)
        assert any("still here" in str(body) for body in arrived)


async def test_the_same_by_every_answer_that_we_ask_for(tmp_path: Path) -> None:
    chance = random.Random(1)
    async with siege(tmp_path) as at:
        for round in range(6):
            bad = [almost_valid(at, chance) for _ in range(10)] + [chance.choice(ANYTHING) for _ in range(5)]
            parent = at.event()
            at.answer_gaps(
                get_missing_events={"events": [*bad, parent]},
                backfill={"pdus": bad},
                state_ids={"pdu_ids": bad, "auth_chain_ids": bad},
                state={"pdus": bad, "auth_chain": bad},
                event_auth={"auth_chain": bad},
            )
            child = at.event(prev=[at.id_of(parent), *([f"$nowhere{round}"] if round % 2 else [])])
            await at.send(child)
            if not round % 2:
                assert at.outcome(at.id_of(child)) is Outcome.ACCEPTED
            await at.alice.messages(at.room)
        await at.unharmed()
