# SPDX-License-Identifier: Apache-2.0
"""The current state unfolded: state, memberships and resident servers for point reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from minihs.matrix.ids import domain_of
from minihs.store import device_lists, ids, state, sync_rooms, timeline
from minihs.store.database import Reader, Tx


class Membership(NamedTuple):
    room_nid: int
    user_id: str
    membership: str
    event_nid: int
    pos: int
    forgotten: bool
    stripped: str | None
    """JSON of invite_room_state or knock_room_state, of rooms that we are not in."""


_SELECT = "SELECT room_nid, user_id, membership, event_nid, pos, forgotten, stripped FROM memberships "


def get(db: Reader, room_nid: int, user_id: str) -> Membership | None:
    row = db.execute(_SELECT + "WHERE room_nid = ? AND user_id = ?", (room_nid, user_id)).fetchone()
    return None if row is None else Membership(*row)


def may_be_joined(db: Reader, room_nid: int, user_id: str) -> bool:
    """Is the user joined, as far as we know? Where not all members are known, whose server is in the room may
    be."""
    held = get(db, room_nid, user_id)
    if held is not None:
        return held.membership == "join"
    row = db.execute(
        "SELECT 1 FROM partial_joins p JOIN room_hosts r USING (room_nid) JOIN hosts h USING (host_nid) "
        "WHERE p.room_nid = ? AND p.completed_pos IS NULL AND h.host = ? AND r.joined > 0",
        (room_nid, domain_of(user_id)),
    ).fetchone()
    return row is not None


def was_host_in(db: Reader, room_nid: int, group: int, host: str) -> bool:
    """Was a user of that server joined in a state of the room? With many users, False may be an error."""
    users = sync_rooms.users_of_host(db, room_nid, host)
    held = state.lookup(db, group, timeline.member_keys(db, users).values())
    return any(row.membership == "join" for row in timeline.rows_of(db, held.values()).values())


def of_user(db: Reader, user_id: str) -> list[Membership]:
    return [Membership(*row) for row in db.execute(_SELECT + "WHERE user_id = ?", (user_id,)).fetchall()]


def local_joined(db: Reader, room_nid: int) -> list[str]:
    """Our own users who are joined."""
    return [
        row[0]
        for row in db.execute(
            "SELECT user_id FROM memberships WHERE room_nid = ? AND membership = 'join' AND local = 1",
            (room_nid,),
        ).fetchall()
    ]


def banned(db: Reader, room_nid: int, limit: int) -> list[str]:
    return [
        row[0]
        for row in db.execute(
            "SELECT user_id FROM memberships WHERE room_nid = ? AND membership = 'ban' LIMIT ?",
            (room_nid, limit),
        ).fetchall()
    ]


def local_left(db: Reader, room_nid: int) -> set[str]:
    """Our own users who left, or were banned."""
    return {
        row[0]
        for row in db.execute(
            "SELECT user_id FROM memberships "
            "WHERE room_nid = ? AND membership IN ('leave', 'ban') AND local = 1",
            (room_nid,),
        ).fetchall()
    }


def current_state_ids(db: Reader, room_nid: int) -> list[tuple[str, str, str]]:
    """(type, state_key, event_id) of the whole current state."""
    return list(
        db.execute(
            "SELECT k.type, k.state_key, i.event_id FROM current_state s JOIN state_keys k USING (key_nid) "
            "JOIN event_ids i USING (event_nid) WHERE s.room_nid = ?",
            (room_nid,),
        ).fetchall()
    )


def count_current_state(db: Reader, room_nid: int) -> int:
    """Events in the current state."""
    return int(db.execute("SELECT COUNT(*) FROM current_state WHERE room_nid = ?", (room_nid,)).fetchone()[0])


def current_state_event(db: Reader, room_nid: int, type: str, state_key: str) -> str | None:
    """The event id at one place of the current state."""
    row = db.execute(
        "SELECT i.event_id FROM state_keys k JOIN current_state s USING (key_nid) "
        "JOIN event_ids i USING (event_nid) WHERE s.room_nid = ? AND k.type = ? AND k.state_key = ?",
        (room_nid, type, state_key),
    ).fetchone()
    return None if row is None else str(row[0])


def apply_state_changes(
    tx: Tx,
    room_nid: int,
    group_nid: int,
    changes: Mapping[int, int | None],
    *,
    pos: int,
    our_name: str,
) -> bool:
    """Move the unfolded current state by `changes` (key_nid → event_nid, None: gone), as of `pos`.

    Returns whether the set of resident servers may have changed.
    """
    tx.execute("UPDATE rooms SET state_group = ? WHERE room_nid = ?", (group_nid, room_nid))
    tx.execute(
        "INSERT INTO room_states VALUES (?, ?, ?) "
        "ON CONFLICT (room_nid, pos) DO UPDATE SET group_nid = excluded.group_nid",
        (room_nid, pos, group_nid),
    )
    return unfold(tx, room_nid, changes, pos=pos, our_name=our_name)


def unfold(tx: Tx, room_nid: int, changes: Mapping[int, int | None], *, pos: int, our_name: str) -> bool:
    """Bring the tables for point reads up to date with changes of the current state, as of `pos`."""
    tx.executemany(
        "DELETE FROM current_state WHERE room_nid = ? AND key_nid = ?",
        [(room_nid, key_nid) for key_nid, event_nid in changes.items() if event_nid is None],
    )
    tx.executemany(
        "INSERT INTO current_state VALUES (?, ?, ?) "
        "ON CONFLICT (room_nid, key_nid) DO UPDATE SET event_nid = excluded.event_nid",
        [(room_nid, key_nid, event_nid) for key_nid, event_nid in changes.items() if event_nid is not None],
    )
    ours: dict[str, int | None] = {}
    others: dict[str, int | None] = {}
    for key_nid, (type, user_id) in ids.state_keys(tx, changes).items():
        # A member event whose state key is no user id concerns nobody.
        if type == "m.room.member" and ":" in user_id:
            (ours if domain_of(user_id) == our_name else others)[user_id] = changes[key_nid]
    hosts_changed = _set_others(tx, room_nid, others, pos=pos)
    for user_id, event_nid in ours.items():
        hosts_changed |= _set_ours(tx, room_nid, user_id, event_nid, pos=pos, our_name=our_name)
    return hosts_changed


def _set_others(tx: Tx, room_nid: int, users: Mapping[str, int | None], *, pos: int) -> bool:
    """Memberships of users of other servers, by their events. In a few statements, for they may be all the
    members of a large room."""
    hosts: dict[str, int] = {}
    more: Counter[str] = Counter()
    hosts_changed = False
    for part in ids.chunks(users):
        marks = ids.marks(len(part))
        before = dict(
            tx.execute(
                f"SELECT user_id, membership FROM memberships WHERE room_nid = ? AND user_id IN ({marks})",
                (room_nid, *part),
            ).fetchall()
        )
        nids = [users[user_id] or 0 for user_id in part]
        by_event = dict(
            tx.execute(
                f"SELECT event_nid, membership FROM events WHERE event_nid IN ({marks})", nids
            ).fetchall()
        )
        rows = []
        for user_id, nid in zip(part, nids, strict=True):
            after = (by_event[nid] if nid else None) or "leave"
            host = domain_of(user_id)
            if host not in hosts:
                hosts[host] = ids.intern_host(tx, host)
            rows.append((room_nid, user_id, hosts[host], after, nid, 0, pos, None))
            if step := (after == "join") - (before.get(user_id) == "join"):
                more[host] += step
                hosts_changed = True
        tx.executemany(_SET, rows)
    for host, step in more.items():
        if step and _count(tx, room_nid, hosts[host], step) == step:
            device_lists.announce_to_host(tx, room_nid, hosts[host], host)
    return hosts_changed


def _set_ours(tx: Tx, room_nid: int, user_id: str, event_nid: int | None, *, pos: int, our_name: str) -> bool:
    row = tx.execute(
        "SELECT membership FROM memberships WHERE room_nid = ? AND user_id = ?", (room_nid, user_id)
    ).fetchone()
    before = None if row is None else row[0]
    if event_nid is None:
        after, nid = "leave", 0
    else:
        row = tx.execute("SELECT membership FROM events WHERE event_nid = ?", (event_nid,)).fetchone()
        after, nid = row[0] or "leave", event_nid
    return _write(
        tx, room_nid, user_id, our_name, before, after, nid, pos=pos, our_name=our_name, stripped=None
    )


_SET = (
    "INSERT INTO memberships (room_nid, user_id, host_nid, membership, event_nid, local, pos, stripped) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (room_nid, user_id) "
    "DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid, pos = excluded.pos, "
    "stripped = excluded.stripped, "
    "forgotten = CASE WHEN excluded.membership IN ('leave', 'ban') THEN forgotten ELSE 0 END"
)


def _count(tx: Tx, room_nid: int, host_nid: int, step: int) -> int:
    """A server has so many more, or less, users joined to the room. How many it has."""
    row = tx.execute(
        "INSERT INTO room_hosts VALUES (?, ?, MAX(?, 0)) ON CONFLICT (room_nid, host_nid) "
        "DO UPDATE SET joined = MAX(joined + ?, 0) RETURNING joined",
        (room_nid, host_nid, step, step),
    ).fetchall()[0]
    return int(row[0])


def _write(
    tx: Tx,
    room_nid: int,
    user_id: str,
    host: str,
    before: str | None,
    after: str,
    event_nid: int,
    *,
    pos: int,
    our_name: str,
    stripped: str | None,
) -> bool:
    host_nid = ids.intern_host(tx, host)
    local = host == our_name
    tx.execute(_SET, (room_nid, user_id, host_nid, after, event_nid, int(local), pos, stripped))
    if local:
        tx.execute(
            "INSERT INTO membership_log VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id, pos, room_nid) "
            "DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid",
            (user_id, pos, room_nid, after, event_nid),
        )
        tx.wake(f"user:{user_id}")
    if (before == "join") == (after == "join"):
        return False
    _count(tx, room_nid, host_nid, 1 if after == "join" else -1)
    if after == "join" and local:
        device_lists.announce_user(tx, user_id, room_nid)
    return True


def set_out_of_band(
    tx: Tx,
    room_nid: int,
    room_id: str,
    user_id: str,
    membership: str,
    event_nid: int,
    *,
    our_name: str,
    stripped: str | None = None,
) -> int:
    """A local user's invite, knock or leave in a room that we are not in. Returns its `pos`."""
    pos = tx.next_pos()
    before = get(tx, room_nid, user_id)
    _write(
        tx,
        room_nid,
        user_id,
        domain_of(user_id),
        before.membership if before else None,
        membership,
        event_nid,
        pos=pos,
        our_name=our_name,
        stripped=stripped,
    )
    tx.wake(f"room:{room_id}")
    return pos


def end_stale(tx: Tx, room_nid: int, *, pos: int, our_name: str) -> None:
    """We are in the room now and know its state: an invite or knock of another user of ours that is not in
    it is over.
    """
    for user_id, membership in tx.execute(
        "SELECT m.user_id, m.membership FROM memberships m WHERE m.room_nid = ? AND m.local = 1 "
        "AND m.membership NOT IN ('leave', 'ban') AND NOT EXISTS (SELECT 1 FROM current_state s "
        "JOIN state_keys k USING (key_nid) WHERE s.room_nid = m.room_nid "
        "AND k.type = 'm.room.member' AND k.state_key = m.user_id)",
        (room_nid,),
    ).fetchall():
        _write(
            tx,
            room_nid,
            user_id,
            our_name,
            membership,
            "leave",
            0,
            pos=pos,
            our_name=our_name,
            stripped=None,
        )


def forget(tx: Tx, room_nid: int, user_id: str) -> None:
    tx.execute("UPDATE memberships SET forgotten = 1 WHERE room_nid = ? AND user_id = ?", (room_nid, user_id))


def drop_unfolded(tx: Tx, room_nid: int) -> None:
    """We left the room (or fetch its state anew): what is unfolded from state no longer holds.

    Rows of local users stay: they remember that they left.
    """
    tx.execute("DELETE FROM current_state WHERE room_nid = ?", (room_nid,))
    tx.execute("DELETE FROM room_hosts WHERE room_nid = ?", (room_nid,))
    tx.execute("DELETE FROM memberships WHERE room_nid = ? AND local = 0", (room_nid,))
    tx.execute("DELETE FROM forward_extremities WHERE room_nid = ?", (room_nid,))
