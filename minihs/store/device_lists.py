# SPDX-License-Identifier: Apache-2.0
"""Who has changed devices or cross-signing keys, and who is told of it.

For clients: the `pos` of each user's last change (`device_lists.changed` of /sync, /keys/changes). For other
servers: an `m.device_list_update` EDU to each that shares a room with the user (server-server-api, "Device
Management").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minihs.matrix.ids import domain_of
from minihs.store import device_keys
from minihs.store.database import Reader, Tx
from minihs.store.kept import ANY, DEVICE_LISTS, is_unwritten
from minihs.store.outbound_edus import queue_edu


def changed_among_contacts(db: Reader, user_id: str, since: int, upto: int) -> list[str]:
    """Of whom `user_id` is to be told, if they changed in since < pos ≤ upto: itself, who shares a room with
    it, and whose keys it signed.

    Only the last change of each is kept. So who changed both before and after `upto` is told with the next
    span; nobody is ever missed.
    """
    if is_unwritten(db, DEVICE_LISTS, ANY, since):
        return []
    rows = db.execute(
        "SELECT c.user_id FROM device_list_changes c WHERE c.pos > ? AND c.pos <= ? AND (c.user_id = ? "
        "OR EXISTS (SELECT 1 FROM memberships mine JOIN memberships theirs USING (room_nid) "
        "WHERE mine.user_id = ? AND mine.membership = 'join' "
        "AND theirs.user_id = c.user_id AND theirs.membership = 'join')) "
        "UNION SELECT user_id FROM signed_users WHERE signer = ? AND pos > ? AND pos <= ?",
        (since, upto, user_id, user_id, user_id, since, upto),
    ).fetchall()
    return [row[0] for row in rows]


def stream_id(db: Reader, user_id: str) -> int:
    """The newest stream_id that was given to a change of a local user; 0: there was none."""
    row = db.execute("SELECT stream_id FROM device_list_streams WHERE user_id = ?", (user_id,)).fetchone()
    return 0 if row is None else int(row[0])


def record_change(tx: Tx, user_id: str) -> int:
    """Tell the user's clients and those of everybody who shares a room with it. Returns the `pos`."""
    pos = tx.next_pos()
    tx.execute(
        "INSERT INTO device_list_changes VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET pos = "
        "excluded.pos",
        (user_id, pos),
    )
    tx.wake(f"user:{user_id}", *(f"user:{other}" for other in local_contacts(tx, user_id)))
    return pos


def record_signed(tx: Tx, signer: str, user_ids: Iterable[str]) -> None:
    """`signer` signed keys of others: only the signer's devices see those users as changed."""
    for user_id in user_ids:
        tx.execute(
            "INSERT INTO signed_users VALUES (?, ?, ?) "
            "ON CONFLICT (signer, user_id) DO UPDATE SET pos = excluded.pos",
            (signer, user_id, tx.next_pos()),
        )
    tx.wake(f"user:{signer}")


def record_device_change(tx: Tx, user_id: str, device_id: str, *, deleted: bool = False) -> None:
    """A device of a local user changed its keys or name, or is gone: tell clients and other servers."""
    pos = record_change(tx, user_id)
    hosts = hosts_of_contacts(tx, user_id)
    previous = stream_id(tx, user_id)
    tx.execute(
        "INSERT INTO device_list_streams VALUES (?, ?) "
        "ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id",
        (user_id, pos),
    )
    if not hosts:
        return
    content: dict[str, Any] = {
        "user_id": user_id,
        "device_id": device_id,
        "stream_id": pos,
        "prev_id": [previous] if previous else [],
    }
    if deleted:
        content["deleted"] = True
    else:
        device = device_keys.visible(tx, user_id, [device_id], None).get(device_id)
        name = display_name(tx, user_id, device_id)
        if name is not None:
            content["device_display_name"] = name
        if device is not None:
            content["keys"] = {field: value for field, value in device.items() if field != "unsigned"}
    for host in hosts:
        queue_edu(tx, host, "m.device_list_update", content)


UNKNOWN_STREAM_ID = 0
"""Never given to a change: who is told that this came before must ask for the whole list."""


def announce_user(tx: Tx, user_id: str, room_nid: int) -> None:
    """A local user joined: the other servers in the room must be told of its devices from now on."""
    content = _announcement(tx, user_id)
    if content is None:
        return
    rows = tx.execute(
        "SELECT h.host FROM room_hosts r JOIN hosts h USING (host_nid) "
        "WHERE r.room_nid = ? AND r.joined > 0 AND h.host != ? AND r.host_nid NOT IN "
        "(SELECT o.host_nid FROM memberships m JOIN room_hosts o USING (room_nid) WHERE m.user_id = ? "
        "AND m.membership = 'join' AND m.room_nid != ? AND o.joined > 0)",
        (room_nid, domain_of(user_id), user_id, room_nid),
    ).fetchall()
    for row in rows:
        queue_edu(tx, row[0], "m.device_list_update", content)


def announce_to_host(tx: Tx, room_nid: int, host_nid: int, host: str) -> None:
    """A server came into the room: it must be told of the devices of our users there from now on."""
    rows = tx.execute(
        "SELECT user_id FROM memberships u WHERE room_nid = ? AND membership = 'join' AND local = 1 "
        "AND NOT EXISTS (SELECT 1 FROM memberships m JOIN room_hosts o USING (room_nid) "
        "WHERE m.user_id = u.user_id AND m.membership = 'join' AND m.room_nid != u.room_nid "
        "AND o.host_nid = ? AND o.joined > 0)",
        (room_nid, host_nid),
    ).fetchall()
    for row in rows:
        content = _announcement(tx, row[0])
        if content is not None:
            queue_edu(tx, host, "m.device_list_update", content)


def _announcement(tx: Tx, user_id: str) -> dict[str, Any] | None:
    """An update that has its receiver ask for all of the user's devices."""
    for device_id, device in device_keys.visible(tx, user_id, None, None).items():
        content: dict[str, Any] = {
            "user_id": user_id,
            "device_id": device_id,
            "stream_id": stream_id(tx, user_id),
            "prev_id": [UNKNOWN_STREAM_ID],
            "keys": {field: value for field, value in device.items() if field != "unsigned"},
        }
        name = display_name(tx, user_id, device_id)
        return content if name is None else {**content, "device_display_name": name}
    return None


def display_name(db: Reader, user_id: str, device_id: str) -> str | None:
    row = db.execute(
        "SELECT display_name FROM devices WHERE user_id = ? AND device_id = ?", (user_id, device_id)
    ).fetchone()
    return None if row is None else row[0]


def local_contacts(db: Reader, user_id: str) -> list[str]:
    """Our users who share a room with the user."""
    rows = db.execute(
        "SELECT DISTINCT theirs.user_id FROM memberships mine JOIN memberships theirs USING (room_nid) "
        "WHERE mine.user_id = ? AND mine.membership = 'join' AND theirs.local = 1 "
        "AND theirs.membership = 'join' AND theirs.user_id != mine.user_id",
        (user_id,),
    ).fetchall()
    return [row[0] for row in rows]


def share_a_room(db: Reader, one: str, other: str) -> bool:
    row = db.execute(
        "SELECT 1 FROM memberships a JOIN memberships b USING (room_nid) WHERE a.user_id = ? "
        "AND a.membership = 'join' AND b.user_id = ? AND b.membership = 'join' LIMIT 1",
        (one, other),
    ).fetchone()
    return row is not None


def hosts_of_contacts(db: Reader, user_id: str) -> list[str]:
    """The other servers that share a room with a local user."""
    rows = db.execute(
        "SELECT DISTINCT h.host FROM memberships m JOIN room_hosts r USING (room_nid) "
        "JOIN hosts h ON h.host_nid = r.host_nid "
        "WHERE m.user_id = ? AND m.membership = 'join' AND r.joined > 0 AND h.host != ?",
        (user_id, domain_of(user_id)),
    ).fetchall()
    return [row[0] for row in rows]


def met_and_left(db: Reader, user_id: str, since: int) -> tuple[set[str], set[str]]:
    """Who may share a room with `user_id` only since then, and who may have left all of its rooms since.

    Goes through the members of all the user's rooms: for a scan.
    """
    mine = db.execute(
        "SELECT m.room_nid, membership, MAX(pos, COALESCE(completed_pos, 0)) FROM memberships m "
        "LEFT JOIN partial_joins USING (room_nid) WHERE user_id = ? "
        "AND (membership = 'join' OR (membership IN ('leave', 'ban') AND pos > ?))",
        (user_id, since),
    ).fetchall()
    met: set[str] = set()
    left: set[str] = set()
    for room_nid, membership, pos in mine:
        # Of a room that we joined or left in between, or whose members we did not know, all are news.
        after = -1 if pos > since else since
        for other, theirs in db.execute(
            "SELECT user_id, membership FROM memberships WHERE room_nid = ? AND pos > ?", (room_nid, after)
        ).fetchall():
            if membership == "join" and theirs == "join":
                met.add(other)
            elif "join" in (membership, theirs):
                left.add(other)
    return met - {user_id}, {other for other in left - {user_id} if not share_a_room(db, user_id, other)}
