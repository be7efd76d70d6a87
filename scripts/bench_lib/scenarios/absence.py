# SPDX-License-Identifier: Apache-2.0
"""What is caught up on after an absence: the other server's, and our own."""

from __future__ import annotations

import trio

from scripts.bench_lib.measure import measured, quiet
from scripts.bench_lib.scenarios.federation import VERSION, has_text
from scripts.bench_lib.subject import Subject
from tests.interop.kit.client import Client
from tests.interop.kit.hosted import JoinedRoom

PAGE = 100
LONGEST = 900.0
"""Seconds after which a scenario is given up."""


async def returning(subject: Subject) -> dict[str, float]:
    """The other server is away while our user talks. When it comes back it speaks first, as it would in life,
    where somebody there says something: from then until it has the newest message.
    """
    count = subject.sizes.missed
    host = await subject.person()
    room_id = await host.create_room(preset="public_chat", room_version=VERSION)
    peer = await subject.peer()
    await JoinedRoom.join(peer, subject.server, room_id, f"@far:{peer.server_name}")
    await host.say(room_id, "before")
    await peer.wait_until(lambda: has_text(peer, "before"))
    await subject.stop(peer)
    for number in range(count):
        await host.say(room_id, f"missed {number}")
    before = len(peer.received_ids())
    async with measured(subject.server) as span:
        await subject.start(peer)
        await peer.send(subject.server, [])
        await peer.wait_until(lambda: has_text(peer, f"missed {count - 1}"), LONGEST)
    return {
        "returning_s": span.wall,
        "returning_cpu_s": span.cpu,
        "returning_given": len(peer.received_ids()) - before,
    }


async def unheard(subject: Subject) -> dict[str, float]:
    """Our server is down while somebody elsewhere talks. Up again, it is sent the last message alone: from
    then until a client that pages back has seen all of them.
    """
    host = await subject.person()
    room_id = await host.create_room(preset="public_chat", room_version=VERSION)
    peer = await subject.peer()
    user = f"@far:{peer.server_name}"
    room = await JoinedRoom.join(peer, subject.server, room_id, user)
    await quiet(subject.server)
    await host.aclose()
    await subject.server.stop()
    events = [room.message(user, f"unheard {number}") for number in range(subject.sizes.missed)]
    room.tell_past()
    await subject.server.start()
    async with measured(subject.server) as span:
        await peer.send(subject.server, [events[-1]])
        await _page_back(host, room_id, {event.event_id for event in events})
    return {"unheard_s": span.wall, "unheard_cpu_s": span.cpu}


async def _page_back(client: Client, room_id: str, wanted: set[str]) -> None:
    """Again from the newest where a server says that it has no more, or doesn't have the newest yet."""
    with trio.fail_after(LONGEST):
        missing, start = set(wanted), None
        while missing:
            page = await client.messages(room_id, start=start, limit=PAGE)
            missing -= {event["event_id"] for event in page["chunk"]}
            start = page.get("end")
            if start is None or len(missing) == len(wanted):
                start = None
                await trio.sleep(0.1)
