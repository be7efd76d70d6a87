# SPDX-License-Identifier: Apache-2.0
"""Events as the JSON that they are kept as, for passing them on without making objects of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from minihs.store import ids, state, timeline
from minihs.store.database import Reader
from minihs.store.events import auth_chain
from minihs.store.packing import unpack


def by_nid(db: Reader, nids: Collection[int]) -> dict[int, bytes]:
    """The PDUs of those events that we hold."""
    found: dict[int, bytes] = {}
    for part in ids.chunks(nids):
        for nid, packed in db.execute(
            f"SELECT event_nid, json FROM event_json WHERE event_nid IN ({ids.marks(len(part))})", part
        ).fetchall():
            found[nid] = unpack(packed)
    return found


def of_nids(db: Reader, nids: Collection[int]) -> list[bytes]:
    """The same, in the order of the numbers given."""
    found = by_nid(db, nids)
    return [found[nid] for nid in nids if nid in found]


def state_and_chain(db: Reader, group: int | None, also: Collection[int] = ()) -> tuple[list[int], list[int]]:
    """The numbers of a whole state's events, and of the auth chain of these and of `also`. For a scan."""
    nids = [] if group is None else list(state.read_group(db, group).values())
    return nids, sorted(auth_chain(db, [*nids, *also]))


def state_without_members(
    db: Reader, group: int | None, keep: Sequence[str], also: Collection[int]
) -> tuple[list[int], list[int]]:
    """The same for a state cut down to what is no membership, but for those of the users to `keep`. The chain
    leaves out what is in the state. For a scan."""
    by_key = {} if group is None else state.read_group(db, group)
    members = timeline.state_keys_of_type(db, by_key.keys(), "m.room.member")
    kept = [nid for key, nid in by_key.items() if key not in members or members[key] in keep]
    return kept, sorted(auth_chain(db, [*kept, *also]) - set(kept))


def heroes(db: Reader, group: int | None, room_nid: int, joining: str, limit: int) -> list[str]:
    """Who gives a room without a name and alias its name: the first members besides who is joining."""
    for type in ("m.room.name", "m.room.canonical_alias"):
        key = ids.key_nid(db, type, "")
        if group is None or (key is not None and state.lookup(db, group, [key])):
            return []
    rows = db.execute(
        "SELECT user_id FROM memberships WHERE room_nid = ? AND membership IN ('join', 'invite') "
        "AND user_id != ? ORDER BY pos, user_id LIMIT ?",
        (room_nid, joining, limit),
    ).fetchall()
    return [row[0] for row in rows]
