# SPDX-License-Identifier: Apache-2.0
"""The words of messages, room names and topics: an FTS5 index.

History goes in with the commit that stores it. Live events are put in later, many at a time: by itself each
would cost its commit five pages more. Up to which position that was done is kept, and `catch_up` comes before
every search, so nobody sees the difference.

The index has no copy of the texts. To take an event out, FTS5 must be told the texts that were put in, so
that is done before a redaction takes them from the event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.store import timeline
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.store.writer import Tx

COLUMNS = {"content.body": "body", "content.name": "name", "content.topic": "topic"}
"""Keys that a client can search over (client-server-api, "Search Categories") → columns of the index."""

WINDOW = 500
"""Positions that are caught up with in one closure."""

MAX_WORDS = 30
"""Words and phrases of one search."""


class Texts(NamedTuple):
    body: str = ""
    name: str = ""
    topic: str = ""


class Match(NamedTuple):
    row: EventRow
    rank: float
    """The higher, the better does the event match."""


def texts_of(event_type: str, content: object) -> Texts | None:
    """What can be found of an event; None: nothing."""
    if not isinstance(content, dict):
        return None
    if event_type == "m.room.message":
        texts = Texts(body=_text(content.get("body")))
    elif event_type == "m.room.name":
        texts = Texts(name=_text(content.get("name")))
    elif event_type == "m.room.topic":
        plain, rich = _text(content.get("topic")), _plain_topic(content.get("m.topic"))
        texts = Texts(topic=plain if rich in ("", plain) else f"{plain}\n{rich}")
    else:
        return None
    return texts if any(texts) else None


def _plain_topic(topic: object) -> str:
    """The text/plain representation in `m.topic`."""
    found = topic.get("m.text") if isinstance(topic, dict) else None
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict) and each.get("mimetype", "text/plain") == "text/plain":
            return _text(each.get("body"))
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# --- writing
# -------------------------------------------------------------------------------------------------------


def index_history(tx: Tx, nid: int, event: Event) -> None:
    """An event of the past was given its place in the timeline. Call once."""
    row = tx.execute("SELECT outcome, redacted_by FROM events WHERE event_nid = ?", (nid,)).fetchone()
    if row == (0, None):
        _put(tx, nid, texts_of(event.type, event.content))


def index_old(tx: Tx, nid: int, pdu: JsonObject) -> None:
    """The same for one of those that were stored before there was this index. Call as often as you like."""
    if tx.execute("SELECT 1 FROM search_docsize WHERE id = ?", (nid,)).fetchone() is None:
        _put(tx, nid, texts_of(pdu["type"], pdu["content"]))


def is_behind(db: Reader) -> int:
    """How many positions are to be caught up with."""
    row = db.execute("SELECT s.pos - p.pos FROM stream s, search_progress p").fetchone()
    return int(row[0])


def catch_up(tx: Tx) -> bool:
    """Put in the live events of the next positions. True: there are more."""
    start, newest = tx.execute("SELECT p.pos, s.pos FROM stream s, search_progress p").fetchone()
    upto = min(start + WINDOW, newest)
    nids = [
        row[0]
        for row in tx.execute(
            "SELECT e.event_nid FROM rooms r JOIN events e INDEXED BY events_by_arrival "
            "ON e.room_nid = r.room_nid AND e.topo IS NOT NULL AND e.arrival > ? AND e.arrival <= ? "
            "WHERE e.outcome = 0 AND e.redacted_by IS NULL "
            "AND e.type IN ('m.room.message', 'm.room.name', 'm.room.topic') "
            "AND NOT EXISTS (SELECT 1 FROM search_docsize d WHERE d.id = e.event_nid)",
            (max(start, 0), upto),
        ).fetchall()
    ]
    for nid, (_, pdu) in sorted(timeline.bodies(tx, nids).items()):
        _put(tx, nid, texts_of(pdu["type"], pdu["content"]))
    tx.execute("UPDATE search_progress SET pos = ?", (upto,))
    return bool(upto < newest)


def _put(tx: Tx, nid: int, texts: Texts | None) -> None:
    if texts is not None:
        tx.execute("INSERT INTO search (rowid, body, name, topic) VALUES (?, ?, ?, ?)", (nid, *texts))


def remove(tx: Tx, nid: int) -> None:
    """The event is about to be redacted; its content is still there."""
    if tx.execute("SELECT 1 FROM search_docsize WHERE id = ?", (nid,)).fetchone() is None:
        return
    for _, pdu in timeline.bodies(tx, [nid]).values():
        texts = texts_of(pdu["type"], pdu["content"])
        if texts is not None:
            tx.execute(
                "INSERT INTO search (search, rowid, body, name, topic) VALUES ('delete', ?, ?, ?, ?)",
                (nid, *texts),
            )


def remove_room(tx: Tx, room_nid: int) -> None:
    """The room is about to be forgotten whole; its events are still there."""
    rows = tx.execute(
        "SELECT event_nid FROM events WHERE room_nid = ? "
        "AND type IN ('m.room.message', 'm.room.name', 'm.room.topic')",
        (room_nid,),
    ).fetchall()
    for (nid,) in rows:
        remove(tx, nid)


# --- asking
# --------------------------------------------------------------------------------------------------------

_TERM = re.compile(r'(-?)"([^"]*)"|(-?)(\S+)')


class Term(NamedTuple):
    text: str
    """A word, or a phrase whose words stand together."""
    wanted: bool


def parse(text: str) -> list[Term]:
    """What a user typed: all words must be there, in any order, `"words in quotes"` one after the other,
    `-words` not at all. Of more than MAX_WORDS the rest is not looked at."""
    terms = []
    for minus, phrase, word_minus, word in _TERM.findall(text):
        found = phrase or word.replace('"', " ")
        if re.search(r"\w", found):
            terms.append(Term(found, not (minus or word_minus)))
    return terms[:MAX_WORDS]


def expression(terms: Collection[Term], columns: Collection[str]) -> str | None:
    """The same in the language of FTS5; None: nothing could match."""
    wanted = [_quoted(term.text) for term in terms if term.wanted]
    unwanted = [_quoted(term.text) for term in terms if not term.wanted]
    if not wanted or not columns:
        return None
    text = f"({' AND '.join(wanted)})"
    if unwanted:
        text = f"({text} NOT ({' OR '.join(unwanted)}))"
    return f"{{{' '.join(sorted(columns))}}} : {text}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""').replace("\0", " ") + '"'


_FROM = (
    "FROM search s JOIN events e ON e.event_nid = s.rowid "
    "JOIN (SELECT value ->> 0 AS room_nid, value ->> 1 AS upto FROM json_each(:rooms)) r "
    "ON r.room_nid = e.room_nid "
    "WHERE search MATCH :expression AND e.arrival <= r.upto AND e.arrival <= :newest "
)
_ROW = ", ".join(f"e.{name}" for name in ("event_nid", *EventRow._fields[1:]))


def matches(
    db: Reader,
    expression: str,
    rooms: Mapping[int, int],
    newest: int,
    *,
    by_rank: bool,
    offset: int,
    limit: int,
) -> list[Match]:
    """Events of these rooms (room_nid → the last arrival that counts) that match, none newer than `newest`:
    the best or the latest first."""
    order = "rank, e.ts DESC" if by_rank else "e.ts DESC"
    rows = db.execute(
        f"SELECT s.rank, {_ROW} {_FROM} ORDER BY {order}, e.event_nid DESC LIMIT :limit OFFSET :offset",
        {**_bound(expression, rooms, newest), "limit": limit, "offset": offset},
    ).fetchall()
    return [Match(EventRow._make(row), -rank) for rank, *row in rows]


def count(db: Reader, expression: str, rooms: Mapping[int, int], newest: int) -> int:
    row = db.execute(f"SELECT COUNT(*) {_FROM}", _bound(expression, rooms, newest)).fetchone()
    return int(row[0])


def _bound(expression: str, rooms: Mapping[int, int], newest: int) -> dict[str, Any]:
    return {"expression": expression, "rooms": json.dumps(list(rooms.items())), "newest": newest}


def encrypted_rooms(db: Reader) -> set[int]:
    """Rooms that are encrypted now."""
    rows = db.execute(
        "SELECT c.room_nid FROM rooms r JOIN current_state c USING (room_nid) WHERE c.key_nid = "
        "(SELECT key_nid FROM state_keys WHERE type = 'm.room.encryption' AND state_key = '')"
    ).fetchall()
    return {row[0] for row in rows}
