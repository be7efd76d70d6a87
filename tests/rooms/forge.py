# SPDX-License-Identifier: Apache-2.0
"""A peer that can make any PDU: it has a key that the others believe, sits in the room, and lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minihs.matrix import hashes
from minihs.matrix.auth_rules import auth_types_for
from minihs.matrix.canonical import BadJson
from minihs.matrix.event import Event
from minihs.matrix.hashes import event_id_of
from minihs.matrix.ids import domain_of, is_event_id
from minihs.matrix.room_versions import RoomVersion
from minihs.matrix.signatures import sign_event
from minihs.rooms.service import Rooms
from tests.rooms.world import World

type JsonObject = dict[str, Any]


@dataclass
class Forger:
    """Its view of the room is that of one of the real servers."""

    world: World
    name: str
    view: str
    room_id: str
    made: int = 0

    @property
    def server(self) -> Rooms:
        return self.world.servers[self.view]

    @property
    def version(self) -> RoomVersion:
        return self.server.parts.head(self.room_id).version

    @property
    def tips(self) -> list[str]:
        return sorted(self.server.parts.head(self.room_id).tips)[:10]

    def draft(
        self,
        type: str,
        sender: str,
        content: JsonObject | None = None,
        state_key: str | None = None,
        *,
        prev: Sequence[str] | None = None,
        auth: Iterable[str] | None = None,
        room_id: str | None = None,
        **fields: Any,
    ) -> JsonObject:
        """An event that is right in all but hash and signature, unless told otherwise."""
        self.made += 1
        content = {} if content is None else content
        prev = self.tips if prev is None else prev
        pdu: JsonObject = {
            "type": type,
            "sender": sender,
            "room_id": room_id or self.room_id,
            "content": content,
            "depth": 100 + self.made,
            "origin_server_ts": self.world.clock.now_ms(),
            "prev_events": self.references(prev),
            "auth_events": self.references(
                self.auth_events(type, sender, state_key, content) if auth is None else auth
            ),
        }
        if state_key is not None:
            pdu["state_key"] = state_key
        if self.version.event_format == 1:
            pdu["event_id"] = f"$forged{self.made}:{domain_of(sender)}"
        return pdu | fields

    def auth_events(self, type: str, sender: str, state_key: str | None, content: JsonObject) -> list[str]:
        keys = auth_types_for(self.version, type=type, sender=sender, state_key=state_key, content=content)
        state = self.state
        return [state[key] for key in keys if key in state]

    @property
    def state(self) -> dict[tuple[str, str], str]:
        head = self.server.parts.head(self.room_id)
        return self.server.parts.graph.full(head.current)

    def references(self, event_ids: Iterable[str]) -> list[Any]:
        if self.version.event_format == 1:
            return [[event_id, {"sha256": "x" * 43}] for event_id in event_ids]
        return list(event_ids)

    def seal(self, pdu: JsonObject, *signers: str) -> JsonObject:
        """With its hash, signed by `signers` or else by this peer. What can't be hashed gets rubbish."""
        pdu = {key: value for key, value in pdu.items() if key not in ("hashes", "signatures")}
        try:
            pdu = hashes.with_content_hash(pdu)
            for name in signers or (self.name,):
                pdu = sign_event(pdu, self.version, name, self.world.keys[name])
        except (BadJson, TypeError, AttributeError):
            pdu |= {"hashes": {"sha256": "x" * 43}, "signatures": {self.name: {"ed25519:1": "x" * 86}}}
        return pdu

    def has_id(self, pdu: JsonObject) -> bool:
        return self.id_of(pdu) != "$" + "A" * 43

    def id_of(self, pdu: JsonObject) -> str:
        try:
            event_id = event_id_of(pdu, self.version)
        except (ValueError, TypeError, KeyError, AttributeError):
            event_id = None
        return event_id if is_event_id(event_id) else "$" + "A" * 43

    def event(self, pdu: JsonObject) -> Event:
        return Event.from_wire(pdu, self.version)

    def state_answer(self) -> tuple[list[JsonObject], list[JsonObject]]:
        """What /state says of the room now: (state, auth chain)."""
        graph = self.server.parts.graph
        found = [graph.event(event_id) for event_id in self.state.values()]
        state = [event for event in found if event is not None]
        chain: dict[str, Event] = {}
        waiting = list(state)
        while waiting:
            for auth_id in waiting.pop().auth_events:
                event = graph.event(auth_id)
                if event is not None and auth_id not in chain:
                    chain[auth_id] = event
                    waiting.append(event)
        return [event.json for event in state], [event.json for event in chain.values()]

    def state_ids_answer(self) -> tuple[list[str], list[str]]:
        state, chain = self.state_answer()
        return [self.id_of(pdu) for pdu in state], [self.id_of(pdu) for pdu in chain]


def rows_of(server: Rooms) -> dict[str, int]:
    """event id → outcome, of everything that is stored."""
    return dict(
        server.parts.db.read.execute(
            "SELECT i.event_id, e.outcome FROM events e JOIN event_ids i USING (event_nid)"
        ).fetchall()
    )


def inbox_of(server: Rooms) -> dict[str, int]:
    """event id → attempts, of PDUs that wait."""
    return dict(
        server.parts.db.read.execute("SELECT event_id, attempts FROM inbox WHERE kind = 0").fetchall()
    )
