# SPDX-License-Identifier: Apache-2.0
"""Long answers to other servers, sent while they are read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from minihs.rooms.answers import EventsAnswer
from minihs.web.routing import Answer

_JSON = {"Content-Type": "application/json"}


def streamed(answer: EventsAnswer, *, before: bytes = b"", after: bytes = b"") -> Answer:
    return Answer(body=_chunks(answer, before, after), headers=_JSON)


async def _chunks(answer: EventsAnswer, before: bytes, after: bytes) -> AsyncGenerator[bytes]:
    if before:
        yield before
    async with aclosing(answer.stream()) as chunks:
        async for chunk in chunks:
            yield chunk
    if after:
        yield after
