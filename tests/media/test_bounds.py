# SPDX-License-Identifier: Apache-2.0
"""The small bounds: buckets, memories of failures, and work that is shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from minihs.matrix.errors import MatrixError, not_found
from minihs.media import shrink
from minihs.media.bounds import MAX_REMEMBERED, FailureMemory, KeyedLimit, LeakyBuckets
from minihs.media.shared import SharedJobs
from tests.media.kit import opened, picture


async def test_a_bucket_fills_and_leaks() -> None:
    buckets = LeakyBuckets(100, 10)
    buckets.add("a", 100)
    assert not buckets.has_room("a")
    assert buckets.has_room("b")
    await trio.sleep(1)
    assert buckets.has_room("a")
    buckets.add("a", 10)
    assert not buckets.has_room("a")
    await trio.sleep(1000)
    buckets.add("a", 99)
    assert buckets.has_room("a")


async def test_buckets_and_failures_are_kept_for_so_many_and_no_more() -> None:
    buckets, failures = LeakyBuckets(100, 1), FailureMemory()
    for number in range(MAX_REMEMBERED + 1):
        buckets.add(str(number), 100)
        failures.remember(number, not_found("x"), 10)
    assert buckets.has_room("0")
    assert not buckets.has_room("1")
    failures.check(0)
    with pytest.raises(MatrixError):
        failures.check(1)
    assert len(failures) == MAX_REMEMBERED
    await trio.sleep(11)
    failures.check(1)


async def test_so_many_at_once_for_each_key() -> None:
    limit, now, most = KeyedLimit(2), 0, 0

    async def work(key: str) -> None:
        nonlocal now, most
        async with limit.slot(key):
            now += 1
            most = max(most, now)
            await trio.sleep(1)
            now -= 1

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for key in ("a", "a", "a", "a", "b"):
            nursery.start_soon(work, key)
    assert most == 3
    assert trio.current_time() - started == pytest.approx(2)
    assert limit._semaphores == {}


async def test_work_is_done_once_and_a_failure_is_everybodys() -> None:
    runs = 0

    async def fail() -> None:
        nonlocal runs
        runs += 1
        await trio.sleep(1)
        raise not_found("Not here.")

    errors: list[MatrixError] = []
    async with trio.open_nursery() as jobs_nursery:
        jobs = SharedJobs(jobs_nursery)

        async def ask() -> None:
            try:
                await jobs.result("key", fail)
            except MatrixError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
    assert runs == 1
    assert [error.errcode for error in errors] == ["M_NOT_FOUND"] * 3
    assert len(set(map(id, errors))) == 3
    assert len(jobs) == 0


async def test_a_bug_in_shared_work_ends_nothing_else() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        jobs = SharedJobs(nursery)
        with pytest.raises(MatrixError) as caught:
            await jobs.result("key", fail)
        assert caught.value.status == 500


async def test_who_waits_for_work_is_told_when_the_server_stops() -> None:
    async with trio.open_nursery() as outer:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                jobs = SharedJobs(nursery)
                seen: list[int] = []

                async def ask() -> None:
                    try:
                        await jobs.result("key", trio.sleep_forever)
                    except MatrixError as error:
                        seen.append(error.status)

                outer.start_soon(ask)
                await trio.sleep(1)
                scope.cancel()
    assert seen == [503]


def test_the_single_file_makes_pictures_small_by_calling_itself(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(picture((400, 200)))
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        limits = ["1000000", str(1 << 30), "10", str(1 << 20)]
        done = subprocess.run(
            [sys.executable, "-m", "minihs", "--shrink-picture", "PNG", "96", "96", "crop", *limits],
            stdin=source,
            stdout=target,
            check=False,
        )
    assert done.returncode == shrink.DONE
    assert opened((tmp_path / "out").read_bytes()).size == (96, 96)
