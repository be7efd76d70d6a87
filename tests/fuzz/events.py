# SPDX-License-Identifier: Apache-2.0
"""Good events of mallory's, and ways to sign what was made of them."""

from __future__ import annotations

from contextlib import suppress

from minihs.matrix.hashes import with_content_hash
from minihs.matrix.signatures import SigningKey, sign_event
from tests.advisories.kit import ALICE, MALLORY, Siege
from tests.fuzz.strategies import JsonObject

OTHER_KEY = SigningKey(b"o" * 32, "scripted")


def good_event(siege: Siege, kind: str, number: int) -> JsonObject:
    """Not yet sealed."""
    draft, state = siege.draft, siege.state()
    match kind:
        case "member":
            content = {"membership": "join", "displayname": "Mallory", "avatar_url": "mxc://peer.test/x"}
            return draft("m.room.member", content, MALLORY)
        case "topic":
            content = {"topic": "x", "m.topic": {"m.text": [{"body": "x", "mimetype": "text/plain"}]}}
            return draft("m.room.topic", content, "")
        case "state":
            return draft("x.y", {"n": number}, "key")
        case "redaction":
            event_id = siege.id_of(siege.event())
            return draft("m.room.redaction", {"redacts": event_id, "reason": "x"}, redacts=event_id)
        case "levels":
            event = siege.rooms.parts.graph.event(state["m.room.power_levels", ""])
            assert event is not None
            events = {**event.content.get("events", {}), "x.y": 10}
            return draft(
                "m.room.power_levels",
                {**event.content, "events": events, "notifications": {"room": 50}},
                "",
            )
        case "policy":
            content = {"via": "peer.test", "public_keys": {"ed25519": OTHER_KEY.verify_key_base64}}
            return draft("m.room.policy", content, "")
        case "acl":
            return draft(
                "m.room.server_acl", {"allow": ["*"], "deny": ["evil.test"], "allow_ip_literals": True}, ""
            )
        case "tombstone":
            return draft("m.room.tombstone", {"body": "x", "replacement_room": "!x:peer.test"}, "")
        case "guest":
            user = f"@guest{number}:peer.test"
            return draft("m.room.member", {"membership": "join"}, user, sender=user)
        case "invite":
            content = {"membership": "invite", "displayname": "x", "reason": "x"}
            return draft("m.room.member", content, f"@friend{number}:one.test")
        case "aliases":
            content = {"alias": "#x:peer.test", "alt_aliases": ["#y:peer.test"]}
            return draft("m.room.canonical_alias", content, "")
        case "rules":
            content = {"join_rule": "public", "allow": [{"type": "m.room_membership", "room_id": "!x:y"}]}
            return draft("m.room.join_rules", content, "")
        case "knock" | "join" | "leave":
            user = f"@guest{number}:peer.test"
            return draft("m.room.member", {"membership": kind, "reason": "x"}, user, sender=user)
        case _:
            relates = {"rel_type": "m.thread", "event_id": "$x", "m.in_reply_to": {"event_id": "$x"}}
            return draft(
                content={
                    "msgtype": "m.text",
                    "body": "hello",
                    "formatted_body": "<b>hello</b>",
                    "m.mentions": {"user_ids": [ALICE], "room": True},
                    "m.relates_to": relates,
                },
                unsigned={"age": 5},
            )


def sealed(siege: Siege, how: str, good: JsonObject, changed: JsonObject) -> JsonObject:
    """The event as it was changed, made to look like a whole one."""
    match how:
        case "as it was":
            right = siege.seal(good)
            return {**changed, "hashes": right["hashes"], "signatures": right["signatures"]}
        case "signed only":
            return signed(siege, {**changed, "hashes": with_content_hash(good)["hashes"]}, siege.peer.key)
        case "not signed":
            return {**siege.seal(changed), "signatures": {}}
        case "another key":
            return signed(siege, siege.seal(changed) | {"signatures": {}}, OTHER_KEY)
        case "also by others":
            right = siege.seal(changed)
            more = {"one.test": {"ed25519:1": "x" * 86}, "x.test": {"ed25519:1": "AA"}, "": {}}
            return {**right, "signatures": {**right["signatures"], **more}}
        case "foreign":
            return {**siege.seal(changed), "signatures": {"one.test": {"ed25519:1": "x" * 86}}}
        case "no hashes":
            return signed(siege, changed, siege.peer.key)
        case _:
            return siege.seal(changed)


def signed(siege: Siege, pdu: JsonObject, key: SigningKey) -> JsonObject:
    """By the peer, or with rubbish if it can't be."""
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        return sign_event(pdu, siege.forger.version, siege.peer.name, key)
    return {**pdu, "signatures": {siege.peer.name: {key.key_id: "x" * 86}}}
