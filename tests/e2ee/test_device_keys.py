# SPDX-License-Identifier: Apache-2.0
"""One-time keys under real threads and across a restart: each is handed out once, ever."""

from __future__ import annotations

from pathlib import Path

import trio

from minihs.e2ee.device_keys import DeviceKeys
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import devices, users
from minihs.store.database import Database, Tx

ALICE = Requester("@alice:example.org", "PHONE", 1)
CLAIM = {"one_time_keys": {ALICE.user_id: {ALICE.device_id: "a"}}}


def add_alice(tx: Tx) -> None:
    users.add(tx, ALICE.user_id, None, admin=False, now=0)
    devices.add(tx, ALICE.user_id, ALICE.device_id, None, now=0)


async def claim_many(keys: DeviceKeys, times: int) -> list[str]:
    """Claims at once, a few of which are cancelled on the way; what came back."""
    names: list[str] = []

    async def claim(scope: trio.CancelScope) -> None:
        with scope:
            answer = await keys.claim_local(CLAIM)
            for of_user in answer["one_time_keys"].values():
                names.extend(of_user[ALICE.device_id])

    async with trio.open_nursery() as nursery:
        for i in range(times):
            scope = trio.CancelScope()
            nursery.start_soon(claim, scope)
            if i % 7 == 3:
                await trio.lowlevel.checkpoint()
                scope.cancel()
    return names


async def test_no_key_is_handed_out_twice(tmp_path: Path) -> None:
    names: list[str] = []
    body = {"one_time_keys": {f"a:{i}": f"key {i}" for i in range(200)}}
    for restart in range(2):
        async with Database.open(tmp_path / "minihs.db", Runtime(), synchronous="OFF") as db:
            keys = DeviceKeys(db, Runtime(), "example.org", None)
            if not restart:
                await db.write(add_alice)
            await keys.upload(ALICE, body)
            names += await claim_many(keys, 60)
    assert len(names) == len(set(names))
    assert len(names) >= 100  # those of the cancelled claims are lost, as with an answer that doesn't arrive
