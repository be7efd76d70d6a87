# SPDX-License-Identifier: Apache-2.0
"""A program: a server on a disk that fails; run with fault.c preloaded.

python -m tests.crash.faults FOLDER SCENARIO

Each play of a scenario is a forked child that ends without closing anything (`kill -9` or its own failure),
so that what the next start finds is what the writer left. The last line printed is JSON: what was wrong, and
what happened.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import sqlite_utils  # noqa: F401 - once, before forking, not in each child
import trio

from minihs.runtime import Runtime
from minihs.store import database as database_module
from minihs.store.database import Database
from minihs.store.errors import WriterStopped
from tests.crash import ledger

FSYNC_EIO, WRITE_ENOSPC, WRITE_EIO, TORN_ENOSPC = 1, 2, 3, 4
TASKS = 6

shim = ctypes.CDLL(None)


type Entries = dict[str, list[tuple[int, int]]]


class Outcomes(dict[str, list[tuple[int, int]]]):
    """What became of the entries (task, number): "written", "stopped", or SQLite's name of the error."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe = pipe

    def add(self, outcome: str, task: int, number: int) -> None:
        self.setdefault(outcome, []).append((task, number))

    def report(self) -> None:
        """Tell the parent."""
        os.write(self._pipe, json.dumps(self).encode())


async def attempt(db: Database, task: int, number: int, outcomes: Outcomes) -> None:
    try:
        await db.write(lambda tx: ledger.enter(tx, task, number, 3000))
    except sqlite3.Error as error:
        outcomes.add(error.sqlite_errorname, task, number)
    except WriterStopped:
        outcomes.add("stopped", task, number)
    else:
        outcomes.add("written", task, number)


async def all_at_once(db: Database, number: int, outcomes: Outcomes) -> None:
    async with trio.open_nursery() as nursery:
        for task in range(TASKS):
            nursery.start_soon(attempt, db, task, number, outcomes)


async def commit_fails(path: Path, kind: int, after: int, outcomes: Outcomes) -> None:
    """The disk fails in the middle of things; what is attempted afterwards must not be written either."""
    async with Database.open(path, Runtime(), migrations=ledger.MIGRATIONS) as db:
        await all_at_once(db, 1, outcomes)
        shim.minihs_fault(kind, after, 1)
        with trio.CancelScope(shield=True):  # so that it gets its answers although open() cancels
            await all_at_once(db, 2, outcomes)
            await all_at_once(db, 3, outcomes)
            await trio.sleep(0.05)
        outcomes.add("hits", shim.minihs_fault_hits(), 0)


async def disk_full(path: Path, kind: int, after: int, outcomes: Outcomes) -> None:
    """No space for a while: writes fail, reads work, and once there is space again all goes on."""
    async with Database.open(path, Runtime(), migrations=ledger.MIGRATIONS) as db:
        await all_at_once(db, 1, outcomes)
        shim.minihs_fault(kind, after, -1)
        await all_at_once(db, 2, outcomes)
        assert ledger.last(db.read, 0) in (1, 2)
        await all_at_once(db, 3, outcomes)
        shim.minihs_fault(0, 0, 0)
        await all_at_once(db, 4, outcomes)
        outcomes.report()
        os.kill(os.getpid(), signal.SIGKILL)


type Scenario = Callable[[Path, int, int, Outcomes], Awaitable[None]]


def play(
    function: Scenario, path: Path, kind: int, after: int
) -> tuple[int, dict[str, list[tuple[int, int]]]]:
    """The exit status of a child that runs `function`, and what became of its writes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        outcomes = Outcomes(writing)
        status = 0
        try:
            trio.run(function, path, kind, after, outcomes)
        except WriterStopped:
            status = 3
        outcomes.report()
        os._exit(status)
    os.close(writing)
    data = b""
    while more := os.read(reading, 1 << 16):
        data += more
    os.close(reading)
    _, status = os.waitpid(child, 0)
    outcomes_read = json.loads(data or b"{}")
    return os.waitstatus_to_exitcode(status), {
        outcome: [(task, number) for task, number in entries] for outcome, entries in outcomes_read.items()
    }


def look(path: Path, outcomes: Entries) -> list[str]:
    """Which of the entries that were acknowledged are not there."""
    present = ledger.entries_of_copy(path)
    lost = [entry for entry in outcomes.get("written", []) if entry not in present]
    return [f"lost {entry}" for entry in lost]


def play_failed_commits(folder: Path, kind: int, depth: int) -> tuple[list[str], int]:
    wrong, struck = [], 0
    for after in range(depth):
        path = folder / f"{kind}-{after}.db"
        status, outcomes = play(commit_fails, path, kind, after)
        where = f"kind {kind} after {after}"
        wrong += [f"{where}: {what}" for what in look(path, outcomes)]
        if outcomes.get("hits", [(1, 0)]) == [(0, 0)]:
            continue  # the call that was to fail never came
        struck += 1
        if status != 3:
            wrong.append(f"{where}: exit status {status}")
        if others := outcomes.keys() - {"written", "stopped", "hits"}:
            wrong.append(f"{where}: taken for failed, though it is unknown: {others}")
        first = min((number for _, number in outcomes.get("stopped", [])), default=4)
        later = [entry for entry in outcomes.get("written", []) if entry[1] > first]
        if later:
            wrong.append(f"{where}: written after the writer had failed: {later}")
    return wrong, struck


def play_full_disks(folder: Path, kind: int, depth: int) -> tuple[list[str], int]:
    wrong, struck = [], 0
    for after in range(depth):
        path = folder / f"{kind}-{after}.db"
        status, outcomes = play(disk_full, path, kind, after)
        where = f"kind {kind} after {after}"
        wrong += [f"{where}: {what}" for what in look(path, outcomes)]
        if status != -signal.SIGKILL:
            wrong.append(f"{where}: the server did not survive: {status}, {outcomes}")
            continue
        refused = outcomes.get("SQLITE_FULL", [])
        struck += bool(refused)
        back = [entry for entry in refused if entry in ledger.entries_of_copy(path)]
        if back:
            wrong.append(f"{where}: refused for lack of space, and yet there after the crash: {back}")
        if [entry for entry in outcomes.get("written", []) if entry[1] == 4] == []:
            wrong.append(f"{where}: nothing could be written once there was space again: {outcomes}")
        if others := outcomes.keys() - {"written", "SQLITE_FULL"}:
            wrong.append(f"{where}: unexpected {others}")
    return wrong, struck


SCENARIOS = {
    "fsync": lambda folder: play_failed_commits(folder, FSYNC_EIO, 6),
    "write": lambda folder: play_failed_commits(folder, WRITE_EIO, 14),
    "full": lambda folder: play_full_disks(folder, WRITE_ENOSPC, 16),
    "torn": lambda folder: play_full_disks(folder, TORN_ENOSPC, 16),
}


def main(folder: str, scenario: str) -> None:
    database_module.CHECKPOINT_PAGES = 1  # so that failures meet checkpoints as well as commits
    wrong, struck = SCENARIOS[scenario](Path(folder))
    print(json.dumps({"wrong": wrong, "struck": struck}))


if __name__ == "__main__":
    main(*sys.argv[1:])
