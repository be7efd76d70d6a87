# SPDX-License-Identifier: Apache-2.0
"""Access tokens are kept in memory, and what changes any of them is noticed at once, whatever it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.matrix.errors import MatrixError
from minihs.runtime import InlineThreads, Runtime
from minihs.store import tokens, users
from minihs.store.database import Database, Reader, Tx
from minihs.users.secrets import digest
from minihs.users.sessions import KNOWN_BYTES, KNOWN_TOKEN_BYTES, NewSession, Sessions

ALICE = "@alice:a.test"


async def log_in(db: Database, sessions: Sessions) -> NewSession:
    new = sessions.new(None, None, refreshable=False, remote_address=None)

    def begin(tx: Tx) -> None:
        users.add(tx, ALICE, None, admin=False, now=1)
        new.begin(tx, ALICE)

    await db.write(begin)
    return new


@pytest.mark.parametrize("inline", [True, False])
async def test_a_token_is_looked_up_once_and_every_change_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    looked_up: list[bytes] = []
    find = tokens.access_token

    def counted(db: Reader, wanted: bytes) -> tokens.AccessToken | None:
        looked_up.append(wanted)
        return find(db, wanted)

    monkeypatch.setattr(tokens, "access_token", counted)
    runtime = Runtime(threads=InlineThreads()) if inline else Runtime()
    async with Database.open(tmp_path / "db", runtime, inline=inline, synchronous="OFF") as db:
        sessions = Sessions(db, runtime)
        new = await log_in(db, sessions)
        assert sessions.requester_for_token(new.access) == sessions.requester_for_token(new.access)
        assert looked_up == [digest(new.access)]
        await db.write(lambda tx: tx.execute("UPDATE stream SET pos = pos + 1").rowcount)
        assert sessions.requester_for_token(new.access) is not None
        assert len(looked_up) == 1

        async def change(statement: str) -> None:
            await db.write(lambda tx: tx.execute(statement).rowcount)

        await change("UPDATE users SET suspended = 1")
        requester = sessions.requester_for_token(new.access)
        assert requester is not None
        assert requester.is_suspended
        await change("UPDATE users SET suspended = 0, locked = 1")
        with pytest.raises(MatrixError):
            sessions.requester_for_token(new.access)
        await change("UPDATE users SET locked = 0, admin = 1")
        requester = sessions.requester_for_token(new.access)
        assert requester is not None
        assert requester.is_admin
        await change("UPDATE access_tokens SET expires_ts = 5")
        with pytest.raises(MatrixError):
            sessions.requester_for_token(new.access)
        await change("UPDATE access_tokens SET expires_ts = NULL")
        assert sessions.requester_for_token(new.access) is not None
        await change("DELETE FROM devices")
        assert sessions.requester_for_token(new.access) is None


async def test_the_tokens_in_memory_have_an_end(tmp_path: Path) -> None:
    runtime = Runtime(threads=InlineThreads())
    async with Database.open(tmp_path / "db", runtime, inline=True, synchronous="OFF") as db:
        sessions = Sessions(db, runtime)
        most = KNOWN_BYTES // KNOWN_TOKEN_BYTES
        made = [await log_in(db, sessions) for _ in range(most + 1)]
        for new in made:
            assert sessions.requester_for_token(new.access) is not None
        assert len(sessions._known) == most
