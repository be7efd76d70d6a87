# SPDX-License-Identifier: Apache-2.0
"""Joining a large room that lives elsewhere."""

from __future__ import annotations

from minihs.testing.events import RoomFactory
from scripts.bench_lib.measure import measured
from scripts.bench_lib.scenarios.standing import MIB
from scripts.bench_lib.subject import Subject
from tests.interop.kit.hosted import HostedRoom
from tests.interop.kit.peer import Peer

VERSION = "11"


def large_room(peer: Peer, members: int) -> HostedRoom:
    factory = RoomFactory(VERSION, f"@founder:{peer.server_name}", name=f"large{members}")
    for number in range(members - 1):
        factory.join(f"@member{number}:{peer.server_name}", {"displayname": f"Member number {number}"})
    room = HostedRoom(factory)
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
            path = f"/_matrix/client/v3/join/{room.room_id}"
            await client.call(
                "POST", path, {}, [("via", peer.server_name), ("server_name", peer.server_name)], seconds=600
            )
        joined = await client.joined_members(room.room_id)
        assert len(joined) == members + 1, f"{len(joined)} members after the join"
        figures[f"join_{members}_cpu_s"] = span.cpu_until_end
        figures[f"join_{members}_total_cpu_s"] = span.cpu
        figures[f"join_{members}_wall_s"] = span.wall
        figures[f"join_{members}_peak_mib"] = span.peak / MIB
    return figures
