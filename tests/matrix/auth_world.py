# SPDX-License-Identifier: Apache-2.0
"""A room state put together by hand, to be judged by: no signatures, made-up ids, whatever content a test
wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from minihs.matrix.auth_rules import allowing_rule, check_auth_events
from minihs.matrix.event import Event
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import ROOM_VERSIONS

CREATOR = "@creator:a.test"
ADMIN = "@admin:a.test"  # 100
MOD = "@mod:a.test"  # 50
USER = "@user:b.test"  # 0, like everybody below
OTHER = "@other:b.test"
STRANGER = "@stranger:c.test"

type Judgement = Callable[[], str]
"""The number of the rule that allows, or AuthError."""


class World:
    """One room with a few members. Tests change `state` and ask for the judgement on an event."""

    def __init__(self, version: str) -> None:
        self.version = ROOM_VERSIONS[version]
        self.made = 0
        self.state: dict[tuple[str, str], Event] = {}
        content: dict[str, Any] = {"room_version": version}
        if self.version.creator_in_content:
            content["creator"] = CREATOR
        self.room_id = "!room:a.test"
        self.create = self.event("m.room.create", CREATOR, content, "", prev_events=[])
        self.room_id = self.create.room_id
        self.put(self.create)
        users = {ADMIN: 100, MOD: 50}
        if not self.version.privileged_creators:
            users[CREATOR] = 100
        self.levels: dict[str, Any] = {"users": users}
        self.set_levels()
        self.set_join_rule("invite")
        for user in (CREATOR, ADMIN, MOD, USER, OTHER):
            self.member(user, "join")

    def event(
        self,
        type: str,
        sender: str,
        content: dict[str, Any] | None = None,
        state_key: str | None = None,
        *,
        prev_events: list[str] | None = None,
        auth_events: Iterable[Event] = (),
        room_id: str | None = None,
        signed_by: Iterable[str] = (),
        redacts: str | None = None,
    ) -> Event:
        self.made += 1
        # Long enough to look like a hash, which a room id of version 12 is made of.
        event_id = "$" + str(self.made).rjust(43, "A")
        pdu: dict[str, Any] = {
            "type": type,
            "sender": sender,
            "content": content or {},
            "depth": self.made,
            "origin_server_ts": self.made,
            "prev_events": ["$previous"] if prev_events is None else prev_events,
            "auth_events": [event.event_id for event in auth_events],
            "signatures": {server: {"ed25519:1": "sig"} for server in signed_by},
        }
        if self.version.event_format == 1:
            event_id += ":" + domain_of(sender)
            for field in ("prev_events", "auth_events"):
                pdu[field] = [[reference, {"sha256": ""}] for reference in pdu[field]]
        if state_key is not None:
            pdu["state_key"] = state_key
        if not (type == "m.room.create" and state_key == "" and self.version.room_id_is_create_hash):
            pdu["room_id"] = room_id or self.room_id
        if redacts is not None:
            pdu["redacts"] = redacts
        return Event.from_store(pdu, self.version, event_id)

    def put(self, event: Event) -> Event:
        assert event.key is not None
        self.state[event.key] = event
        return event

    def member(self, user: str, membership: str, sender: str | None = None) -> Event:
        return self.put(self.event("m.room.member", sender or user, {"membership": membership}, user))

    def set_levels(self, **content: Any) -> Event:
        """Put power levels into the state: those of the world with `content` over them."""
        self.levels = {**self.levels, **content}
        return self.put(self.event("m.room.power_levels", CREATOR, self.levels, ""))

    def set_join_rule(self, rule: Any) -> Event:
        return self.put(self.event("m.room.join_rules", CREATOR, {"join_rule": rule}, ""))

    # ---- judgements ----

    def judge(self, event: Event) -> Judgement:
        return lambda: allowing_rule(event, self.state)

    def membership(self, sender: str, target: str, membership: Any, **content: Any) -> Judgement:
        return self.judge(self.event("m.room.member", sender, {"membership": membership, **content}, target))

    def levels_event(self, sender: str, content: dict[str, Any]) -> Judgement:
        return self.judge(self.event("m.room.power_levels", sender, content, ""))

    def changed_levels(self, sender: str, **changes: Any) -> Judgement:
        """Power levels that differ in `changes` from those in the state; None removes."""
        content = {name: level for name, level in {**self.levels, **changes}.items() if level is not None}
        return self.levels_event(sender, content)

    def with_auth_events(self, auth_events: list[Event], **options: Any) -> Judgement:
        """What is said to a message of USER with these auth events."""
        return self.judge_auth_events(
            self.event("m.room.message", USER, {}, auth_events=auth_events), auth_events, **options
        )

    def judge_auth_events(self, event: Event, auth_events: list[Event], **options: Any) -> Judgement:
        rejected = options.get("rejected", frozenset())
        create = options.get("create", self.create)

        def judgement() -> str:
            check_auth_events(event, auth_events, rejected, create)
            return ""

        return judgement

    def usual_auth_events(self) -> list[Event]:
        """The right auth events of a message by USER."""
        keys = [("m.room.power_levels", ""), ("m.room.member", USER)]
        if self.version.create_event_in_auth_events:
            keys.append(("m.room.create", ""))
        return [self.state[key] for key in keys]
