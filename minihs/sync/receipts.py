# SPDX-License-Identifier: Apache-2.0
"""Receipts and read markers: from clients, from other servers, to clients (client-server-api, "Receipts").

`m.read` is for everybody in the room, `m.read.private` for the user's own devices only and never leaves this
server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, forbidden, invalid_param
from minihs.matrix.ids import domain_of, is_event_id, is_room_id, is_user_id
from minihs.runtime import Runtime
from minihs.store import account_data, memberships, rooms
from minihs.store import receipts as store
from minihs.store.database import Database, Tx
from minihs.store.receipts import MAIN, READ, READ_PRIVATE, UNTHREADED, Receipt
from minihs.sync.ports import EduQueue, ServerAcls
from minihs.sync.typing import others_in

FULLY_READ = "m.fully_read"
RECEIPT_TYPES = (READ, READ_PRIVATE, FULLY_READ)

MAX_IN_EDU = 1000
"""Receipts of one EDU that are looked at."""

MAX_INTEGER = 2**53 - 1


class Receipts:
    def __init__(
        self, db: Database, runtime: Runtime, our_name: str, *, edus: EduQueue, acls: ServerAcls
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._our_name = our_name
        self._edus = edus
        self._acls = acls

    async def set_markers(
        self, user_id: str, room_id: str, markers: dict[str, str], thread: str = UNTHREADED
    ) -> None:
        """Move the user's m.read, m.read.private and m.fully_read, each to its event, in one commit."""
        room_nid = self._require_joined(user_id, room_id)
        if thread != UNTHREADED and FULLY_READ in markers:
            raise invalid_param("thread_id is not for m.fully_read.")
        now = self._runtime.clock.now_ms()

        def move(tx: Tx) -> list[Receipt]:
            moved = []
            for kind, event_id in markers.items():
                if store.place(tx, room_nid, event_id) is None:
                    # Clients name events that were soft-failed, or that they saw before we lost them: nothing
                    # to move to, and nothing they could do about an error.
                    continue
                if kind == FULLY_READ:
                    _set_fully_read(tx, user_id, room_id, room_nid, event_id)
                    continue
                receipt = Receipt(user_id, kind, thread, event_id, now)
                if store.put(tx, room_nid, room_id, receipt):
                    moved.append(receipt)
            return moved

        for receipt in await self._db.write(move):
            if receipt.kind == READ:
                self._tell_servers(room_nid, room_id, receipt)

    async def receive_receipts(self, origin: str, content: object) -> None:
        """An m.receipt EDU of another server; what is not right about it is ignored, the rest counts."""
        found: list[tuple[int, str, Receipt]] = []
        for room_id, room_nid, receipt in self._checked(origin, content):
            found.append((room_nid, room_id, receipt))
            if len(found) >= MAX_IN_EDU:
                break
        if found:
            await self._db.write(
                lambda tx: [store.put(tx, room_nid, room_id, receipt) for room_nid, room_id, receipt in found]
            )

    def _require_joined(self, user_id: str, room_id: str) -> int:
        room_nid = rooms.room_nid(self._db.read, room_id)
        member = None if room_nid is None else memberships.get(self._db.read, room_nid, user_id)
        if room_nid is None or member is None or member.membership != "join":
            raise forbidden("You are not in this room.")
        return room_nid

    def _checked(self, origin: str, content: object) -> Iterable[tuple[str, int, Receipt]]:
        if not isinstance(content, dict):
            return
        for room_id, kinds in content.items():
            users = kinds.get(READ) if isinstance(kinds, dict) else None
            if not isinstance(users, dict) or not is_room_id(room_id):
                continue
            room = rooms.get(self._db.read, room_id)
            if room is None or not room.resident or not self._acls.allows(room_id, origin):
                continue
            for user_id, body in users.items():
                receipt = _from_edu(user_id, body)
                if receipt is None or domain_of(user_id) != origin:
                    continue
                if memberships.may_be_joined(self._db.read, room.room_nid, user_id):
                    yield room_id, room.room_nid, receipt

    def _tell_servers(self, room_nid: int, room_id: str, receipt: Receipt) -> None:
        others = others_in(self._db.read, room_nid, self._our_name)
        if not others:
            return
        data: JsonObject = {"ts": receipt.ts}
        if receipt.thread != UNTHREADED:
            data["thread_id"] = receipt.thread
        content = {room_id: {READ: {receipt.user_id: {"data": data, "event_ids": [receipt.event_id]}}}}
        self._edus.queue_edu(
            others, "m.receipt", content, key=("m.receipt", room_id, receipt.user_id, receipt.thread)
        )


def check_thread_id(value: object, kind: str) -> str:
    """The `thread_id` of a client's receipt."""
    if value is None:
        return UNTHREADED
    if not isinstance(value, str) or not value:
        raise invalid_param("thread_id must be a string that is not empty.")
    if kind == FULLY_READ:
        raise invalid_param("thread_id is not for m.fully_read.")
    if value != MAIN and not is_event_id(value):
        raise invalid_param('thread_id must be "main" or an event id.')
    return value


def check_receipt_type(kind: str) -> str:
    if kind not in RECEIPT_TYPES:
        raise invalid_param(f"The receipt type must be one of {', '.join(RECEIPT_TYPES)}.")
    return kind


def check_event_id(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise MatrixError(400, "M_BAD_JSON", f"{name} must be an event id.")
    if not is_event_id(value):
        raise invalid_param(f"{name} must be an event id.")
    return value


def receipt_events(receipts: Iterable[Receipt], viewer: str) -> list[JsonObject]:
    """m.receipt events of all that the viewer may see: one for each thread, since within one of them a user
    can have only one receipt at an event."""
    by_thread: dict[str, JsonObject] = {}
    for receipt in receipts:
        if receipt.kind == READ_PRIVATE and receipt.user_id != viewer:
            continue
        data: JsonObject = {"ts": receipt.ts}
        if receipt.thread != UNTHREADED:
            data["thread_id"] = receipt.thread
        content = by_thread.setdefault(receipt.thread, {})
        content.setdefault(receipt.event_id, {}).setdefault(receipt.kind, {})[receipt.user_id] = data
    return [{"type": "m.receipt", "content": content} for content in by_thread.values()]


def _set_fully_read(tx: Tx, user_id: str, room_id: str, room_nid: int, event_id: str) -> None:
    """Account data m.fully_read; it never moves back."""
    current = account_data.get(tx, user_id, FULLY_READ, room_id)
    before = current.get("event_id") if current else None
    if isinstance(before, str):
        was, now = store.place(tx, room_nid, before), store.place(tx, room_nid, event_id)
        if was is not None and now is not None and now <= was:
            return
    account_data.put(tx, user_id, FULLY_READ, json.dumps({"event_id": event_id}), room_id)


def _from_edu(user_id: str, body: object) -> Receipt | None:
    if not is_user_id(user_id) or not isinstance(body, dict):
        return None
    event_ids, data = body.get("event_ids"), body.get("data", {})
    if not isinstance(event_ids, list) or not event_ids or not isinstance(data, dict):
        return None
    event_id: Any = event_ids[-1]
    if not isinstance(event_id, str) or not is_event_id(event_id):
        return None
    ts, thread = data.get("ts", 0), data.get("thread_id", UNTHREADED)
    if type(ts) is not int or abs(ts) > MAX_INTEGER:
        ts = 0
    if not isinstance(thread, str) or (thread not in (UNTHREADED, MAIN) and not is_event_id(thread)):
        return None
    return Receipt(user_id, READ, thread, event_id, ts)
