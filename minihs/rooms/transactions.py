# SPDX-License-Identifier: Apache-2.0
"""Taking a transaction of another server: check what can be checked at once, stage it, answer.

The answer never waits for a room: PDUs that pass the first checks, and EDUs that must not be lost, are put
into the inbox in one commit, and then it is 200 (spec: server-server-api, "Transactions"). A repeated
transaction gets the answer that it got before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
import trio

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, forbidden, limit_exceeded
from minihs.matrix.event import Event
from minihs.matrix.hashes import event_id_of
from minihs.matrix.ids import is_room_id
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.rooms.acl import Acls
from minihs.rooms.admission import Refused, admit
from minihs.rooms.parts import Parts
from minihs.rooms.placement import is_settled
from minihs.rooms.receive import Receiver
from minihs.store import inbox, memberships, rooms
from minihs.store.database import Tx

log = structlog.get_logger()

MAX_PDUS, MAX_EDUS = 50, 100
MAX_INBOX = 20_000
"""Rows that may wait; a full inbox answers 429."""

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
        self._durable = durable
        self._fleeting = fleeting
        self._in_flight: dict[tuple[str, str], trio.Event] = {}
        self._edu_news = trio.Event()

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
            if inbox.size(self._parts.db.read) + len(pdus) + len(edus) > MAX_INBOX:
                raise limit_exceeded(30_000, "This server is busy with what came before.")
            return await self._take(origin, txn_id, pdus, edus)
        finally:
            self._in_flight.pop((origin, txn_id)).set()

    async def _take(self, origin: str, txn_id: str, pdus: list[Any], edus: list[Any]) -> JsonObject:
        results: dict[str, JsonObject] = {}
        staged = await self._check_pdus(origin, pdus, results)
        durable = [edu for edu in edus if _edu_type(edu) in self._durable]
        answer = {"pdus": results}
        now = self._parts.now()

        def write(tx: Tx) -> set[str]:
            inbox.remember_answer(tx, origin, txn_id, canonical.dumps(answer).decode(), now)
            for event in staged:
                inbox.stage_pdu(tx, event.room_id, event.event_id, origin, canonical.dumps(event.json), now)
            for edu in durable:
                inbox.stage_edu(tx, origin, canonical.dumps(edu), now)
            return {event.room_id for event in staged}

        for room_id in await self._parts.db.write(write):
            self._receiver.room_has_work(room_id)
        if durable:
            self._edu_news.set()
        for edu in edus:
            handler = self._fleeting.get(_edu_type(edu))
            if handler is not None:
                await self._handle_edu(handler, origin, edu)
        return answer

    async def _check_pdus(self, origin: str, pdus: list[Any], results: dict[str, JsonObject]) -> list[Event]:
        """Checks 1–3 and the ACL of the sending server. Fills in the results; returns what is to be staged."""
        staged: list[Event] = []
        by_room: dict[str, list[Any]] = {}
        for pdu in pdus:
            room_id = pdu.get("room_id") if isinstance(pdu, dict) else None
            if is_room_id(room_id):
                by_room.setdefault(str(room_id), []).append(pdu)
        for room_id, of_room in by_room.items():
            room = rooms.get(self._parts.db.read, room_id)
            version = ROOM_VERSIONS.get(room.version) if room is not None and room.version else None
            if room is None or version is None:
                continue  # a room that we never heard of: dropped, and no event id to answer under
            denied = not self._acls.allows(room_id, origin)
            admitted = await admit(
                of_room, version, room_id, keys=self._parts.keys, runtime=self._parts.runtime
            )
            for pdu, result in zip(of_room, admitted):
                event_id = _event_id(pdu, version, result)
                if event_id is None:
                    continue
                if denied:
                    results[event_id] = {"error": "Denied by the room's server ACL."}
                elif isinstance(result, Refused):
                    log.info(
                        "refused a PDU", origin=origin, event=event_id, room=room_id, reason=result.reason
                    )
                    results[event_id] = {"error": result.reason}
                else:
                    results[event_id] = {}
                    if self._wanted(room.resident, room.room_nid, result):
                        staged.append(result)
        return staged

    def _wanted(self, resident: bool, room_nid: int, event: Event) -> bool:
        """Not what we have; of rooms that we are not in only what may end an invite or knock of ours."""
        if resident:
            return not is_settled(self._parts.graph, event.event_id)
        if event.room_id in self._receiver.joining:
            return True
        if (
            event.type != "m.room.member"
            or event.state_key is None
            or not self._parts.is_ours(event.state_key)
        ):
            return False
        held = memberships.get(self._parts.db.read, room_nid, event.state_key)
        return held is not None and held.membership in ("invite", "knock")

    # -- EDUs --------------------------------------------------------------------------------------

    async def run_edus(self) -> None:
        """Hand staged EDUs to their handlers, one by one; what a handler fails on is logged and dropped."""
        while True:
            self._edu_news = trio.Event()
            while staged := inbox.next_edus(self._parts.db.read, 100):
                for item in staged:
                    edu = canonical.loads(item.json)
                    handler = self._durable.get(_edu_type(edu))
                    if handler is not None:
                        await self._handle_edu(handler, item.origin, edu)
                await self._remove([item.seq for item in staged])
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


def _edu_type(edu: object) -> str:
    kind = edu.get("edu_type") if isinstance(edu, dict) else None
    return kind if isinstance(kind, str) else ""


def _event_id(pdu: Any, version: RoomVersion, result: Event | Refused) -> str | None:
    """The id to answer under; also for a PDU that was refused, if one can be computed."""
    if isinstance(result, Event):
        return result.event_id
    try:
        return event_id_of(pdu, version)
    except (ValueError, TypeError, KeyError):
        return None
