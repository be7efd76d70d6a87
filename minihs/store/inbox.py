# SPDX-License-Identifier: Apache-2.0
"""What other servers sent and we acknowledged, until its room (PDUs) or handler (EDUs) is done with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from minihs.store import ids
from minihs.store.database import Reader, Tx

MAX_ANSWERS = 1_000
"""Answers to transactions of one server that are remembered for longer than an hour."""


class Staged(NamedTuple):
    """A row of the inbox."""

    seq: int
    room_id: str
    event_id: str
    origin: str
    json: bytes
    received_ts: int
    attempts: int


def answer_of(db: Reader, origin: str, txn_id: str) -> str | None:
    """What we answered to this transaction before; JSON."""
    row = db.execute(
        "SELECT answer FROM inbound_txns WHERE origin = ? AND txn_id = ?", (origin, txn_id)
    ).fetchone()
    return None if row is None else str(row[0])


def remember_answer(tx: Tx, origin: str, txn_id: str, answer: str, now_ms: int) -> None:
    tx.execute("INSERT OR IGNORE INTO inbound_txns VALUES (?, ?, ?, ?)", (origin, txn_id, answer, now_ms))


def forget_answers(tx: Tx, before_ms: int) -> None:
    """Those that are older, and of each server all but the newest: a server repeats its last transaction, and
    one that sends thousands fills no disk."""
    tx.execute("DELETE FROM inbound_txns WHERE received_ts < ?", (before_ms,))
    loud = tx.execute(
        "SELECT origin FROM inbound_txns GROUP BY origin HAVING COUNT(*) > ?", (MAX_ANSWERS,)
    ).fetchall()
    for (origin,) in loud:
        tx.execute(
            "DELETE FROM inbound_txns WHERE origin = ?1 AND txn_id NOT IN (SELECT txn_id FROM inbound_txns "
            "WHERE origin = ?1 ORDER BY received_ts DESC LIMIT ?2)",
            (origin, MAX_ANSWERS),
        )


_INDEXED = "AND event_id != ''"
"""Without these words SQLite doesn't use the index, which is of such rows only."""


class Pdu(NamedTuple):
    """What is to be staged."""

    room_id: str
    event_id: str
    json: bytes


def stage_pdus(
    tx: Tx, pdus: Sequence[Pdu], origin: str, now_ms: int, *, not_before: int = 0
) -> dict[str, int]:
    """Put PDUs into the queue, but those that wait in it already or were set aside. Returns the place of the
    first of each room. Wakes "inbox:<room id>".

    `not_before`: when they are due, milliseconds.
    """
    new: dict[str, Pdu] = {}
    for pdu in pdus:
        new.setdefault(pdu.event_id, pdu)
    for event_id in held_among(tx, list(new)):
        del new[event_id]
    if not new:
        return {}
    row = tx.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'").fetchone()
    rows = list(enumerate(new.values(), 1 if row is None else row[0] + 1))
    tx.executemany(
        "INSERT INTO inbox (seq, kind, room_id, event_id, origin, json, received_ts, not_before) "
        "VALUES (?, 0, ?, ?, ?, ?, ?, ?)",
        [(seq, pdu.room_id, pdu.event_id, origin, pdu.json, now_ms, not_before) for seq, pdu in rows],
    )
    firsts: dict[str, int] = {}
    for seq, pdu in rows:
        if pdu.room_id not in firsts:
            firsts[pdu.room_id] = seq
            tx.wake(f"inbox:{pdu.room_id}")
    return firsts


def held_among(db: Reader | Tx, event_ids: Sequence[str]) -> set[str]:
    """Those of the PDUs that wait in the inbox, or were set aside."""
    rows = ids.rows_where_in(db, f"SELECT event_id FROM inbox WHERE event_id IN (...) {_INDEXED}", event_ids)
    return {event_id for (event_id,) in rows}


def stage_edu(tx: Tx, origin: str, edu: bytes, now_ms: int) -> None:
    """Wakes "inbox-edus"."""
    tx.execute(
        "INSERT INTO inbox (kind, origin, json, received_ts) VALUES (1, ?, ?, ?)", (origin, edu, now_ms)
    )
    tx.wake("inbox-edus")


def size(db: Reader) -> int:
    """Rows that wait. (A count over the primary key of a table that is nearly always empty.)"""
    return int(db.execute("SELECT COUNT(*) FROM inbox").fetchone()[0])


def size_of(db: Reader, origin: str) -> int:
    """Rows that wait and came from one server."""
    return int(db.execute("SELECT COUNT(*) FROM inbox WHERE origin = ?", (origin,)).fetchone()[0])


_SELECT = "SELECT seq, room_id, event_id, origin, json, received_ts, attempts FROM inbox "


def next_pdus(db: Reader, room_id: str, now_ms: int, limit: int) -> list[Staged]:
    """PDUs of a room that are due, in the order they came."""
    rows = db.execute(
        _SELECT + "WHERE room_id = ? AND kind = 0 AND not_before <= ? ORDER BY seq LIMIT ?",
        (room_id, now_ms, limit),
    ).fetchall()
    return list(map(Staged._make, rows))


def waiting_inviters(db: Reader, room_id: str, user_id: str) -> list[str]:
    """Who sent invites of a user that wait in the inbox, due or not; whose came last, the first."""
    rows = db.execute(
        "SELECT json_extract(CAST(json AS TEXT), '$.sender') AS sender FROM inbox "
        "WHERE room_id = ? AND kind = 0 AND instr(json, ?) "
        "AND json_extract(CAST(json AS TEXT), '$.type') = 'm.room.member' "
        "AND json_extract(CAST(json AS TEXT), '$.state_key') = ? "
        "AND json_extract(CAST(json AS TEXT), '$.content.membership') = 'invite' "
        "GROUP BY 1 ORDER BY MAX(seq) DESC",
        (room_id, user_id.encode(), user_id),
    ).fetchall()
    return [row[0] for row in rows]


def next_pdus_of_others(
    db: Reader, room_id: str, now_ms: int, after_seq: int, origin: str, limit: int
) -> list[Staged]:
    """The same, behind a place in the queue, and not of that server."""
    rows = db.execute(
        _SELECT + "WHERE room_id = ? AND kind = 0 AND not_before <= ? AND seq > ? AND origin <> ? "
        "ORDER BY seq LIMIT ?",
        (room_id, now_ms, after_seq, origin, limit),
    ).fetchall()
    return list(map(Staged._make, rows))


def next_pdus_of(
    db: Reader, room_id: str, now_ms: int, since_seq: int, origin: str, limit: int
) -> list[Staged]:
    """The same, from a place in the queue on, and only of that server."""
    rows = db.execute(
        _SELECT + "WHERE room_id = ? AND kind = 0 AND not_before <= ? AND seq >= ? AND origin = ? "
        "ORDER BY seq LIMIT ?",
        (room_id, now_ms, since_seq, origin, limit),
    ).fetchall()
    return list(map(Staged._make, rows))


def is_waiting(db: Reader, event_id: str) -> bool:
    """Whether that PDU is in the inbox."""
    return (
        db.execute(f"SELECT 1 FROM inbox WHERE event_id = ? AND kind = 0 {_INDEXED}", (event_id,)).fetchone()
        is not None
    )


def deferred_pdus(db: Reader, room_id: str, now_ms: int, limit: int) -> list[Staged]:
    """PDUs of a room that wait for something, the longest waiting first."""
    rows = db.execute(
        _SELECT + "WHERE room_id = ? AND kind = 0 AND not_before > ? ORDER BY seq LIMIT ?",
        (room_id, now_ms, limit),
    ).fetchall()
    return list(map(Staged._make, rows))


def count_deferred(db: Reader, room_id: str, now_ms: int) -> int:
    return int(
        db.execute(
            "SELECT COUNT(*) FROM inbox WHERE room_id = ? AND kind = 0 AND not_before > ?", (room_id, now_ms)
        ).fetchone()[0]
    )


def next_edus(db: Reader, limit: int) -> list[Staged]:
    """Of each server those that came first: one that sends thousands does not keep the others waiting."""
    turn = "ROW_NUMBER() OVER (PARTITION BY origin ORDER BY seq)"
    rows = db.execute(
        "SELECT seq, room_id, event_id, origin, json, received_ts, attempts FROM inbox "
        f"JOIN (SELECT seq, {turn} AS turn FROM inbox WHERE kind = 1) USING (seq) "
        "ORDER BY turn, seq LIMIT ?",
        (limit,),
    ).fetchall()
    return list(map(Staged._make, rows))


def rooms_waiting(db: Reader) -> list[tuple[str, int]]:
    """(room id, earliest time in ms at which one of its PDUs is due)."""
    return list(
        db.execute("SELECT room_id, MIN(not_before) FROM inbox WHERE kind = 0 GROUP BY room_id").fetchall()
    )


def remove_all(tx: Tx, seqs: Iterable[int]) -> None:
    for part in ids.chunks(list(seqs)):
        tx.execute(f"DELETE FROM inbox WHERE seq IN ({ids.marks(len(part))})", part)


def defer(tx: Tx, seq: int, not_before_ms: int) -> None:
    """Try again later; the attempt is counted."""
    tx.execute("UPDATE inbox SET attempts = attempts + 1, not_before = ? WHERE seq = ?", (not_before_ms, seq))


def hasten(tx: Tx, seqs: Iterable[int]) -> None:
    """What deferred PDUs waited for has come: try them now."""
    for seq in seqs:
        tx.execute("UPDATE inbox SET not_before = 0 WHERE seq = ?", (seq,))


def hasten_later_than(tx: Tx, ms: int) -> None:
    """PDUs that are to wait until after that time are due now."""
    tx.execute("UPDATE inbox SET not_before = 0 WHERE kind = 0 AND not_before > ?", (ms,))


def hasten_room(tx: Tx, room_id: str) -> None:
    """What all deferred PDUs of a room waited for has come."""
    tx.execute("UPDATE inbox SET not_before = 0 WHERE room_id = ? AND kind = 0", (room_id,))


def set_aside(tx: Tx, seq: int, *, keep: int) -> None:
    """Never try it again, but keep it for somebody to look at; of all that was set aside the last `keep`."""
    tx.execute("UPDATE inbox SET kind = 2 WHERE seq = ?", (seq,))
    tx.execute(
        "DELETE FROM inbox WHERE kind = 2 AND seq NOT IN "
        "(SELECT seq FROM inbox WHERE kind = 2 ORDER BY seq DESC LIMIT ?)",
        (keep,),
    )
