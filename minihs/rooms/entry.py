# SPDX-License-Identifier: Apache-2.0
"""An event on its way to disk, and all that is known of it by then."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from minihs.matrix.event import Event
from minihs.rooms.state import Key, StateRef
from minihs.store.events import Outcome


class ClientTxn(NamedTuple):
    """The client request that an event came from."""

    user_id: str
    device_id: str
    scope: str
    txn_id: str


@dataclass(slots=True)
class Entry:
    """An event and what becomes of it."""

    event: Event
    outcome: Outcome
    received_ts: int
    reason: str | None = None
    outlier: bool = False
    history: bool = False
    """Backfilled: has its place in the timeline, is nobody's news."""
    before: StateRef | None = None
    after: StateRef | None = None
    topo: int | None = None
    tip: bool = False
    """It is a forward extremity now."""
    retired: Collection[str] = ()
    """Forward extremities that are none any more, because this event is built upon them."""
    current: StateRef | None = None
    """The room's state once this event is in; None: it does not move."""
    current_changes: Mapping[Key, str | None] = field(default_factory=dict)
    hosts: Collection[str] | None = None
    """Servers it is sent to."""
    txn: ClientTxn | None = None
    redaction_of: Event | None = None
    """The redacted form of an event that this one (a redaction) redacts."""
    awaited_redaction_of: str | None = None
    """This redaction's target, which we don't have."""
    redacted_by: str | None = None
    """A redaction that came before this event."""

    @property
    def is_news(self) -> bool:
        """Whether it has a place in the stream of what clients are shown."""
        return not self.outlier and not self.history and self.outcome is not Outcome.REJECTED
