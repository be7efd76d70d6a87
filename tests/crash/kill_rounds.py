# SPDX-License-Identifier: Apache-2.0
"""A program: forks a server under load, kills it at a random moment, looks for losses, and again on the same
files.

python -m tests.crash.kill_rounds FOLDER ROUNDS SEED

It forks rather than starts its children, so that a round takes a fraction of a second. The last line it
prints is JSON: rounds, entries acknowledged, and what was wrong.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from functools import partial
from pathlib import Path

import sqlite_utils  # noqa: F401 - once, before forking, not in each child
import trio

from minihs.runtime import Runtime
from minihs.store import database as database_module
from minihs.store.database import Database, Tx
from tests.crash import ledger

TASKS = 12


async def serve(path: Path, pipe: int, seed: int) -> None:
    database_module.CHECKPOINT_PAGES = 60  # so that the kill often falls into a checkpoint
    chance = random.Random(seed)
    async with (
        Database.open(path, Runtime(), migrations=ledger.MIGRATIONS) as db,
        trio.open_nursery() as nursery,
    ):
        for task in range(TASKS):
            nursery.start_soon(work, db, pipe, task, chance)
        nursery.start_soon(fail_all_the_time, db)


async def work(db: Database, pipe: int, task: int, chance: random.Random) -> None:
    number = ledger.last(db.read, task)
    while True:
        number += 1
        padding = chance.choice([0, 30, 300, 6000])
        await db.write(partial(ledger.enter, task=task, number=number, padding=padding))
        os.write(pipe, b"%d %d\n" % (task, number))  # short, so it is atomic


async def fail_all_the_time(db: Database) -> None:
    """A neighbour in the same commits whose savepoint is always rolled back."""

    def fail(tx: Tx) -> None:
        ledger.enter(tx, 0, 10**9, 500)
        raise KeyError

    while True:
        try:
            await db.write(fail)
        except KeyError:
            await trio.sleep(0.001)


def play_round(path: Path, chance: random.Random, acknowledged: dict[int, int]) -> list[str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        trio.run(serve, path, writing, chance.getrandbits(32))
        os._exit(0)
    os.close(writing)
    received = read_until_first(reading)
    time.sleep(chance.uniform(0, 0.35) if received else 0)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(reading, 1 << 16):
        received += more
    os.close(reading)
    for line in received.decode().splitlines():
        task, number = map(int, line.split())
        acknowledged[task] = max(number, acknowledged.get(task, 0))
    wrong = ledger.inspect(path, acknowledged)
    if not received or os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        wrong.append("the child did not work until it was killed")
    return wrong


def read_until_first(pipe: int) -> bytes:
    ready, _, _ = select.select([pipe], [], [], 20)
    return os.read(pipe, 1 << 16) if ready else b""


def main(folder: str, rounds: str, seed: str) -> None:
    chance = random.Random(int(seed))
    acknowledged: dict[int, int] = {}
    wrong: list[str] = []
    for number in range(int(rounds)):
        wrong += [
            f"round {number}: {what}" for what in play_round(Path(folder) / "test.db", chance, acknowledged)
        ]
    print(json.dumps({"rounds": int(rounds), "acknowledged": sum(acknowledged.values()), "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
