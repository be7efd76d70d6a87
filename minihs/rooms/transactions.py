# SPDX-License-Identifier: Apache-2.0
"""Taking a transaction of another server: check what can be checked at once, stage it, answer.

The answer never waits for a slow room: PDUs that pass the first checks, and EDUs that must not be lost, are
put into the inbox in one commit, and then it is 200 (spec: server-server-api, "Transactions"). Where the room
is idle its events may have their places by that very commit (rooms/at_once.py). A repeated transaction gets
the answer that it got before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
import trio

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, forbidden, limit_exceeded
from minihs.matrix.event import Event
from minihs.matrix.hashes import id_of_refused
from minihs.matrix.ids import is_room_id
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.acl import Acls
from minihs.rooms.admission import Refused, Source, admit
from minihs.rooms.at_once import AtOnce
from minihs.rooms.parts import Parts
from minihs.rooms.placement import completes, is_settled
from minihs.rooms.receive import Receiver
from minihs.store import events, inbox, memberships, rooms
from minihs.store.database import Tx
from minihs.store.errors import is_of_the_disk
from minihs.store.events import StoredEvent
from minihs.store.rooms import Room

log = structlog.get_logger()

MAX_PDUS, MAX_EDUS = 50, 100
MAX_INBOX = 20_000
"""Rows that may wait; a full inbox answers 429."""
MAX_INBOX_OF_SERVER = 5_000
"""Rows of one server that may wait, so that it can't fill the inbox for all others."""
DISK_PAUSE = 30.0
"""Seconds until EDUs that could not be handled for want of disk are tried again."""

type EduHandler = Callable[[str, JsonObject], Awaitable[None]]
"""Called with the origin and the EDU's content; checks everything about it itself."""


class Transactions:
    def __init__(
        self,
        parts: Parts,
        acls: Acls,
        receiver: Receiver,
        *,
        durable: Mapping[str, EduHandler],
        fleeting: Mapping[str, EduHandler],
    ) -> None:
        self._parts = parts
        self._acls = acls
        self._receiver = receiver
        self._at_once = AtOnce(parts, receiver)
        self._durable = durable
        self._fleeting = fleeting
        self._in_flight: dict[tuple[str, str], trio.Event] = {}
        self._edu_news = trio.Event()
        parts.db.on_commit(self._see_commit)

    def _see_commit(self, keys: frozenset[str]) -> None:
        if "inbox-edus" in keys:
            self._edu_news.set()

    async def receive(self, origin: str, txn_id: str, body: JsonObject) -> JsonObject:
        """The answer to PUT /send/{txnId}. Raises MatrixError for a transaction that is wrong as a whole."""
        pdus, edus = _parse(body, origin)
        while (waiting := self._in_flight.get((origin, txn_id))) is not None:
            await waiting.wait()
        self._in_flight[origin, txn_id] = trio.Event()
        try:
            before = inbox.answer_of(self._parts.db.read, origin, txn_id)
            if before is not None:
                answer: JsonObject = canonical.loads(before.encode())
                return answer
            check_inbox_has_room(self._parts, origin, len(pdus) + len(edus))
            with self._parts.turns.request(origin):
                return await self._take(origin, txn_id, pdus, edus)
        finally:
            self._in_flight.pop((origin, txn_id)).set()

    async def _take(self, origin: str, txn_id: str, pdus: list[Any], edus: list[Any]) -> JsonObject:
        results: dict[str, JsonObject] = {}
        staged = await self._check_pdus(origin, pdus, results)
        if canonical.is_too_deep(edus, canonical.MAX_DEPTH + 1):  # one look at all costs half
            edus = [edu for edu in edus if _is_readable(edu, origin)]
        durable = [edu for edu in edus if _edu_type(edu) in self._durable]
        answer = {"pdus": results}
        now = self._parts.now()

        def write(tx: Tx, events: Sequence[Event]) -> dict[str, int]:
            inbox.remember_answer(tx, origin, txn_id, canonical.dumps(answer).decode(), now)
            firsts = inbox.stage_pdus(tx, list(map(to_stage, events)), origin, now)
            for edu in durable:
                inbox.stage_edu(tx, origin, canonical.dumps(edu), now)
            return firsts

        # Whoever works on the inbox is woken by the commit: this task may be cancelled (the peer hung up)
        # though its write is done.
        await self._parts.turns.give_way(origin, trio.current_time())
        if not await self._at_once.take(staged, origin, write):
            self._receiver.have_parsed(staged)
            self._parts.turns.expect({event.room_id for event in staged}, origin)
            firsts = await self._parts.db.write(lambda tx: write(tx, staged))
            for room_id, seq in firsts.items():
                self._parts.turns.hand_to(room_id, origin, seq)
        for edu in edus:
            handler = self._fleeting.get(_edu_type(edu))
            if handler is not None:
                await self._handle_edu(handler, origin, edu)
        return answer

    async def take_fetched(self, host: str, pdus: list[Any]) -> None:
        """PDUs that we asked a server for, taken in as if it had sent them."""
        staged = await self._check_pdus(host, pdus, {})
        now = self._parts.now()

        waiting = list(map(to_stage, staged))
        if waiting:
            await self._parts.db.write(lambda tx: inbox.stage_pdus(tx, waiting, host, now))

    async def _check_pdus(self, origin: str, pdus: list[Any], results: dict[str, JsonObject]) -> list[Event]:
        """Checks 1–3 and the ACL of the sending server. Fills in results, returns what is to be staged."""
        staged: list[Event] = []
        for (room_id, version_name), of_room in self._by_room(pdus).items():
            version = ROOM_VERSIONS[version_name]
            denied = not self._acls.allows(room_id, origin)
            admitted = await admit(
                of_room,
                version,
                room_id,
                Source.TRANSACTION,
                keys=self._parts.keys,
                runtime=self._parts.runtime,
                pause=partial(self._parts.turns.after_step, origin),
            )
            room = rooms.get(self._parts.db.read, room_id)
            self._parts.graph.stored_many([event.event_id for event in admitted if isinstance(event, Event)])
            for pdu, result in zip(of_room, admitted, strict=True):
                if isinstance(result, Event):
                    event_id: str | None = result.event_id
                else:
                    event_id = id_of_refused(pdu, version)
                    log.info(
                        "refused a PDU", origin=origin, event_id=event_id, room=room_id, reason=result.text
                    )
                if event_id is None:
                    continue
                if denied:
                    results[event_id] = {"error": "Denied by the room's server ACL."}
                elif isinstance(result, Refused):
                    results[event_id] = {"error": result.text}
                else:
                    results[event_id] = {}
                    if self._is_wanted(result, room):
                        staged.append(result)
        return staged

    def _by_room(self, pdus: list[Any]) -> dict[tuple[str, str], list[Any]]:
        """By room and the version to read them by. Those of rooms that we never heard of are dropped; they
        have no id to answer under.
        """
        found: dict[tuple[str, str], list[Any]] = {}
        known: dict[str, Room | None] = {}
        for pdu in pdus:
            room_id = pdu.get("room_id") if isinstance(pdu, dict) else None
            if isinstance(room_id, str) and (room_id in known or is_room_id(room_id)):
                if room_id not in known:
                    known[room_id] = rooms.get(self._parts.db.read, room_id)
                version = self._version_for(room_id, known[room_id], pdu)
                if version is not None and version in ROOM_VERSIONS:
                    found.setdefault((room_id, version), []).append(pdu)
        return found

    def _version_for(self, room_id: str, room: Room | None, pdu: JsonObject) -> str | None:
        joining = self._receiver.joining.get(room_id)
        if joining is not None:
            return joining
        if room is None or room.resident:
            return None if room is None else room.version
        # What may end an invite or knock is of the version that came with that.
        held = self._held(room.room_nid, pdu.get("state_key"))
        return room.version if held is None else held.event.version.version

    def _held(self, room_nid: int, user_id: object) -> StoredEvent | None:
        """The invite or knock of a user of ours that we hold out of band."""
        if not isinstance(user_id, str) or not self._parts.is_ours(user_id):
            return None
        held = memberships.get(self._parts.db.read, room_nid, user_id)
        if held is None or held.membership not in ("invite", "knock"):
            return None
        return events.get_nids(self._parts.db.read, [held.event_nid]).get(held.event_nid)

    def _is_wanted(self, event: Event, room: Room | None) -> bool:
        """Not what we have; of rooms that we are not in only what may end an invite or knock of ours."""
        if event.room_id in self._receiver.joining:
            return True
        if room is not None and room.resident:
            graph = self._parts.graph
            return not is_settled(graph, event) or completes(graph, event)
        return (
            room is not None
            and event.type == "m.room.member"
            and self._held(room.room_nid, event.state_key) is not None
        )

    # -- EDUs --------------------------------------------------------------------------------------

    async def run_edus(self) -> None:
        """Hand staged EDUs to their handlers, one by one; what a handler fails on is logged and dropped."""
        while True:
            self._edu_news = trio.Event()
            try:
                while staged := inbox.next_edus(self._parts.db.read, 100):
                    for item in staged:
                        edu = canonical.loads(item.json)
                        handler = self._durable.get(_edu_type(edu))
                        if handler is not None:
                            await self._handle_edu(handler, item.origin, edu)
                    await self._remove([item.seq for item in staged])
            except Exception as error:
                if not is_of_the_disk(error):
                    raise
                log.error("EDUs wait for the disk", exc_info=error)
                await trio.sleep(DISK_PAUSE)
                continue
            await self._edu_news.wait()

    async def _remove(self, seqs: list[int]) -> None:
        await self._parts.db.write(lambda tx: inbox.remove_all(tx, seqs))

    async def _handle_edu(self, handler: EduHandler, origin: str, edu: JsonObject) -> None:
        content = edu.get("content")
        if not isinstance(content, dict):
            return
        try:
            await handler(origin, content)
        except Exception as error:  # the boundary of one EDU
            if is_of_the_disk(error):
                raise
            log.warning("an EDU could not be handled", origin=origin, type=_edu_type(edu), exc_info=error)


def _parse(body: JsonObject, origin: str) -> tuple[list[Any], list[Any]]:
    claimed = body.get("origin", origin)
    if claimed != origin:
        raise forbidden("The transaction's origin is not the server that sent it.")
    pdus, edus = body.get("pdus", []), body.get("edus", [])
    if not isinstance(pdus, list) or not isinstance(edus, list):
        raise bad_json("pdus and edus must be lists.")
    if len(pdus) > MAX_PDUS:
        raise bad_json(f"A transaction holds at most {MAX_PDUS} PDUs.")
    if len(edus) > MAX_EDUS:
        raise bad_json(f"A transaction holds at most {MAX_EDUS} EDUs.")
    return pdus, edus


def check_inbox_has_room(parts: Parts, origin: str, more: int) -> None:
    """May that many rows of this server be put into the inbox? Raises M_LIMIT_EXCEEDED."""
    waiting = inbox.size(parts.db.read)
    if waiting + more > MAX_INBOX or (
        waiting + more > MAX_INBOX_OF_SERVER
        and inbox.size_of(parts.db.read, origin) + more > MAX_INBOX_OF_SERVER
    ):
        raise limit_exceeded(30_000, "This server is busy with what came before.")


def to_stage(event: Event) -> inbox.Pdu:
    """An event that is admitted as a row of the inbox."""
    return inbox.Pdu(event.room_id, event.event_id, event.text or canonical.dumps(event.json))


def _edu_type(edu: object) -> str:
    kind = edu.get("edu_type") if isinstance(edu, dict) else None
    return kind if isinstance(kind, str) else ""


def _is_readable(edu: object, origin: str) -> bool:
    """Whether an EDU is as shallow as what is read again from the inbox has to be."""
    if not canonical.is_too_deep(edu):
        return True
    log.info("refused an EDU", origin=origin, type=_edu_type(edu), reason="nested too deeply")
    return False
