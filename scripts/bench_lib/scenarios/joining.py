# SPDX-License-Identifier: Apache-2.0
"""Joining a large room that lives elsewhere."""

from __future__ import annotations

from minihs.testing.events import RoomFactory
from scripts.bench_lib.measure import Span, measured, wall_clock
from scripts.bench_lib.scenarios.standing import MIB
from scripts.bench_lib.subject import Subject
from tests.interop.kit.client import V3, ApiError, Client
from tests.interop.kit.hosted import HostedRoom
from tests.interop.kit.peer import Peer

VERSION = "11"
LONGEST = 900.0
"""Seconds for one answer."""


def large_room(peer: Peer, members: int, *, omits_members: bool = False) -> HostedRoom:
    factory = RoomFactory(VERSION, f"@founder:{peer.server_name}", name=f"large{members}")
    for number in range(members - 1):
        factory.join(f"@member{number}:{peer.server_name}", {"displayname": f"Member number {number}"})
    room = HostedRoom(factory, omits_members=omits_members)
    room.freeze()
    peer.host(room)
    return room


async def join(subject: Subject) -> dict[str, float]:
    """From the client's request until its answer, and what the server still does then."""
    figures = {}
    peer = await subject.peer()
    for members in subject.sizes.members:
        client = await subject.person()
        room = large_room(peer, members)
        async with measured(subject.server) as span:
            await _join(client, peer, room)
        joined = await client.joined_members(room.room_id)
        assert len(joined) == members + 1, f"{len(joined)} members after the join"
        figures[f"join_{members}_cpu_s"] = span.cpu_until_end
        figures[f"join_{members}_total_cpu_s"] = span.cpu
        figures[f"join_{members}_wall_s"] = span.wall
        figures[f"join_{members}_peak_mib"] = span.peak / MIB
    return figures


async def partial_join(subject: Subject) -> dict[str, float]:
    """The same where the other server leaves the members out, as Synapse and minihs do when asked to: until
    the client has its answer, and until it can have the list of all members.
    """
    figures = {}
    peer = await subject.peer()
    for members in subject.sizes.members:
        client = await subject.person()
        room = large_room(peer, members, omits_members=True)
        answered = Span()
        async with measured(subject.server) as whole:
            before = subject.server.cpu_seconds()
            with wall_clock(answered):
                await _join(client, peer, room)
            answered.cpu = subject.server.cpu_seconds() - before
            joined = await _all_members(client, room.room_id)
        assert len(joined) == members + 1, f"{len(joined)} members in the end"
        assert room.partial_joins == 1, "members were not left out"
        figures[f"partial_{members}_wall_s"] = answered.wall
        figures[f"partial_{members}_cpu_s"] = answered.cpu
        figures[f"partial_{members}_whole_wall_s"] = whole.wall
        figures[f"partial_{members}_whole_cpu_s"] = whole.cpu
        figures[f"partial_{members}_peak_mib"] = whole.peak / MIB
    return figures


async def _join(client: Client, peer: Peer, room: HostedRoom) -> None:
    via = [("via", peer.server_name), ("server_name", peer.server_name)]
    await client.call("POST", f"{V3}/join/{room.room_id}", {}, via, seconds=LONGEST)


async def _all_members(client: Client, room_id: str) -> dict[str, object]:
    """Both servers let this wait until they know, and minihs says after a minute that it may take longer."""
    while True:
        try:
            answer = await client.call("GET", f"{V3}/rooms/{room_id}/joined_members", seconds=LONGEST)
        except ApiError as error:
            if error.status != 504:
                raise
        else:
            return dict(answer["joined"])
