# SPDX-License-Identifier: Apache-2.0
"""What one server that sends without end costs another that says a word now and then."""

from __future__ import annotations

import statistics
from contextlib import suppress

import trio

from minihs.matrix import canonical
from scripts.bench_lib.measure import Span, wall_clock
from scripts.bench_lib.subject import Subject
from tests.interop.kit.client import ApiError, Client
from tests.interop.kit.hosted import JoinedRoom
from tests.interop.kit.peer import V1, Peer

VERSION = "11"
LOUD_PDUS = 50
PAUSE = 0.1
"""Seconds between two messages of the quiet server."""
PATIENCE = 30.0
"""Seconds until one has to have come."""

type Prepared = tuple[str, list[tuple[str, str]], bytes]


async def fairness(subject: Subject) -> dict[str, float]:
    """From sending an event until a client's waiting /sync has brought it: alone, and beside a server that
    sends full transactions, one after the other, into another room and into the same one.
    """
    host, *readers = await subject.people(3)
    quiet, loud = await subject.peer(), await subject.peer()
    quiet_room = await _join(subject, quiet, await _make_room(host))
    loud_room = await _join(subject, loud, await _make_room(host))
    shared_room = await _join(subject, quiet, loud_room.room_id)
    for reader, room in zip(readers, (quiet_room, shared_room), strict=True):
        await reader.join(room.room_id)
        await reader.sync()
    # Made beforehand: the noise shall cost the server's time, not that of who measures.
    noise = [_prepare(subject, loud, loud_room, number) for number in range(subject.sizes.loud_transactions)]

    async def median(reader: Client, room: JoinedRoom, what: str) -> float:
        pings = range(subject.sizes.pings)
        return statistics.median([await _say(subject, quiet, room, reader, f"{what} {n}") for n in pings])

    alone = await median(readers[0], quiet_room, "alone")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_shout, subject, loud, noise)
        await trio.sleep(1.0)
        elsewhere = await median(readers[0], quiet_room, "beside")
        await readers[1].sync()
        here = await median(readers[1], shared_room, "among")
        nursery.cancel_scope.cancel()
    return {"quiet_ms": 1000 * alone, "loud_factor": elsewhere / alone, "loud_here_factor": here / alone}


async def _make_room(host: Client) -> str:
    return await host.create_room(preset="public_chat", room_version=VERSION)


async def _join(subject: Subject, peer: Peer, room_id: str) -> JoinedRoom:
    return await JoinedRoom.join(peer, subject.server, room_id, f"@far:{peer.server_name}")


def _prepare(subject: Subject, peer: Peer, room: JoinedRoom, number: int) -> Prepared:
    user = f"@far:{peer.server_name}"
    events = [room.message(user, f"noise {number}.{each}") for each in range(LOUD_PDUS)]
    txn_id, content = peer.transaction(events)
    target = f"{V1}/send/{txn_id}"
    authorization = peer.authorization("PUT", target, subject.server.server_name, content)
    headers = [("Authorization", authorization), ("Content-Type", "application/json")]
    return target, headers, canonical.encode(content)


async def _shout(subject: Subject, peer: Peer, noise: list[Prepared]) -> None:
    http = subject.server.federation_http()
    try:
        for target, headers, body in noise:
            answer = await http.request("PUT", target, headers=headers, body=body, seconds=120)
            while answer.status == 429:
                await trio.sleep(0.05)
                answer = await http.request("PUT", target, headers=headers, body=body, seconds=120)
            assert answer.status == 200, answer.body[:300]
    finally:
        await http.aclose()
    raise AssertionError("the noise ended before the measuring did: make more of it")


async def _say(subject: Subject, peer: Peer, room: JoinedRoom, reader: Client, text: str) -> float:
    span, heard = Span(), trio.Event()
    event = room.message(f"@far:{peer.server_name}", text)

    async def hear() -> None:
        with trio.fail_after(PATIENCE):
            while not await _has_come(reader, room.room_id, event.event_id):
                pass
        heard.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        await trio.sleep(PAUSE)
        with wall_clock(span):
            nursery.start_soon(peer.send, subject.server, [event])
            await heard.wait()
    return span.wall


async def _has_come(reader: Client, room_id: str, event_id: str) -> bool:
    """By the next /sync; where that says that it leaves out some of what came, the client asks for it."""
    answer = await reader.sync(5_000)
    reader.timeline.clear()
    timeline = answer.get("rooms", {}).get("join", {}).get(room_id, {}).get("timeline", {})
    if any(event["event_id"] == event_id for event in timeline.get("events", [])):
        return True
    if timeline.get("limited"):
        with suppress(ApiError):
            await reader.event(room_id, event_id)
            return True
    return False
