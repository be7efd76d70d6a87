# SPDX-License-Identifier: Apache-2.0
"""Whole servers under one seed: chance, wall clocks and the order of trio's tasks all come from it, so that
the same seed gives the same run."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio

from minihs.testing.clock import VirtualClock, run_virtual
from minihs.testing.servers import Cluster, cluster

EPOCH_MS = 1_760_000_000_000
"""A fixed start; the certificates of the in-memory internet are valid for decades around it."""


def run_seeded[T](function: Callable[..., Awaitable[T]], seed: int, *args: Any) -> T:
    """Run `function(*args)` in virtual time, the same way for the same seed, and fail if anything was logged
    as an error: a task that crashed is contained and would not be noticed otherwise."""
    # trio orders the tasks that can run by this generator. (Hypothesis, which tests/conftest.py imports,
    # switches the rest of trio's scheduling to a repeatable order; a test of ours says so.)
    trio._core._run._r.seed(seed)
    with structlog.testing.capture_logs() as logs:
        result: T = run_virtual(partial(function, *args))
    errors = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    assert not errors, errors
    return result


@asynccontextmanager
async def stage(
    names: Sequence[str], folder: Path, *, seed: int, latency: float = 0.03, skew_ms: int = 0
) -> AsyncIterator[Cluster]:
    """Servers of these names, each with a wall clock that is wrong by up to `skew_ms`."""
    chance = random.Random(f"skew {seed}")
    async with cluster(folder=folder, seed=seed, latency=latency) as world:
        for name in names:
            world.clock = VirtualClock(EPOCH_MS + chance.randint(-skew_ms, skew_ms))
            await world.add(name)
        yield world
        for name in names:
            await world.stop(name)


async def crash(world: Cluster, name: str) -> None:
    """End a server as a power cut does: what its disk held at that moment is what it starts with next time.
    What it would still write when told to stop is lost."""
    server = world[name]
    server.host.down()  # at once, so that nothing that is written later can be acknowledged to anybody
    data, image = server.config.data_path, server.config.data_path.with_name(f"{name}.image")
    shutil.copytree(data, image)
    await world.stop(name)
    shutil.rmtree(data)
    image.rename(data)
