# SPDX-License-Identifier: Apache-2.0
"""Which membership events a device has been sent, so that lazy loading need not repeat them
(client-server-api, "Lazy-loading room members").

What an answer holds counts as received only when the device comes back with that answer's token. A device
that comes with any other token (it went back to an older one, or we restarted) is taken to know nothing:
repeating a member is allowed, leaving one out shows a message by nobody.

Kept in memory, bounded; losing it costs repetition.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

MAX_DEVICES = 500
MAX_MEMBERS = 20_000
"""Per device."""

MAX_MEMBERS_IN_ALL = 200_000
"""Some 150 bytes each; beyond that the device unused for longest is forgotten."""

MAX_ANSWERS = 8
"""Answers of one device that may be on their way: several clients of it, retries."""

_NONE = 0
"""No event has this number."""

type Sent = dict[tuple[int, int], int]
"""(room_nid, key_nid) → event_nid of the membership event that was sent."""


@dataclass(slots=True)
class _Device:
    token: str
    """What the device knew as of this token is in `known`."""
    known: Sent = field(default_factory=dict)
    answers: OrderedDict[str, Sent] = field(default_factory=OrderedDict)
    """next_batch of answers that were made for `token`, with what each added."""

    @property
    def size(self) -> int:
        return len(self.known) + sum(map(len, self.answers.values()))


class Delivery:
    """The members of one answer in the making."""

    __slots__ = ("added", "known")

    def __init__(self, known: Sent) -> None:
        self.known = known
        self.added: Sent = {}

    def has(self, room_nid: int, key_nid: int, event_nid: int) -> bool:
        return self.known.get((room_nid, key_nid)) == event_nid

    def add(self, room_nid: int, key_nid: int, event_nid: int) -> None:
        self.added[room_nid, key_nid] = event_nid

    def forget(self, room_nid: int) -> None:
        """The client drops what it has of a room when it gets this answer. Call before `add`."""
        self.added.update((each, _NONE) for each in self.known if each[0] == room_nid)


class LazyMembers:
    """Lives on the event loop; a `Delivery` may be filled in a thread."""

    def __init__(self) -> None:
        self._devices: OrderedDict[tuple[str, str], _Device] = OrderedDict()

    def begin(self, user_id: str, device_id: str, since: str) -> Delivery:
        """For an answer to a device that says it has everything up to `since` ("": nothing)."""
        device = self._devices.get((user_id, device_id))
        if device is None or not since:
            return Delivery({})
        if since == device.token:
            return Delivery(device.known)
        added = device.answers.get(since)
        if added is None:
            return Delivery({})
        device.token = since
        device.known.update(added)
        device.answers.clear()
        return Delivery(device.known)

    def finish(self, user_id: str, device_id: str, since: str, next_batch: str, delivery: Delivery) -> None:
        """The answer is on its way."""
        device = self._devices.get((user_id, device_id))
        if device is None or device.token != since:
            device = _Device(since, delivery.known)
            self._devices[user_id, device_id] = device
        if len(device.known) + len(delivery.added) > MAX_MEMBERS:
            device.known = {}
        device.answers[next_batch] = delivery.added
        while len(device.answers) > MAX_ANSWERS:
            device.answers.popitem(last=False)
        self._devices.move_to_end((user_id, device_id))
        size = sum(each.size for each in self._devices.values())
        while len(self._devices) > MAX_DEVICES or (size > MAX_MEMBERS_IN_ALL and len(self._devices) > 1):
            _, oldest = self._devices.popitem(last=False)
            size -= oldest.size
