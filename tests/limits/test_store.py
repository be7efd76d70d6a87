# SPDX-License-Identifier: Apache-2.0
"""The bounds of the database and of what is read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store import database, direct, room_activity
from minihs.store.database import Reader
from tests.advisories.kit import MALLORY, siege


async def test_readers_have_caches_of_their_size(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        read = at.rooms.parts.db.read
        assert read.execute("PRAGMA cache_size").fetchone()[0] == -database.READER_CACHE_KIB

        def full(db: Reader) -> int:
            """Bytes that its cache of states holds when more was put there than it may hold."""
            for group in range(10**6, 10**6 + 3000):
                db.state_cache.put_state(group, dict.fromkeys(range(40)))  # type: ignore[arg-type]  # what is in it plays no role
            return db.state_cache.size

        assert 0 < full(read) <= database.STATE_CACHE_BYTES
        assert 0 < await at.rooms.parts.db.scan(full) <= database.SCANNER_STATE_CACHE_BYTES


async def test_a_rooms_last_activity_is_looked_for_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with siege(tmp_path) as at:
        await at.alice.send(at.room, "hello")
        for number in range(3):
            await at.alice.set_state(at.room, "m.room.topic", {"topic": f"{number}"})
        room_nid, read = at.rooms.parts.head(at.room).room_nid, at.rooms.parts.db.read
        for looked_at, found in ((3, False), (4, True)):
            monkeypatch.setattr(room_activity, "MAX_LOOKED_AT", looked_at)
            assert (room_activity.last_bump(read, room_nid, 0, 2**53) is not None) == found


async def test_a_direct_room_has_so_many_members(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        path = f"/user/{at.alice.user_id}/account_data/m.direct"
        await at.alice.put(path, {MALLORY: [at.room]})
        read = at.rooms.parts.db.read
        room_nid = at.rooms.parts.head(at.room).room_nid
        users = [f"@u{number}:peer.test" for number in range(direct.MAX_MEMBERS - 1)]
        await at.send(*(at.member({"membership": "join"}, user) for user in users[:-1]))
        assert room_nid in direct.rooms_of(read, at.alice.user_id)
        await at.send(at.member({"membership": "join"}, users[-1]))
        assert room_nid not in direct.rooms_of(read, at.alice.user_id)
