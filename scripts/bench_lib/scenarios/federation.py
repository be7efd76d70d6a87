# SPDX-License-Identifier: Apache-2.0
"""Events from and to other servers, played by synthetic peers with valid signatures."""

from __future__ import annotations

import statistics
from urllib.parse import quote

import trio

from minihs.matrix.event import Event
from scripts.bench_lib.measure import Span, measured, quiet, wall_clock
from scripts.bench_lib.subject import Subject
from tests.interop.kit.client import ApiError, Client
from tests.interop.kit.hosted import JoinedRoom
from tests.interop.kit.peer import V1, Peer

VERSION = "11"
PDUS = 50  # in a transaction: the most that the specification allows
POLL = 0.01
SELDOM = 0.5


async def inbound(subject: Subject) -> dict[str, float]:
    """Transactions of 50 messages each, until the last can be read."""
    host = await subject.person()
    room_id = await host.create_room(preset="public_chat", room_version=VERSION)
    peer = await subject.peer()
    users = [f"@remote{number}:{peer.server_name}" for number in range(5)]
    room = [await JoinedRoom.join(peer, subject.server, room_id, user) for user in users][-1]

    def batch() -> list[Event]:
        return [room.message(users[number % 5], f"remote message {number}") for number in range(PDUS)]

    await _deliver(subject, peer, host, batch())
    # Asking whether it is there costs the server something too. So for the CPU it is not asked: when the
    # server is quiet it is through with them.
    batches = [batch() for _ in range(subject.sizes.transactions)]
    async with measured(subject.server) as unasked:
        for sent in batches:
            await peer.send(subject.server, sent)
            await quiet(subject.server)
    for sent in batches:
        await host.event(room_id, sent[-1].event_id)
    async with measured(subject.server) as asked:
        for _ in range(subject.sizes.transactions):
            await _deliver(subject, peer, host, batch())
    count = PDUS * subject.sizes.transactions
    return {"inbound_cpu_ms": 1000 * unasked.cpu / count, "inbound_per_s": count / asked.wall}


async def _deliver(
    subject: Subject, peer: Peer, reader: Client, batch: list[Event], *, poll: float = POLL
) -> None:
    """One transaction, and then its last event can be read. Synapse throws staged events away when more than
    a hundred wait in a room, so the next must not come before."""
    await peer.send(subject.server, batch)
    await _readable(reader, batch[-1].room_id, batch[-1].event_id, poll)


async def _readable(client: Client, room_id: str, event_id: str, poll: float, seconds: float = 300) -> None:
    with trio.fail_after(seconds):
        while True:
            try:
                await client.event(room_id, event_id)
            except ApiError as error:
                if error.status != 404:
                    raise
                await trio.sleep(poll)
            else:
                return


async def outbound(subject: Subject) -> dict[str, float]:
    """Messages to one other server, and to many."""
    sizes = subject.sizes
    one = await _outbound(subject, 1, sizes.outbound_one)
    many = await _outbound(subject, sizes.destinations, sizes.outbound_many)
    return {
        "outbound_ms": 1000 * one["wall"],
        "outbound_1_cpu_ms": 1000 * one["cpu"],
        f"outbound_{sizes.destinations}_cpu_ms": 1000 * many["cpu"],
    }


async def _outbound(subject: Subject, destinations: int, count: int) -> dict[str, float]:
    host = await subject.person()
    room_id = await host.create_room(preset="public_chat", room_version=VERSION)
    peers = [await subject.peer() for _ in range(destinations)]
    for peer in peers:
        await JoinedRoom.join(peer, subject.server, room_id, f"@far:{peer.server_name}")

    async def deliver(text: str) -> float:
        span = Span()
        with wall_clock(span):
            await host.say(room_id, text)
            for peer in peers:
                await peer.wait_until(lambda peer=peer: has_text(peer, text))  # type: ignore[misc]  # a default binds it
        return span.wall

    await deliver("warming up")
    async with measured(subject.server) as span:
        taken = [await deliver(f"to everybody {number}") for number in range(count)]
    for peer in peers:
        peer.transactions.clear()
    return {"cpu": span.cpu / count, "wall": statistics.median(taken)}


def has_text(peer: Peer, text: str) -> bool:
    wanted = f'"body":"{text}"'.encode()
    return any(wanted in transaction.body for transaction in reversed(peer.transactions))


async def backfill(subject: Subject) -> dict[str, float]:
    """History served to another server, page after page from the newest back."""
    host = await subject.person()
    room_id = await host.create_room(preset="public_chat", room_version=VERSION)
    peer = await subject.peer()
    user = f"@far:{peer.server_name}"
    room = await JoinedRoom.join(peer, subject.server, room_id, user)
    for _ in range(10):
        batch = [room.message(user, f"old message {number}") for number in range(PDUS)]
        await _deliver(subject, peer, host, batch)
    assert room.tip is not None
    served, start = 0, room.tip.event_id
    async with measured(subject.server) as span:
        for _ in range(subject.sizes.backfill_pages):
            target = f"{V1}/backfill/{quote(room_id, safe='')}?v={quote(start, safe='')}&limit=100"
            pdus = (await peer.ask(subject.server, "GET", target))["pdus"]
            served += len(pdus)
            oldest = min(pdus, key=lambda pdu: pdu["depth"])
            start = oldest["prev_events"][0] if oldest["prev_events"] else room.tip.event_id
    return {"backfill_per_s": served / span.wall, "backfill_cpu_us": 1e6 * span.cpu / served}


async def branches(subject: Subject) -> dict[str, float]:
    """Two branches that set the same state keys, and then one event on top of both."""
    size = subject.sizes.branch
    host = await subject.person()
    room_id = await host.create_room(preset="public_chat", room_version=VERSION)
    peer = await subject.peer()
    user = f"@far:{peer.server_name}"
    room = await JoinedRoom.join(peer, subject.server, room_id, user)
    levels = (await host.state(room_id))["m.room.power_levels", ""]["content"]
    levels["users"][user] = 50
    granted = await host.set_state(room_id, "m.room.power_levels", levels)
    await peer.wait_until(lambda: granted in peer.received_ids())
    power = peer.event_received(granted)
    room.state["m.room.power_levels", ""] = power
    room.tip = power

    events, tips = [], []
    for branch in ("left", "right"):
        state, tip = dict(room.state), power
        for number in range(size):
            content = {"branch": branch, "number": number}
            tip = room.build(user, "org.example.state", content, f"key {number}", after=[tip], state=state)
            events.append(tip)
        tips.append(tip)
    merge = room.build(user, "m.room.message", {"msgtype": "m.text", "body": "merged"}, after=tips)
    events.append(merge)
    async with measured(subject.server) as span:
        for first in range(0, len(events), PDUS):
            await _deliver(subject, peer, host, events[first : first + PDUS], poll=SELDOM)
    return {"branches_cpu_s": span.cpu}
