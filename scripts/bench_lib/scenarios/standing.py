# SPDX-License-Identifier: Apache-2.0
"""What a server costs that only stands there: starting, memory, CPU, and bytes on disk."""

from __future__ import annotations

import statistics

import trio

from scripts.bench_lib.measure import Span, quiet, wall_clock
from scripts.bench_lib.subject import Subject

MIB = 1024 * 1024


async def standing(subject: Subject) -> dict[str, float]:
    """Cold start, and memory and CPU at rest with a number of rooms."""
    server, sizes = subject.server, subject.sizes
    client = await subject.person()
    for number in range(sizes.rooms):
        room = await client.create_room(preset="private_chat", name=f"Room {number}")
        await client.say(room, "hello")
    starts = []
    for _ in range(sizes.starts):
        await server.stop()
        await client.aclose()
        span = Span()
        with wall_clock(span):
            await server.start(poll=0.01)
        starts.append(span.wall)
    await client.sync()
    await quiet(server)
    before = server.cpu_seconds()
    await trio.sleep(sizes.idle_seconds)
    used = server.cpu_seconds() - before
    return {
        "start_s": statistics.median(starts),
        "idle_rss_mib": server.rss_bytes() / MIB,
        "idle_cpu_percent": 100 * used / sizes.idle_seconds,
    }


async def disk(subject: Subject) -> dict[str, float]:
    """Growth of the database by messages; the server is stopped for it, so that no WAL lies about."""
    count = subject.sizes.disk_messages
    people = await subject.people(10)
    rooms = [await people[0].create_room(preset="public_chat") for _ in range(10)]
    for person in people[1:]:
        for room in rooms:
            await person.join(room)
    before = await _size_at_rest(subject)
    for number in range(count):
        await people[number % 10].say(
            rooms[number // 10 % 10], f"message number {number}, of ordinary length, to be kept"
        )
    after = await _size_at_rest(subject)
    return {"disk_bytes_per_event": (after - before) / count, "disk_mb": (after - before) / 1e6}


async def _size_at_rest(subject: Subject) -> int:
    for client in subject.clients:
        await client.aclose()
    await quiet(subject.server)
    await subject.server.stop()
    size = subject.server.disk_bytes()
    await subject.server.start()
    return size
