# SPDX-License-Identifier: Apache-2.0
"""Devices and cross-signing keys of users of other servers, kept while we share a room with them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from minihs.matrix.canonical import JsonObject
from minihs.store.database import Reader, Tx


@dataclass(slots=True)
class UserKeys:
    """What a server says of one of its users."""

    devices: dict[str, JsonObject] = field(default_factory=dict)
    master: JsonObject | None = None
    self_signing: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ListState:
    """How far a kept list can be relied on."""

    stream_id: int | None
    stale: bool


_SHARED_SINCE = (
    "EXISTS (SELECT 1 FROM memberships theirs JOIN memberships ours USING (room_nid) "
    "WHERE theirs.user_id = l.user_id AND theirs.membership = 'join' AND theirs.pos <= l.pos "
    "AND ours.local = 1 AND ours.membership = 'join' AND ours.pos <= l.pos)"
)
# There is a room in which both have been since the list was fetched: no change of it can have passed us by.


def state_of(db: Reader, user_id: str) -> ListState | None:
    """None: nothing is kept. A list counts as stale when there was a time without a shared room."""
    row = db.execute(
        f"SELECT l.stream_id, l.stale, {_SHARED_SINCE} FROM remote_device_lists l WHERE l.user_id = ?",
        (user_id,),
    ).fetchone()
    return None if row is None else ListState(row[0], bool(row[1]) or not row[2])


def get(db: Reader, user_id: str) -> UserKeys | None:
    """The user's keys; None if they must be asked for."""
    state = state_of(db, user_id)
    if state is None or state.stale:
        return None
    return _read(db, user_id)


def _read(db: Reader, user_id: str) -> UserKeys:
    master, self_signing = db.execute(
        "SELECT master, self_signing FROM remote_device_lists WHERE user_id = ?", (user_id,)
    ).fetchone()
    rows = db.execute("SELECT device_id, json FROM remote_devices WHERE user_id = ?", (user_id,)).fetchall()
    return UserKeys(
        {device_id: json.loads(text) for device_id, text in rows},
        None if master is None else json.loads(master),
        None if self_signing is None else json.loads(self_signing),
    )


def replace(tx: Tx, user_id: str, keys: UserKeys, stream_id: int | None) -> bool:
    """Keep a list that was fetched. False: it is what was kept before."""
    known = (
        tx.execute("SELECT 1 FROM remote_device_lists WHERE user_id = ?", (user_id,)).fetchone() is not None
    )
    changed = not known or _read(tx, user_id) != keys
    pos = tx.execute("SELECT pos FROM stream").fetchone()[0]
    tx.execute("DELETE FROM remote_device_lists WHERE user_id = ?", (user_id,))
    tx.execute(
        "INSERT INTO remote_device_lists VALUES (?, ?, ?, 0, ?, ?)",
        (user_id, stream_id, pos, _text(keys.master), _text(keys.self_signing)),
    )
    for device_id, device in keys.devices.items():
        put_device(tx, user_id, device_id, device)
    return changed


def put_device(tx: Tx, user_id: str, device_id: str, device: JsonObject | None) -> None:
    """One device of a kept list; None: it has no keys, or is gone."""
    tx.execute("DELETE FROM remote_devices WHERE user_id = ? AND device_id = ?", (user_id, device_id))
    if device is not None:
        tx.execute("INSERT INTO remote_devices VALUES (?, ?, ?)", (user_id, device_id, _text(device)))


def count_devices(db: Reader, user_id: str) -> int:
    return int(db.execute("SELECT COUNT(*) FROM remote_devices WHERE user_id = ?", (user_id,)).fetchone()[0])


def advance(tx: Tx, user_id: str, stream_id: int) -> None:
    """A change was taken in."""
    tx.execute("UPDATE remote_device_lists SET stream_id = ? WHERE user_id = ?", (stream_id, user_id))


def put_cross_signing(
    tx: Tx, user_id: str, master: JsonObject | None, self_signing: JsonObject | None
) -> None:
    """Keys of a kept list that were changed; None: this one was not."""
    tx.execute(
        "UPDATE remote_device_lists SET master = COALESCE(?, master), "
        "self_signing = COALESCE(?, self_signing) WHERE user_id = ?",
        (_text(master), _text(self_signing), user_id),
    )


def mark_stale(tx: Tx, user_id: str) -> None:
    tx.execute("UPDATE remote_device_lists SET stale = 1 WHERE user_id = ?", (user_id,))


def forget(tx: Tx, user_id: str) -> None:
    tx.execute("DELETE FROM remote_device_lists WHERE user_id = ?", (user_id,))


def stale(db: Reader) -> list[str]:
    """Users whose lists must be fetched again."""
    return [
        row[0] for row in db.execute("SELECT user_id FROM remote_device_lists WHERE stale = 1").fetchall()
    ]


def unshared(db: Reader) -> list[str]:
    """Users whose lists are worth nothing, since there was a time without a shared room. For a scan."""
    return [
        row[0]
        for row in db.execute(
            f"SELECT l.user_id FROM remote_device_lists l WHERE NOT {_SHARED_SINCE}"
        ).fetchall()
    ]


def _text(value: JsonObject | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
