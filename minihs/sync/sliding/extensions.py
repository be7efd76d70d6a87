# SPDX-License-Identifier: Apache-2.0
"""What a client may ask for besides rooms (MSC4186, "Extensions"): messages to the device (MSC3885),
end-to-end encryption (MSC3884), account data (MSC3959), receipts (MSC3960), typing (MSC3961).

Account data of rooms, receipts and typing are told of those rooms that the request's rules match, as far as
the extension's own scope goes. Up to where is kept for every room by itself, like the room's events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from minihs.matrix.canonical import JsonObject
from minihs.store import account_data, one_time_keys, receipts, to_device
from minihs.store.receipts import READ_PRIVATE, UNTHREADED, Receipt
from minihs.sync import device_news
from minihs.sync.room_part import MAX_RECEIPTS
from minihs.sync.sliding.connections import Known
from minihs.sync.sliding.context import SlidingContext
from minihs.sync.sliding.request import EVERYTHING, Scope, ToDeviceWish
from minihs.sync.sliding.room_list import Wanted
from minihs.sync.typing import typing_event

FIRST_RECEIPTS = 200
"""Receipts of a room, those moved last, among which a client that hears of it first is told those at the
events it sees."""


@dataclass(slots=True)
class Extended:
    """The `extensions` of an answer."""

    answer: JsonObject = field(default_factory=dict)
    known: dict[int, Known] = field(default_factory=dict)
    """What the client knows of rooms afterwards, where that changed."""
    data: int | None = None
    has_news: bool = False
    """Something that a waiting client wants to be woken for."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms that extensions may speak of."""

    wanted: Sequence[Wanted]
    known: Callable[[int], Known | None]
    """room_nid → what the client knows once it has the rooms of this answer."""
    shown: Mapping[int, frozenset[str]]
    """room_nid → event ids of its timeline in this answer."""

    def within(self, scope: Scope) -> Iterator[Wanted]:
        for wanted in self.wanted:
            in_list = bool(wanted.lists) if scope.lists is None else _is_named(scope.lists, *wanted.lists)
            named = wanted.is_subscribed if scope.rooms is None else wanted.room.room_id in scope.rooms
            starred = wanted.is_subscribed and scope.rooms is not None and EVERYTHING in scope.rooms
            if in_list or named or starred:
                yield wanted


def _is_named(names: frozenset[str], *lists: str) -> bool:
    return bool(lists) and (EVERYTHING in names or not names.isdisjoint(lists))


def extend(context: SlidingContext, rooms: Rooms) -> Extended:
    wanted = context.request.extensions
    result = Extended(data=context.known_data)
    if wanted.to_device is not None:
        _to_device(context, wanted.to_device, result)
    if wanted.e2ee:
        _e2ee(context, result)
    if wanted.account_data is not None:
        _account_data(context, rooms, wanted.account_data, result)
    if wanted.receipts is not None:
        _receipts(context, rooms, wanted.receipts, result)
    if wanted.typing is not None:
        _typing(context, rooms, wanted.typing, result)
    return result


def _to_device(context: SlidingContext, wanted: ToDeviceWish, result: Extended) -> None:
    viewer, since = context.viewer, wanted.since
    if since > context.upto:
        since = 0  # from a future that a restored backup does not know
    found = to_device.read(context.db, viewer.user_id, viewer.device_id, since, context.upto, wanted.limit)
    upto = found[-1][0] if len(found) == wanted.limit else context.upto
    result.answer["to_device"] = {"next_batch": str(upto), "events": [event for _, event in found]}
    result.has_news = result.has_news or bool(found)


def _e2ee(context: SlidingContext, result: Extended) -> None:
    """Counts are always there, like in /sync: a client that missed them would upload no keys."""
    db, viewer = context.db, context.viewer
    counts = {"signed_curve25519": 0, **one_time_keys.counts(db, viewer.user_id, viewer.device_id)}
    answer: JsonObject = {
        "device_one_time_keys_count": counts,
        "device_unused_fallback_key_types": one_time_keys.unused_fallback_types(
            db, viewer.user_id, viewer.device_id
        ),
    }
    if context.since is not None and context.since.pos < context.upto:
        since = context.since.pos
        met, parted = device_news.through_all_rooms(db, context.facts, viewer.user_id, since, context.upto)
        changed, left = device_news.changed_and_left(db, viewer.user_id, since, context.upto, met, parted)
        if changed or left:
            answer["device_lists"] = {"changed": changed, "left": left}
            result.has_news = True
    result.answer["e2ee"] = answer


def _account_data(context: SlidingContext, rooms: Rooms, scope: Scope, result: Extended) -> None:
    db, user_id = context.db, context.user_id
    everywhere = [
        {"type": item.type, "content": item.content}
        for item in account_data.changed(db, user_id, context.known_data or 0, context.upto)
        if item.room_id == account_data.GLOBAL
    ]
    if everywhere or context.known_data is None:
        result.data = context.upto
    by_room: dict[str, list[JsonObject]] = {}
    for wanted in rooms.within(scope):
        known = rooms.known(wanted.room.room_nid)
        if known is None or (known.data is not None and wanted.room.last_data <= known.data):
            continue
        room_id = wanted.room.room_id
        items = (
            account_data.of_room(db, user_id, room_id, known.data or 0, context.upto)
            if wanted.room.last_data
            else []
        )
        _remember(result, rooms, wanted, lambda known: known._replace(data=context.upto))
        if items:
            by_room[room_id] = [{"type": item.type, "content": item.content} for item in items]
    if everywhere or by_room:
        result.answer["account_data"] = {"global": everywhere, "rooms": by_room}
        result.has_news = True


def _receipts(context: SlidingContext, rooms: Rooms, scope: Scope, result: Extended) -> None:
    by_room: dict[str, JsonObject] = {}
    for wanted in rooms.within(scope):
        room = wanted.room
        known = rooms.known(room.room_nid)
        if room.membership != "join" or known is None:
            continue
        if known.receipts is not None and room.last_receipt <= known.receipts:
            continue
        if not room.last_receipt:
            found = []
        elif known.receipts is None:
            found = _first_receipts(context, room.room_nid, rooms.shown.get(room.room_nid, frozenset()))
        else:
            found = receipts.changed(context.db, room.room_nid, known.receipts, context.upto, MAX_RECEIPTS)
        _remember(result, rooms, wanted, lambda known: known._replace(receipts=context.upto))
        event = receipt_event(context, found)
        if event is not None:
            by_room[room.room_id] = event
    if by_room:
        result.answer["receipts"] = {"rooms": by_room}
        result.has_news = True


def _first_receipts(context: SlidingContext, room_nid: int, shown: frozenset[str]) -> list[Receipt]:
    """Those at events that the client sees; and one's own, by which it knows what is unread."""
    own = receipts.of_user(context.db, room_nid, context.user_id)
    newest = receipts.changed(context.db, room_nid, 0, context.upto, FIRST_RECEIPTS) if shown else []
    others = [each for each in newest if each.user_id != context.user_id and each.event_id in shown]
    return own + others


def receipt_event(context: SlidingContext, found: Sequence[Receipt]) -> JsonObject | None:
    """One m.receipt event, since the extension has room for no more. Of several receipts of one user at one
    event, in different threads, it can say only one: the unthreaded one says most."""
    content: JsonObject = {}
    for receipt in sorted(found, key=lambda each: each.thread != UNTHREADED):
        if receipt.user_id in context.ignored:
            continue
        if receipt.kind == READ_PRIVATE and receipt.user_id != context.user_id:
            continue
        data: JsonObject = {"ts": receipt.ts}
        if receipt.thread != UNTHREADED:
            data["thread_id"] = receipt.thread
        users = content.setdefault(receipt.event_id, {}).setdefault(receipt.kind, {})
        users.setdefault(receipt.user_id, data)
    return {"type": "m.receipt", "content": content} if content else None


def _typing(context: SlidingContext, rooms: Rooms, scope: Scope, result: Extended) -> None:
    typing = context.typing
    by_room: dict[str, JsonObject] = {}
    for wanted in rooms.within(scope):
        room = wanted.room
        if room.membership != "join":
            continue
        is_first = room.room_nid not in context.known
        users = [user for user in typing.users.get(room.room_id, ()) if user not in context.ignored]
        was_told = room.room_nid in rooms.shown and typing.forgotten and not is_first
        if (is_first and users) or (not is_first and room.room_id in typing.changed) or was_told:
            by_room[room.room_id] = typing_event(users)
    if by_room:
        result.answer["typing"] = {"rooms": by_room}
        result.has_news = True


def _remember(result: Extended, rooms: Rooms, wanted: Wanted, change: Callable[[Known], Known]) -> None:
    room_nid = wanted.room.room_nid
    known = result.known.get(room_nid) or rooms.known(room_nid)
    if known is not None:
        result.known[room_nid] = change(known)
