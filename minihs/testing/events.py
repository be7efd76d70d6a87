# SPDX-License-Identifier: Apache-2.0
"""Rooms made of real events, for tests: hashed, signed, with the right auth events, in any room version.

    room = RoomFactory(version="11", creator="@alice:a.test")
    room.join("@bob:b.test")
    event = room.send("@bob:b.test", "m.room.message", {"body": "hello"})
    room.state["m.room.member", "@bob:b.test"]

Each event follows the one before unless `after` says otherwise; that is how forks are made. Nothing is
random: the same calls make the same events with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from minihs.matrix import hashes, unpadded
from minihs.matrix.auth_rules import auth_types_for, check_auth
from minihs.matrix.event import Event, build_event
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS, RoomVersion
from minihs.matrix.signatures import SigningKey, sign_event
from minihs.matrix.state_resolution import resolve

type Key = tuple[str, str]
type Content = dict[str, Any]

_FIRST_TS = 1_700_000_000_000


def signing_key_of(server_name: str) -> SigningKey:
    """The key with which events of that server are signed in tests: always the same for the same name."""
    return SigningKey(sha256(f"test key of {server_name}".encode()).digest(), "test")


class RoomFactory:
    """One room, with every event that was made in it."""

    def __init__(
        self,
        version: str = DEFAULT_ROOM_VERSION,
        creator: str = "@alice:a.test",
        *,
        join_rule: str | None = "public",
        power_levels: Content | None = None,
        create_content: Content | None = None,
        name: str = "room",
        bare: bool = False,
    ) -> None:
        """A room as clients make it: create, the creator's join, power levels, join rules.

        `bare` leaves all but the create event out. `power_levels` is put over the usual content. `name` makes
        two rooms different.
        """
        self.version: RoomVersion = ROOM_VERSIONS[version]
        self.creator = creator
        self.events: dict[str, Event] = {}
        """All events by id, in the order in which they were made."""
        self.rejected: set[str] = set()
        """Ids of events that state resolution is to be told were rejected."""
        self.state: dict[Key, Event] = {}
        """The state after the latest event. It changes with the room; `state_after` makes copies."""
        self.tips: tuple[str, ...] = ()
        """The forward extremities from which the next event goes on: the latest event."""
        self._name = name
        self._after: dict[str, dict[Key, Event]] = {}
        self._parents: dict[str, str | None] = {}
        self._changes: dict[str, Key] = {}
        self._keys: dict[str, SigningKey] = {}
        self._hashes: dict[str, str] = {}
        self.room_id: str | None = (
            None if self.version.room_id_is_create_hash else f"!{name}:{domain_of(creator)}"
        )
        content: Content = {"room_version": version, "test.room": name}
        if self.version.creator_in_content:
            content["creator"] = creator
        self.create = self.send(creator, "m.room.create", {**content, **(create_content or {})}, "")
        self.room_id = self.create.room_id
        if not bare:
            self.join(creator)
            self.set_power_levels(creator, **(power_levels or {}))
            if join_rule is not None:
                self.send(creator, "m.room.join_rules", {"join_rule": join_rule}, "")

    # ---- events ----

    def send(
        self,
        sender: str,
        type: str,
        content: Content,
        state_key: str | None = None,
        *,
        after: Event | Sequence[Event] | None = None,
        ts: int | None = None,
        redacts: str | None = None,
        auth_events: Iterable[Event] | None = None,
        state: Mapping[Key, Event] | None = None,
        check: bool = True,
    ) -> Event:
        """Make an event and add it to the room; it becomes the tip.

        `after` are the prev_events (default: the tip). `state` overrides the state before the event and
        `auth_events` what is selected from it. With `check`, an event that the rules forbid raises AuthError.
        """
        before_ids = self._prev_ids(after)
        before = dict(state) if state is not None else self.state_before(before_ids)
        event = self.build(
            sender,
            type,
            content,
            state_key,
            prev_events=before_ids,
            state=before,
            ts=ts,
            redacts=redacts,
            auth_events=auth_events,
        )
        if check:
            check_auth(event, before)
        self.add(event, before, along=before_ids if state is None else ())
        return event

    def build(
        self,
        sender: str,
        type: str,
        content: Content,
        state_key: str | None = None,
        *,
        prev_events: Sequence[str] | None = None,
        state: Mapping[Key, Event] | None = None,
        ts: int | None = None,
        redacts: str | None = None,
        auth_events: Iterable[Event] | None = None,
    ) -> Event:
        """Make an event as `send` does, unchecked, and leave the room as it is."""
        prev = self.tips if prev_events is None else tuple(prev_events)
        before = self.state if state is None else state
        if auth_events is None:
            wanted = auth_types_for(
                self.version, type=type, sender=sender, state_key=state_key, content=content
            )
            auth_events = [before[key] for key in wanted if key in before]
        auth_ids = [event.event_id for event in auth_events]
        event = build_event(
            version=self.version,
            room_id=None if self.room_id is None and type == "m.room.create" else self.room_id,
            type=type,
            sender=sender,
            content=content,
            state_key=state_key,
            depth=1 + max((self.events[event_id].depth for event_id in prev), default=0),
            prev_events=prev,
            auth_events=auth_ids,
            origin_server_ts=_FIRST_TS + 1000 * len(self.events) if ts is None else ts,
            redacts=redacts,
            server_name=domain_of(sender),
            key=self._key(domain_of(sender)),
            prev_hashes={event_id: self._hash(event_id) for event_id in (*prev, *auth_ids)},
            random_id=f"{self._name}{len(self.events)}",
        )
        return self._signed_by_authoriser(event)

    def add(
        self, event: Event, before: dict[Key, Event], along: Sequence[str] = (), *, rejected: bool = False
    ) -> None:
        """Take an event into the room. `before` is the state before it, which becomes the room's to change;
        `along` are its prev_events if that state is the one after them."""
        self.events[event.event_id] = event
        follows = along[0] if len(along) == 1 and along[0] in self._parents else None
        self._parents[event.event_id] = follows
        after = before
        if rejected:
            self.rejected.add(event.event_id)
        elif event.key is not None:
            after[event.key] = event
            self._changes[event.event_id] = event.key
        if follows is None:
            self._after[event.event_id] = dict(after)
        self.state = after
        self.tips = (event.event_id,)

    def state_after(self, event: Event) -> dict[Key, Event]:
        """The state after that event."""
        if self.tips == (event.event_id,):
            return dict(self.state)
        # Only the differences along a line of events are kept: collect them back to the last whole state.
        changes: dict[Key, Event] = {}
        event_id = event.event_id
        while event_id not in self._after:
            key = self._changes.get(event_id)
            if key is not None:
                changes.setdefault(key, self.events[event_id])
            parent = self._parents[event_id]
            assert parent is not None
            event_id = parent
        return {**self._after[event_id], **changes}

    def state_before(self, event_ids: Sequence[str]) -> dict[Key, Event]:
        """The state before an event that follows those, resolved. Of the tip alone it is `self.state`
        itself."""
        if tuple(event_ids) == self.tips:
            return self.state
        states = [self.state_after(self.events[event_id]) for event_id in event_ids]
        if len(states) == 1:
            return states[0]
        ids = [{key: event.event_id for key, event in state.items()} for state in states]
        resolved = resolve(self.version, ids, self)
        return {key: self.events[event_id] for key, event_id in resolved.items()}

    # ---- what tests do most ----

    def join(self, user: str, content: Content | None = None, **options: Any) -> Event:
        return self._member(user, user, "join", content, options)

    def leave(self, user: str, **options: Any) -> Event:
        return self._member(user, user, "leave", None, options)

    def knock(self, user: str, **options: Any) -> Event:
        return self._member(user, user, "knock", None, options)

    def invite(self, sender: str, user: str, **options: Any) -> Event:
        return self._member(sender, user, "invite", None, options)

    def kick(self, sender: str, user: str, **options: Any) -> Event:
        return self._member(sender, user, "leave", None, options)

    def ban(self, sender: str, user: str, **options: Any) -> Event:
        return self._member(sender, user, "ban", None, options)

    def message(self, sender: str, body: str = "hello", **options: Any) -> Event:
        return self.send(sender, "m.room.message", {"msgtype": "m.text", "body": body}, **options)

    def set_power_levels(
        self,
        sender: str,
        *,
        after: Event | Sequence[Event] | None = None,
        ts: int | None = None,
        **content: Any,
    ) -> Event:
        """Send power levels: the usual ones, with `content` over them. `users` is merged with the usual."""
        usual: Content = {
            "users": {} if self.version.privileged_creators else {self.creator: 100},
            "users_default": 0,
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": 0,
        }
        users = {**usual["users"], **content.pop("users", {})}
        return self.send(
            sender, "m.room.power_levels", {**usual, **content, "users": users}, "", after=after, ts=ts
        )

    # ---- for state resolution: the room is an EventStore ----

    def get(self, event_id: str) -> Event | None:
        return self.events.get(event_id)

    def is_rejected(self, event_id: str) -> bool:
        return event_id in self.rejected

    # ---- inside ----

    def _member(
        self, sender: str, user: str, membership: str, content: Content | None, options: dict[str, Any]
    ) -> Event:
        return self.send(
            sender, "m.room.member", {**(content or {}), "membership": membership}, user, **options
        )

    def _prev_ids(self, after: Event | Sequence[Event] | None) -> tuple[str, ...]:
        if after is None:
            return self.tips
        events = [after] if isinstance(after, Event) else after
        return tuple(event.event_id for event in events)

    def _key(self, server_name: str) -> SigningKey:
        if server_name not in self._keys:
            self._keys[server_name] = signing_key_of(server_name)
        return self._keys[server_name]

    def _hash(self, event_id: str) -> str:
        if self.version.event_format != 1:
            return ""
        if event_id not in self._hashes:
            event = self.events[event_id]
            self._hashes[event_id] = unpadded.encode(hashes.reference_hash(event.json, self.version))
        return self._hashes[event_id]

    def _signed_by_authoriser(self, event: Event) -> Event:
        """A restricted join is also signed by the server of the user who authorises it."""
        authoriser = event.content.get("join_authorised_via_users_server")
        if event.type != "m.room.member" or not isinstance(authoriser, str) or ":" not in authoriser:
            return event
        server = domain_of(authoriser)
        signed = sign_event(event.json, self.version, server, self._key(server))
        return event.with_signatures(signed["signatures"])
