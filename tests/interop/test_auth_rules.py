# SPDX-License-Identifier: Apache-2.0
"""The auth rules as Synapse has them: what one allows and the other does not splits a room.

Events and states are random, of all room versions. All levels are integers: on what is none, in rooms up to
version 9, no two servers agree.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from minihs.matrix.auth_rules import AuthError, auth_types_for, check_auth
from minihs.matrix.event import Event, build_event
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.testing.events import signing_key_of
from tests.interop.kit.synapse import synapse_python

type JsonObject = dict[str, Any]
type State = dict[tuple[str, str], Event]

RULES = Path(__file__).with_name("synapse_rules.py")
CASES = 4_000
ALICE = "@alice:a.test"
OTHERS = ["@bob:b.test", "@carol:c.test", "@dave:a.test"]
USERS = [ALICE, *OTHERS]
TYPES = ["m.room.topic", "m.room.power_levels", "m.room.redaction", "m.room.message", "m.room.server_acl"]
SCALARS = ("ban", "kick", "redact", "invite", "state_default", "events_default", "users_default")
MEMBERSHIPS = ["join", "join", "invite", "leave", "ban", "knock", "unheard_of", None]
JOIN_RULES = ["public", "invite", "knock", "restricted", "knock_restricted", "private", None]


class Cases:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._made = 0

    def next(self) -> tuple[Event, State]:
        """An event, and a state with all that it is judged by."""
        version = self._pick(list(ROOM_VERSIONS.values()))
        state = self._state(version)
        create = state["m.room.create", ""]
        type, state_key, content, sender = self._act(version, state)
        prev = [create.event_id] if self._chance(0.2) else ["$parent:a.test"]
        event = self._event(version, create.room_id, sender, type, content, state_key, prev)
        keys = auth_types_for(version, type=type, sender=sender, state_key=state_key, content=event.content)
        return event, {key: state[key] for key in [*keys, ("m.room.create", "")] if key in state}

    def _state(self, version: RoomVersion) -> State:
        content: JsonObject = {"room_version": version.version, "creator": ALICE}
        if self._chance(0.1):
            content["m.federate"] = self._chance(0.5)
        if version.privileged_creators and self._chance(0.4):
            content["additional_creators"] = [self._pick(OTHERS)]
        room_id = None if version.room_id_is_create_hash else "!room:a.test"
        create = self._event(version, room_id, ALICE, "m.room.create", content, "", [])
        state = {("m.room.create", ""): create}
        creators = [ALICE, *content.get("additional_creators", [])]
        for user in USERS:
            if user == ALICE or self._chance(0.8):
                kinds = ["join", "join", "join", "leave", "ban", "invite", *["knock"] * version.knock]
                membership = "join" if user == ALICE else self._pick(kinds)
                self._set(state, "m.room.member", user, {"membership": membership})
        if self._chance(0.85):
            levels = self._levels()
            if version.privileged_creators:
                levels["users"] = {u: n for u, n in levels.get("users", {}).items() if u not in creators}
            self._set(state, "m.room.power_levels", "", levels)
        if self._chance(0.9):
            self._set(state, "m.room.join_rules", "", {"join_rule": self._pick(JOIN_RULES)})
        return state

    def _act(self, version: RoomVersion, state: State) -> tuple[str, str | None, JsonObject, str]:
        """(type, state key, content, sender)"""
        sender = self._pick(USERS)
        if self._chance(0.45):
            content: JsonObject = {"membership": self._pick(MEMBERSHIPS)}
            if self._chance(0.2) and version.restricted_join:
                content["join_authorised_via_users_server"] = self._pick(USERS)
            # Who is invited to a room for one server only is judged by Synapse too, not by the texts.
            federates = state["m.room.create", ""].content.get("m.federate") is not False
            others = USERS if federates else [ALICE, OTHERS[-1]]
            return "m.room.member", self._pick([sender, self._pick(others)]), content, sender
        if self._chance(0.5):
            before = state.get(("m.room.power_levels", ""))
            levels = self._levels()
            if before is not None and self._chance(0.8):
                levels = {**before.content, **dict(list(levels.items())[-2:])}
            return "m.room.power_levels", "", levels, sender
        type, state_key = self._pick(
            [
                ("m.room.topic", ""),
                ("m.room.message", None),
                ("m.room.message", ""),
                ("m.room.redaction", None),
                ("m.room.aliases", self._pick(["a.test", "b.test", ""])),
                ("org.example", self._pick(USERS)),
                ("org.example", "@somebody"),
                ("m.room.third_party_invite", "token"),
                ("m.room.server_acl", ""),
                ("m.room.join_rules", ""),
            ]
        )
        return type, state_key, {}, sender

    def _levels(self) -> JsonObject:
        content: JsonObject = {name: self._level() for name in SCALARS if self._chance(0.3)}
        if self._chance(0.8):
            content["users"] = {user: self._level() for user in USERS if self._chance(0.6)}
        if self._chance(0.4):
            content["events"] = {type: self._level() for type in TYPES if self._chance(0.4)}
        if self._chance(0.2):
            content["notifications"] = {"room": self._level()}
        return content

    def _set(self, state: State, type: str, state_key: str, content: JsonObject) -> None:
        create = state["m.room.create", ""]
        sender = state_key if type == "m.room.member" else ALICE
        state[type, state_key] = self._event(
            create.version, create.room_id, sender, type, content, state_key, ["$parent:a.test"]
        )

    def _event(
        self,
        version: RoomVersion,
        room_id: str | None,
        sender: str,
        type: str,
        content: JsonObject,
        state_key: str | None,
        prev: list[str],
    ) -> Event:
        self._made += 1
        server = domain_of(sender)
        redacts = self._pick(["$x:a.test", "$x:b.test", "$x:c.test"]) if type == "m.room.redaction" else None
        event = build_event(
            version=version,
            room_id=room_id,
            type=type,
            sender=sender,
            content=content,
            state_key=state_key,
            depth=5,
            prev_events=prev,
            auth_events=[],
            origin_server_ts=self._made,
            redacts=redacts,
            server_name=server,
            key=signing_key_of(server),
            prev_hashes=dict.fromkeys(prev, ""),
            random_id=str(self._made),
        )
        authoriser = content.get("join_authorised_via_users_server")
        if authoriser is None:
            return event
        return event.with_signatures({domain_of(authoriser): {"ed25519:1": "x" * 86}})

    def _level(self) -> int:
        return self._pick([0, 1, 49, 50, 51, 99, 100, 101, -5])

    def _pick[T](self, choices: list[T]) -> T:
        return self._random.choice(choices)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


def test_what_is_allowed_is_what_synapse_allows() -> None:
    cases = Cases(1)
    asked: list[JsonObject] = []
    ours: list[str | None] = []
    for _ in range(CASES):
        event, state = cases.next()
        try:
            check_auth(event, state)
        except AuthError as error:
            ours.append(str(error))
        else:
            ours.append(None)
        judged_by = [each.json for each in state.values()]
        asked.append({"version": event.version.version, "event": event.json, "state": judged_by})
    answer = subprocess.run(
        [str(synapse_python()), str(RULES)],
        input="".join(json.dumps(case) + "\n" for case in asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    theirs = [json.loads(line) for line in answer.stdout.splitlines()]
    assert ours.count(None) > CASES // 10
    for case, mine, other in zip(asked, ours, theirs, strict=True):
        assert (mine is None) == (other is None), (mine, other, case)
