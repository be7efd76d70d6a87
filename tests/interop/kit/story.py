# SPDX-License-Identifier: Apache-2.0
"""Running a client's program, which tells step by step what it saw: lines that begin with `ok` or `FAIL`."""

from __future__ import annotations

from collections.abc import Sequence

import trio

STORY_SECONDS = 180.0


async def run_story(command: Sequence[str]) -> list[str]:
    """The steps that were seen; fails with them if the program does."""
    with trio.fail_after(STORY_SECONDS):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    steps = [line for line in done.stdout.decode().splitlines() if line.startswith(("ok  ", "FAIL"))]
    assert done.returncode == 0, "\n".join(steps) + done.stderr.decode()[-3000:]
    return steps
