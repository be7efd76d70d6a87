# SPDX-License-Identifier: Apache-2.0
"""Runs `shrink.py`: a short-lived process for each thumbnail, two at once at most.

The format is told by the first bytes, never by what somebody says it is, and only four are ever opened.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

import structlog
import trio

from minihs.media import shrink
from minihs.media.files import Incoming, OpenFile
from minihs.runtime import Threads

AT_ONCE = 2
WALL_SECONDS = 20.0
CPU_SECONDS = 10
MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded: 200 MB at four bytes each."""
MAX_MEMORY = 768 * 1024 * 1024
MAX_OUTPUT = 16 * 1024 * 1024

HEAD_BYTES = 16

SHRINK_FLAG = "--shrink-picture"
"""How a single-file minihs, which has no Python to call, is told to be `shrink.py`."""

log = structlog.get_logger(__name__)


class Verdict(Enum):
    DONE = auto()
    ORIGINAL_WILL_DO = auto()
    NOT_READABLE = auto()
    TOO_LARGE = auto()


_VERDICTS = {
    shrink.DONE: Verdict.DONE,
    shrink.ORIGINAL_WILL_DO: Verdict.ORIGINAL_WILL_DO,
    shrink.NOT_READABLE: Verdict.NOT_READABLE,
    shrink.TOO_LARGE: Verdict.TOO_LARGE,
    # The limits of memory and time show themselves as deaths.
    -signal.SIGXCPU: Verdict.TOO_LARGE,
    -signal.SIGKILL: Verdict.TOO_LARGE,
    -signal.SIGXFSZ: Verdict.TOO_LARGE,
}

PICTURE_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}


def picture_format(head: bytes) -> str | None:
    """Pillow's name of the format that a file with this beginning has; None if it is not one that we open."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return None


class Shrinker:
    """Mutable state: the processes that run; they belong to whoever waits for them, `stop` ends them."""

    def __init__(self, threads: Threads, environment: Mapping[str, str] | None = None) -> None:
        self._threads = threads
        self._slots = trio.Semaphore(AT_ONCE)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._environment = {
            name: value
            for name, value in (os.environ if environment is None else environment).items()
            if not name.startswith("MINIHS_")  # settings, secrets among them
        }
        self.available = importlib.util.find_spec("PIL") is not None
        """Without Pillow there are no thumbnails."""

    async def shrink(
        self, picture: OpenFile, kind: str, width: int, height: int, method: str, result: Incoming
    ) -> Verdict:
        async with self._slots:
            return await self._threads.run(
                self._run, picture.fileno(), result.descriptor, [kind, str(width), str(height), method]
            )

    def _run(self, source: int, target: int, what: list[str]) -> Verdict:
        """In a thread."""
        limits = [str(limit) for limit in (MAX_PIXELS, MAX_MEMORY, CPU_SECONDS, MAX_OUTPUT)]
        os.lseek(source, 0, os.SEEK_SET)
        process = subprocess.Popen(  # noqa: S603 - no shell, and no argument that a stranger chose
            [*command(), *what, *limits],
            stdin=source,
            stdout=target,
            stderr=subprocess.PIPE,
            cwd="/",
            env=self._environment,
            start_new_session=True,
        )
        self._running.add(process)
        if self._stopped:  # in this very moment
            end(process)
        try:
            _, complaint = process.communicate(timeout=WALL_SECONDS)
        except subprocess.TimeoutExpired:
            end(process)
            process.communicate()
            return Verdict.TOO_LARGE
        finally:
            self._running.discard(process)
        verdict = _VERDICTS.get(process.returncode)
        if verdict is None:
            log.warning(
                "a picture was too much for its decoder",
                status=process.returncode,
                complaint=complaint[-500:].decode("utf-8", "replace"),
            )
            return Verdict.NOT_READABLE
        return verdict

    def stop(self) -> None:
        """End what runs; the threads that wait for it go on."""
        self._stopped = True
        for process in list(self._running):
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """The process and, though it should have none, its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def command() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, SHRINK_FLAG]
    # By its path and isolated (-I): nothing of the environment or the current folder gets into it.
    return [sys.executable, "-I", str(Path(shrink.__file__))]
