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

if TYPE_CHECKING:
    from tests.interop.kit.homeserver import Homeserver
    from tests.interop.kit.peer import Peer

type JsonObject = dict[str, Any]
type Key = tuple[str, str]


class HostedRoom:
    """A room that only the peer's own users are in, ready to be joined from outside."""

    def __init__(self, factory: RoomFactory) -> None:
        assert factory.room_id is not None
        self.factory = factory
        self.room_id = factory.room_id
        self.version = factory.version
        self._frozen: bytes | None = None

    def freeze(self) -> None:
        """Writes the large part of the send_join answer now, so that no later join waits for it."""
        state = list(self.factory.state.values())
        chain = _auth_chain(state, self.factory)
        self._frozen = b'"auth_chain":%b,"state":%b' % (
            canonical.dumps([event.json for event in chain]),
            canonical.dumps([event.json for event in state]),
        )

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

    def send_join(self, pdu: JsonObject, origin: str) -> bytes:
        if self._frozen is None:
            self.freeze()
        assert self._frozen is not None
        rest = {"event": pdu, "origin": origin, "members_omitted": False, "servers_in_room": [origin]}
        return b"{" + self._frozen + b"," + canonical.dumps(rest)[1:]


def _auth_chain(state: Sequence[Event], factory: RoomFactory) -> list[Event]:
    seen: dict[str, Event] = {}
    todo = [event_id for event in state for event_id in event.auth_events]
    while todo:
        event_id = todo.pop()
        if event_id not in seen:
            seen[event_id] = factory.events[event_id]
            todo += seen[event_id].auth_events
    return list(seen.values())


class JoinedRoom:
    """A room of the server under test, seen from the peer: enough to go on building it."""

    def __init__(self, peer: Peer, room_id: str, version: RoomVersion) -> None:
        self.peer = peer
        self.room_id = room_id
        self.version = version
        self.state: dict[Key, Event] = {}
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
        for pdu in answer["state"]:
            joined._put(Event.from_wire(pdu, version))
        joined._put(event)
        joined.tip = event
        peer.events[event.event_id] = event
        peer.known_versions[room_id] = version
        return joined

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
