# SPDX-License-Identifier: Apache-2.0
"""What a joined user does in a room: create it, send, set state, redact. Each is one job of the room's
task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param
from minihs.matrix.event import Event
from minihs.matrix.ids import is_room_alias
from minihs.matrix.relations import ANNOTATION, relation_of
from minihs.rooms.batch import Batch
from minihs.rooms.compose import allow, build, compose
from minihs.rooms.creation import Plan
from minihs.rooms.entry import ClientTxn, Entry
from minihs.rooms.head import Head
from minihs.rooms.parts import Parts
from minihs.rooms.policy import policy_server_of
from minihs.rooms.publish import publish
from minihs.rooms.relations import check_relation
from minihs.rooms.state import StateRef
from minihs.store import aliases, client_txns, memberships, rooms
from minihs.store.database import Tx
from minihs.store.events import Outcome

_OWN_VERBS = {
    "m.room.create": "it stands at the beginning of a room",
    "m.room.redaction": "use the redact endpoint",
}


@dataclass(slots=True)
class _Wish:
    """What a client asks to be sent."""

    sender: str
    room_id: str
    type: str
    content: JsonObject
    state_key: str | None
    redacts: str | None
    txn: ClientTxn | None
    ts: int | None

    @property
    def is_simple(self) -> bool:
        """Whether it neither changes the room nor depends on what else is sent at the same time."""
        if self.state_key is not None or self.type == "m.room.redaction":
            return False
        relation = relation_of(self.type, None, self.content)
        return relation is None or relation.rel_type != ANNOTATION


class Sending:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def send(
        self,
        sender: str,
        room_id: str,
        type: str,
        content: JsonObject,
        *,
        state_key: str | None = None,
        redacts: str | None = None,
        txn: ClientTxn | None = None,
        ts: int | None = None,
    ) -> str:
        """The event id; that of the first time for a repeated request. Raises MatrixError."""
        if type in _OWN_VERBS and (type == "m.room.create" or state_key is not None):
            raise forbidden(f"{type} can't be sent like this: {_OWN_VERBS[type]}.")
        try:
            canonical.check_strict(content)
        except canonical.BadJson as error:
            raise bad_json(f"The content can't be part of an event: {error}") from error
        wish = _Wish(sender, room_id, type, content, state_key, redacts, txn, ts)
        if wish.is_simple:
            return await self._parts.tasks.run_together(
                room_id, self._send_all, wish, shares=lambda: self._can_share(room_id), between=True
            )
        return await self._parts.tasks.run(room_id, lambda: self._send(wish), between=True)

    async def _send(self, wish: _Wish) -> str:
        before = self._made_before(wish)
        if before is not None:
            return before
        sender, room_id, type, content = wish.sender, wish.room_id, wish.type, wish.content
        head = self._joined_head(sender, room_id)
        if wish.state_key is not None:
            self._check_alias_event(room_id, type, content)
            same = self._same_state(head, sender, type, wish.state_key, content)
            if same is not None:
                return same
        else:
            check_relation(self._parts.db.read, head.room_nid, sender, type, content)
        return await publish(
            self._parts,
            head,
            sender=sender,
            type=type,
            content=content,
            state_key=wish.state_key,
            redacts=wish.redacts,
            txn=wish.txn,
            ts=wish.ts,
        )

    def _can_share(self, room_id: str) -> bool:
        """Whether messages of this room can be written by one commit: not if somebody has to be asked about
        each of them, or what our head does not say has to be looked up.
        """
        kept = self._parts.heads.get(room_id)
        return kept is not None and not kept.partial and policy_server_of(self._parts.graph, kept) is None

    async def _send_all(self, wishes: Sequence[_Wish]) -> list[str | Exception]:
        """Simple ones, in one commit: they came while the room was busy."""
        if len(wishes) == 1:
            return [await self._send(wishes[0])]
        parts = self._parts
        batch = parts.batch(parts.take_head(wishes[0].room_id))
        answers: list[str | Exception] = []
        made: dict[ClientTxn | None, str] = {}
        try:
            for wish in wishes:
                answer = self._add(batch, wish, made)
                if wish.txn and isinstance(answer, str):
                    made[wish.txn] = answer
                answers.append(answer)
            await batch.commit()
        except BaseException:
            batch.discard()
            raise
        return answers

    def _add(self, batch: Batch, wish: _Wish, made: Mapping[ClientTxn | None, str]) -> str | Exception:
        """The id of the event, now in the batch or made before, or what is wrong with it."""
        parts, head = self._parts, batch.head
        try:
            before = made.get(wish.txn) or self._made_before(wish)
            if before is not None:
                return before
            if head.membership(parts.graph, wish.sender) != "join":
                raise _not_joined()
            check_relation(parts.db.read, head.room_nid, wish.sender, wish.type, wish.content)
            entry = compose(
                parts,
                batch,
                sender=wish.sender,
                type=wish.type,
                content=wish.content,
                txn=wish.txn,
                ts=wish.ts,
            )
        except Exception as error:  # noqa: BLE001 - raised to whom it concerns; the batch is as before
            return error
        return entry.event.event_id

    def _made_before(self, wish: _Wish) -> str | None:
        """The event that the same request made the first time."""
        txn = wish.txn
        if txn is None:
            return None
        return client_txns.find(self._parts.db.read, txn.user_id, txn.device_id, txn.scope, txn.txn_id)

    def _joined_head(self, sender: str, room_id: str) -> Head:
        """The room's head if the user is joined to it; else M_FORBIDDEN, whether or not the room exists."""
        kept = self._parts.heads.get(room_id)
        if kept is not None and kept.partial is None:
            if kept.membership(self._parts.graph, sender) != "join":
                raise _not_joined()
            return self._parts.take_head(room_id)
        room = rooms.get(self._parts.db.read, room_id)
        held = None if room is None else memberships.get(self._parts.db.read, room.room_nid, sender)
        if room is None or not room.resident or held is None or held.membership != "join":
            raise _not_joined()
        return self._parts.take_head(room_id)

    def _same_state(
        self, head: Head, sender: str, type: str, state_key: str, content: JsonObject
    ) -> str | None:
        """Setting state to what it is changes nothing."""
        event_id = self._parts.graph.lookup(head.current, (type, state_key))
        event = None if event_id is None else self._parts.graph.event(event_id)
        if event is None or event.sender != sender or event.content != content:
            return None
        # In Python 1 == True == 1.0; in JSON they differ.
        same = canonical.encode(event.content) == canonical.encode(content)
        return event.event_id if same else None

    def _check_alias_event(self, room_id: str, type: str, content: JsonObject) -> None:
        """A canonical alias must be one that points to the room (spec: PUT state, M_BAD_ALIAS)."""
        if type != "m.room.canonical_alias":
            return
        alternatives = content.get("alt_aliases", [])
        if not isinstance(alternatives, list):
            raise invalid_param("alt_aliases must be a list of room aliases.")
        named = [content.get("alias"), *alternatives]
        for alias in named:
            if alias in (None, ""):
                continue
            if not is_room_alias(alias):
                raise invalid_param("That is no room alias.")
            if self._parts.is_ours(alias) and aliases.resolve(self._parts.db.read, alias) != room_id:
                raise MatrixError(400, "M_BAD_ALIAS", f"The alias {alias} does not point to this room.")

    async def create(self, creator: str, plan: Plan, profile: JsonObject) -> str:
        """Make the room, all but its invites, in one commit. Returns the room id."""
        # One after the other: `_create_event` looks whether the room is there already.
        job = f"new room of {creator}"
        return await self._parts.tasks.run(job, lambda: self._create(creator, plan, profile))

    async def _create(self, creator: str, plan: Plan, profile: JsonObject) -> str:
        parts = self._parts
        room_id = None
        if not plan.version.room_id_is_create_hash:
            room_id = f"!{parts.runtime.random.token_urlsafe(13)}:{parts.our_name}"
        create = self._create_event(creator, plan, room_id)
        head = Head(create.room_id, 0, plan.version)
        batch = parts.batch(head)
        allow(parts, head, create, StateRef())
        entry = Entry(create, Outcome.ACCEPTED, parts.now(), before=StateRef(), topo=1)
        assert entry.before is not None  # noqa: S101  (set above)
        entry.after = entry.before.with_event(create)
        batch.accept(entry)
        self._compose_rest(batch, creator, plan, profile)
        now = parts.now()

        def list_it(tx: Tx) -> None:
            if plan.alias is not None and not aliases.add(tx, plan.alias, create.room_id, creator, now):
                raise MatrixError(400, "M_ROOM_IN_USE", "The alias is taken.")
            rooms.set_published(tx, head.room_nid, plan.published)

        batch.also = list_it
        await batch.commit()
        return create.room_id

    def _create_event(self, creator: str, plan: Plan, room_id: str | None) -> Event:
        """From version 12 on the room's id is the event's hash: two rooms that somebody creates in the same
        millisecond would be one."""
        ts = self._parts.time_to_sign()
        while True:
            create = build(
                self._parts,
                plan.version,
                room_id,
                sender=creator,
                type="m.room.create",
                content=plan.creation_content,
                state_key="",
                depth=1,
                prev_events=[],
                auth_events=[],
                ts=ts,
            )
            if rooms.room_nid(self._parts.db.read, create.room_id) is None:
                return create
            ts += 1

    def _compose_rest(self, batch: Batch, creator: str, plan: Plan, profile: JsonObject) -> None:
        compose(
            self._parts,
            batch,
            sender=creator,
            type="m.room.member",
            state_key=creator,
            content={**profile, "membership": "join"},
            hosts=(),
        )
        for event in plan.events:
            compose(
                self._parts,
                batch,
                sender=creator,
                type=event.type,
                state_key=event.state_key,
                content=event.content,
                hosts=(),
            )


def _not_joined() -> MatrixError:
    return forbidden("You are not joined to this room.")
