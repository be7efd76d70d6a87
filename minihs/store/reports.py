# SPDX-License-Identifier: Apache-2.0
"""Reports of rooms, events and users, for the administrator to read."""

from __future__ import annotations

from typing import NamedTuple

from minihs.store.reader import Reader
from minihs.store.writer import Tx

MAX_REPORTS = 10_000
"""Kept; beyond that the oldest go."""


class Report(NamedTuple):
    reporter: str
    room_id: str | None
    event_id: str | None
    user_id: str | None
    reason: str
    received_ts: int


def add(tx: Tx, report: Report) -> None:
    tx.execute(
        "INSERT INTO reports (reporter, room_id, event_id, user_id, reason, received_ts) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        report,
    )
    tx.execute(
        "DELETE FROM reports WHERE report_id <= (SELECT MAX(report_id) FROM reports) - ?", (MAX_REPORTS,)
    )


def latest(db: Reader, limit: int) -> list[Report]:
    """The newest first."""
    return [
        Report._make(row)
        for row in db.execute(
            "SELECT reporter, room_id, event_id, user_id, reason, received_ts FROM reports "
            "ORDER BY report_id DESC LIMIT ?",
            (limit,),
        ).fetchall()
    ]
