# SPDX-License-Identifier: Apache-2.0
"""Parents before children. Ties keep the order given, so equal input gives equal output.

Events may name anything as a parent; in room versions 1 and 2, where ids are no hashes, even each other in
a circle. What is in a circle is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from minihs.matrix.event import Event


def _sorted(events: Iterable[Event], parents: Callable[[Event], Sequence[str]]) -> list[Event]:
    by_id = {event.event_id: event for event in events}
    waiting: dict[str, int] = {}
    children: dict[str, list[str]] = {}
    for event in by_id.values():
        inside = {parent for parent in parents(event) if parent in by_id}
        waiting[event.event_id] = len(inside)
        for parent in inside:
            children.setdefault(parent, []).append(event.event_id)
    ready = deque(event_id for event_id, count in waiting.items() if count == 0)
    ordered: list[Event] = []
    while ready:
        event_id = ready.popleft()
        ordered.append(by_id[event_id])
        for child in children.get(event_id, ()):
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    return ordered


def by_prev_events(events: Iterable[Event]) -> list[Event]:
    return _sorted(events, lambda event: event.prev_events)


def by_auth_events(events: Iterable[Event]) -> list[Event]:
    return _sorted(events, lambda event: event.auth_events)
