# SPDX-License-Identifier: Apache-2.0
"""Asks a real Synapse for the answers that the specification does not publish, and writes them as fixtures.

Run it with the interpreter of an environment that has Synapse in it (nothing of ours is needed):

    path/to/synapse-venv/bin/python scripts/dev/make_vectors.py tests/matrix/vectors

Synapse is only called, as a black box. The inputs are ours. The output is the same for the same Synapse; the
README beside the fixtures says what is in them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import synapse
from signedjson.key import decode_signing_key_base64
from signedjson.sign import sign_json
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import (
    add_hashes_and_signatures,
    compute_content_hash,
    compute_event_reference_hash,
    redact_event_dict,
)
from synapse.events import make_event_from_dict
from synapse.federation.federation_base import event_from_pdu_json
from synapse.http.matrixfederationclient import MatrixFederationHttpClient
from unpaddedbase64 import encode_base64

Json = dict[str, Any]

VERSIONS = [str(number) for number in range(1, 13)]
SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"  # the one the specification's own vectors use
SERVER = "hs.example"
KEY = decode_signing_key_base64("ed25519", "a_1", SEED)
EVERY_KEY = [
    "aliases",
    "allow",
    "ban",
    "creator",
    "events",
    "events_default",
    "history_visibility",
    "invite",
    "join_authorised_via_users_server",
    "join_rule",
    "kick",
    "membership",
    "notifications",
    "predecessor",
    "reason",
    "redact",
    "redacts",
    "room_version",
    "state_default",
    "users",
    "users_default",
]
TYPES = [
    "m.room.member",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.aliases",
    "m.room.history_visibility",
    "m.room.name",
    "m.room.server_acl",
    "m.room.redaction",
    "m.room.encryption",
]


def events(version: str) -> dict[str, Json]:
    """Events of one room version, by name, neither hashed nor signed."""
    number = int(version)
    base: Json = {
        "sender": f"@alice:{SERVER}",
        "origin_server_ts": 1_700_000_000_000,
        "depth": 7,
        "prev_events": references(version, "prev"),
        "auth_events": references(version, "auth"),
    }
    base["room_id"] = f"!room:{SERVER}" if number < 12 else "!" + "R" * 43
    if number < 3:
        base["event_id"] = f"$event:{SERVER}"
    create: Json = {**base, "type": "m.room.create", "state_key": "", "depth": 1}
    create |= {"prev_events": [], "auth_events": []}
    if number == 12:
        del create["room_id"]

    def state(type_: str, content: Json, state_key: str = "", **extra: Any) -> Json:
        return {**base, "type": type_, "state_key": state_key, "content": content, **extra}

    everything: Json = {**dict.fromkeys(EVERY_KEY, 1), "join_authorised_via_users_server": "@b:c"}
    made = {
        "message": {**base, "type": "m.room.message", "content": {"body": "hello", "msgtype": "m.text"}},
        "create": {
            **create,
            "content": {"room_version": version, "creator": base["sender"], "m.federate": True},
        },
        "create with more": {**create, "content": {**everything, "additional_creators": ["@b:c"]}},
        "unknown type": state("org.example.thing", everything, "x"),
        "unknown top-level keys": {**base, "type": "x", "content": {}, "foo": {"bar": [1]}, "redacts": "$x"},
        "historic top-level keys": {
            **state("m.room.member", {"membership": "join"}, base["sender"]),
            "origin": SERVER,
            "membership": "join",
            "prev_state": [],
        },
        "redaction": {
            **base,
            "type": "m.room.redaction",
            **({"redacts": "$target"} if number < 11 else {}),
            "content": {"reason": "spam", **({"redacts": "$target"} if number >= 11 else {})},
        },
        "invite from a third party": state(
            "m.room.member",
            {
                "membership": "invite",
                "third_party_invite": {
                    "display_name": "b...",
                    "signed": {"mxid": "@b:c", "token": "t", "signatures": {"id": {"ed25519:0": "s"}}},
                },
            },
            "@b:c",
        ),
        "third-party invite without signed": state(
            "m.room.member", {"membership": "invite", "third_party_invite": {"display_name": "b"}}, "@b:c"
        ),
        "third-party invite not an object": state(
            "m.room.member", {"membership": "invite", "third_party_invite": "no"}, "@b:c"
        ),
        "text beyond ASCII": {
            **base,
            "type": "m.room.message",
            "content": {"body": '日本 \U0001f600 \x7f\x00\u2028"\\/', "\U0001f600": 1, "\uffff": 2, "": 3},
        },
        "integers at the limit": state(
            "m.room.power_levels", {"users": {"@a:b": 2**53 - 1, "@c:d": 1 - 2**53}}
        ),
        "nested": state("org.example.deep", {"a": [[[{"b": [None, True, False, {}, []]}]]]}),
    }
    for type_ in TYPES:
        made[f"{type_} with every key"] = state(type_, everything)
    if number < 6:
        made["floats and large integers"] = state(
            "m.room.power_levels",
            {
                "users": {"@a:b": 50.57, "@c:d": 1e300, "@e:f": 1e-7, "@g:h": -0.0},
                "ban": 2**64,
                "kick": -(2**70),
            },
        )
    return made


def references(version: str, word: str) -> list[Any]:
    if int(version) < 3:
        return [[f"${word}{n}:{SERVER}", {"sha256": "A" * 43}] for n in (1, 2)]
    return ["$" + word.ljust(42, "x") + str(n) for n in (1, 2)]


def event_vectors() -> list[Json]:
    vectors = []
    for version in VERSIONS:
        room_version = KNOWN_ROOM_VERSIONS[version]
        for name, unsigned_event in events(version).items():
            pdu = copy.deepcopy(unsigned_event)
            add_hashes_and_signatures(room_version, pdu, SERVER, KEY)
            event = make_event_from_dict(copy.deepcopy(pdu), room_version)
            redacted = redact_event_dict(room_version, copy.deepcopy(pdu))
            redacted.pop("unsigned", None)
            vector = {
                "room_version": version,
                "name": name,
                "pdu": pdu,
                "redacted": redacted,
                "content_hash": encode_base64(compute_content_hash(dict(pdu), hashlib.sha256)[1]),
                "reference_hash": encode_base64(compute_event_reference_hash(event)[1]),
                "event_id": event.event_id,
                "room_id": event.room_id,
            }
            vectors.append(vector)
    return vectors


def format_vectors() -> list[Json]:
    """In which room versions Synapse's parser of incoming PDUs takes a message that was changed so. The first
    entry holds the messages."""
    changes: list[tuple[str, Json]] = [
        ("as it should be", {}),
        ("depth is a float", {"depth": 3.0}),
        ("depth is negative", {"depth": -1}),
        ("depth is 2^63", {"depth": 2**63}),
        ("depth is true", {"depth": True}),
        ("depth is a string", {"depth": "3"}),
        ("depth is missing", {"depth": ...}),
        ("time is a float", {"origin_server_ts": 1.5}),
        ("time is beyond 64 bits", {"origin_server_ts": 2**70}),
        ("time is negative", {"origin_server_ts": -5}),
        ("time is true", {"origin_server_ts": True}),
        ("time is missing", {"origin_server_ts": ...}),
        ("hashes is missing", {"hashes": ...}),
        ("hashes is a string", {"hashes": "x"}),
        ("sha256 is a number", {"hashes": {"sha256": 5}}),
        ("signatures is a list", {"signatures": []}),
        ("state_key is null", {"state_key": None}),
        ("state_key is a number", {"state_key": 4}),
        ("type is a number", {"type": 5}),
        ("type is missing", {"type": ...}),
        ("sender is missing", {"sender": ...}),
        ("sender is a number", {"sender": 5}),
        ("sender has an empty localpart", {"sender": f"@:{SERVER}"}),
        ("content is a list", {"content": []}),
        ("content is missing", {"content": ...}),
        ("content has a float", {"content": {"a": 1.0}}),
        ("content has a large integer", {"content": {"a": 2**53}}),
        ("content has a lone surrogate", {"content": {"a": "\ud800"}}),
        ("prev_events is missing", {"prev_events": ...}),
        ("auth_events is missing", {"auth_events": ...}),
        ("prev_events holds a number", {"prev_events": [5]}),
        ("prev_events holds pairs", {"prev_events": [["$x:hs", {"sha256": "x"}]]}),
        ("prev_events holds ids", {"prev_events": ["$" + "x" * 43]}),
        ("room_id is missing", {"room_id": ...}),
        ("room_id is null", {"room_id": None}),
        ("an unknown key", {"foo": 5}),
        ("redacts is a number", {"type": "m.room.redaction", "redacts": 5}),
        ("a create event with a room_id", {"type": "m.room.create", "state_key": ""}),
        ("a create event without a room_id", {"type": "m.room.create", "state_key": "", "room_id": ...}),
        ("a create message without a room_id", {"type": "m.room.create", "room_id": ...}),
        ("event_id is missing", {"event_id": ...}),
        ("event_id is there", {"event_id": f"$x:{SERVER}"}),
    ]
    messages = {}
    for version in VERSIONS:
        messages[version] = events(version)["message"]
        add_hashes_and_signatures(KNOWN_ROOM_VERSIONS[version], messages[version], SERVER, KEY)
    vectors: list[Json] = [{"messages": messages}]
    for name, change in changes:
        accepted_in = []
        for version, message in messages.items():
            pdu = {key: value for key, value in {**message, **change}.items() if value is not ...}
            try:
                event_from_pdu_json(copy.deepcopy(pdu), KNOWN_ROOM_VERSIONS[version])
                accepted_in.append(version)
            except (SynapseError, UnicodeEncodeError):
                pass
        replace = {key: value for key, value in change.items() if value is not ...}
        remove = sorted(change.keys() - replace.keys())
        vectors.append({"name": name, "replace": replace, "remove": remove, "accepted_in": accepted_in})
    return vectors


def json_vectors() -> list[Json]:
    """Objects signed by Synapse's signer."""
    values: list[Json] = [
        {},
        {"b": [1, {"d": None, "c": True}], "a": "ü\U0001f600"},
        {"floats": [1.0, 1e16, 1e-7, 0.1, 5e-324, -0.0], "large": [2**64, -(2**80)]},
        {"signed": 1, "signatures": {"other": {"ed25519:x": "eA"}}, "unsigned": {"age": 1}},
    ]
    return [{"value": v, "signed": sign_json(copy.deepcopy(v), SERVER, KEY)} for v in values]


def request_vectors() -> list[Json]:
    """The Authorization headers that Synapse's client makes."""
    client = MatrixFederationHttpClient.__new__(MatrixFederationHttpClient)
    client.server_name = SERVER
    client.signing_key = KEY
    requests: list[tuple[str, str, str, Json | None]] = [
        ("GET", "/_matrix/federation/v1/version", "other.example", None),
        ("GET", "/_matrix/federation/v1/event/%24a%2Fb?x=1&y=%20", "other.example:8448", None),
        ("PUT", "/_matrix/federation/v1/send/1", "[::1]:8448", {"origin": SERVER, "pdus": [], "edus": []}),
        (
            "POST",
            "/_matrix/federation/v1/x",
            "1.2.3.4",
            {"float": 1e-7, "large": 2**64, "text": "ü\u2028"},
        ),
        ("PUT", "/_matrix/federation/v1/empty", "other.example", {}),
    ]
    vectors = []
    for method, uri, destination, content in requests:
        headers = client.build_auth_headers(destination.encode(), method.encode(), uri.encode(), content)
        vectors.append(
            {
                "method": method,
                "uri": uri,
                "origin": SERVER,
                "destination": destination,
                "content": content,
                "headers": [header.decode() for header in headers],
            }
        )
    return vectors


def main() -> None:
    folder = Path(sys.argv[1])
    about = {"synapse": synapse.__version__, "server_name": SERVER, "key_id": "ed25519:a_1", "seed": SEED}
    for name, vectors in {
        "events": event_vectors(),
        "formats": format_vectors(),
        "signed_json": json_vectors(),
        "requests": request_vectors(),
    }.items():
        # One vector a line: differences stay readable. ASCII, since some hold lone surrogates.
        lines = ",\n".join(json.dumps(vector, sort_keys=True) for vector in vectors)
        head = json.dumps(about)[:-1]
        (folder / f"{name}.json").write_text(f'{head}, "vectors": [\n{lines}\n]}}\n')
        print(f"{name}: {len(vectors)} vectors")


if __name__ == "__main__":
    main()
