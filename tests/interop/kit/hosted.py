# SPDX-License-Identifier: Apache-2.0
"""Rooms as the synthetic peer knows them: one that it hosts itself, and one of another server that it
has joined.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from minihs.matrix import canonical
from minihs.matrix.auth_rules import auth_types_for
from minihs.matrix.event import Event, build_event
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.testing.events import RoomFactory, signing_key_of
from tests.interop.kit.past import Past, auth_chain, pdus

if TYPE_CHECKING:
    from tests.interop.kit.homeserver import Homeserver
    from tests.interop.kit.peer import Peer

type JsonObject = dict[str, Any]
type Key = tuple[str, str]


class HostedRoom:
    """A room without users of the server under test, ready to be joined from outside. With `omits_members`
    its members are left out of a join for whoever asks for that."""

    def __init__(self, factory: RoomFactory, *, omits_members: bool = False) -> None:
        assert factory.room_id is not None
        self.factory = factory
        self.room_id = factory.room_id
        self.version = factory.version
        self.past = Past(factory.events, self._state_before)
        self.partial_joins = 0
        self._omits_members = omits_members
        self._frozen: dict[bool, bytes] = {}

    def freeze(self) -> None:
        """Writes the large part of the send_join answers now, so that no later join waits for it."""
        state = self.factory.state.items()
        servers = {domain_of(user) for kind, user in self.factory.state if kind == "m.room.member"}
        for omitted in {False, self._omits_members}:
            told = [event for key, event in state if not (omitted and key[0] == "m.room.member")]
            large = {
                b"auth_chain": pdus(auth_chain(told, self.factory.events)),
                b"members_omitted": canonical.dumps(omitted),
                b"servers_in_room": canonical.dumps(sorted(servers)),
                b"state": pdus(told),
            }
            self._frozen[omitted] = b",".join(b'"%b":%b' % (name, value) for name, value in large.items())

    def _state_before(self, event_id: str) -> dict[Key, Event]:
        """Before a join from outside, which the factory doesn't have, it is the present one."""
        event = self.factory.events.get(event_id)
        return self.factory.state if event is None else self.factory.state_before(event.prev_events)

    def template(self, user_id: str) -> JsonObject:
        content: JsonObject = {"membership": "join"}
        wanted = auth_types_for(
            self.version, type="m.room.member", sender=user_id, state_key=user_id, content=content
        )
        auth = [self.factory.state[key].event_id for key in wanted if key in self.factory.state]
        depth = max(self.factory.events[event_id].depth for event_id in self.factory.tips) + 1
        event = {
            "type": "m.room.member",
            "sender": user_id,
            "state_key": user_id,
            "room_id": self.room_id,
            "content": content,
            "prev_events": list(self.factory.tips),
            "auth_events": auth,
            "depth": depth,
            "origin": domain_of(user_id),
            "origin_server_ts": int(time.time() * 1000),
        }
        return {"room_version": self.version.version, "event": event}

    def send_join(self, pdu: JsonObject, origin: str, *, omit_members: bool) -> bytes:
        if not self._frozen:
            self.freeze()
        omitted = omit_members and self._omits_members
        self.partial_joins += omitted
        return b"{" + self._frozen[omitted] + b"," + canonical.dumps({"event": pdu, "origin": origin})[1:]


class JoinedRoom:
    """A room of the server under test, seen from the peer: enough to go on building it."""

    def __init__(self, peer: Peer, room_id: str, version: RoomVersion) -> None:
        self.peer = peer
        self.room_id = room_id
        self.version = version
        self.state: dict[Key, Event] = {}
        self.older: dict[str, Event] = {}
        """What was told at the join."""
        self.tip: Event | None = None

    @classmethod
    async def join(cls, peer: Peer, server: Homeserver, room_id: str, user_id: str) -> JoinedRoom:
        """make_join, send_join; the join is the tip afterwards."""
        room, user = quote(room_id, safe=""), quote(user_id, safe="")
        versions = "&".join(f"ver={version}" for version in ROOM_VERSIONS)
        made = await peer.ask(server, "GET", f"/_matrix/federation/v1/make_join/{room}/{user}?{versions}")
        version = ROOM_VERSIONS[made["room_version"]]
        template = made["event"]
        joined = cls(peer, room_id, version)
        event = build_event(
            version=version,
            room_id=room_id,
            type="m.room.member",
            sender=user_id,
            content={"membership": "join"},
            state_key=user_id,
            depth=template["depth"],
            prev_events=template["prev_events"],
            auth_events=template["auth_events"],
            origin_server_ts=int(time.time() * 1000),
            server_name=peer.server_name,
            key=signing_key_of(peer.server_name),
        )
        path = f"/_matrix/federation/v2/send_join/{room}/{quote(event.event_id, safe='')}"
        answer = await peer.ask(server, "PUT", path, event.json)
        for pdu in answer["auth_chain"]:
            joined._keep(Event.from_wire(pdu, version))
        for pdu in answer["state"]:
            joined._put(joined._keep(Event.from_wire(pdu, version)))
        joined._put(event)
        joined.tip = event
        peer.events[event.event_id] = event
        peer.known_versions[room_id] = version
        return joined

    def tell_past(self) -> None:
        """From now on the peer answers for the room's past, since its join, which left the state as it is."""
        self.peer.pasts[self.room_id] = Past(self.peer.events | self.older, lambda _: self.state)

    def _keep(self, event: Event) -> Event:
        self.older[event.event_id] = event
        return event

    def _put(self, event: Event) -> None:
        if event.key is not None:
            self.state[event.key] = event

    def build(
        self,
        sender: str,
        type_: str,
        content: JsonObject,
        state_key: str | None = None,
        *,
        after: Sequence[Event] | None = None,
        state: dict[Key, Event] | None = None,
    ) -> Event:
        """The next event, or one that follows `after`; `state`, the state before it, takes it up."""
        before = self.state if state is None else state
        prev = list(after) if after is not None else [self.tip] if self.tip else []
        wanted = auth_types_for(self.version, type=type_, sender=sender, state_key=state_key, content=content)
        event = build_event(
            version=self.version,
            room_id=self.room_id,
            type=type_,
            sender=sender,
            content=content,
            state_key=state_key,
            depth=1 + max(parent.depth for parent in prev),
            prev_events=[parent.event_id for parent in prev],
            auth_events=[before[key].event_id for key in wanted if key in before],
            origin_server_ts=int(time.time() * 1000),
            server_name=self.peer.server_name,
            key=signing_key_of(self.peer.server_name),
        )
        if event.key is not None:
            before[event.key] = event
        if after is None:
            self.tip = event
        self.peer.events[event.event_id] = event
        return event

    def message(self, sender: str, text: str) -> Event:
        return self.build(sender, "m.room.message", {"msgtype": "m.text", "body": text})
