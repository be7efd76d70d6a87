# SPDX-License-Identifier: Apache-2.0
"""`minihs serve`: run the server in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import trio

from minihs.cli import settings
from minihs.cli.logs import set_up_logs
from minihs.config import Config
from minihs.runtime import Runtime, is_plausible
from minihs.server import Server

log = structlog.get_logger(__name__)

OPEN_FILES = 4096
"""Connections in and out, and the database; systems often allow 1,024 unless asked for more."""

YOUNG_OBJECTS = 20_000
"""Containers made and not yet gone, after which the youngest are looked through; Python's own is 2,000."""


def serve(path: Path | None, log_level: str) -> int:
    set_up_logs(log_level)
    config = settings.find(path)
    if config is None:
        from minihs.cli.self_signed import ensure_self_signed  # X.509, which a start otherwise does without

        config = settings.local(Path.cwd(), os.environ)
        ensure_self_signed(config)
        print(
            f"There is no ./minihs.toml, so this is a local server to try out: {settings.LOCAL_NAME}, with a "
            f"self-signed certificate.\nIts data is in {config.data_dir}. `minihs init` sets up a real one.",
            file=sys.stderr,
        )
    raise_file_limit()
    if not is_plausible(Runtime().clock.now_ms()):
        log.error(
            "the clock is wrong: it shows a time before 2024. Until it is right other servers are refused, "
            "and nothing can be said in rooms."
        )
    spare_the_collector()
    trio.run(run, config)
    return 0


async def run(config: Config) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with Server.open(config) as server, trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals, server)
            await server.serve()
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def obey(signals: AsyncIterator[int], server: Server) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            server.edge.reload_tls()
        else:
            log.info("stopping", signal=signal.Signals(number).name)
            server.stop()


def spare_the_collector() -> None:
    """What was imported stays for good, and need not be looked through by each garbage collection. Most of
    what a request makes is gone before a collection, if those are seldom: they took 7 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
