# SPDX-License-Identifier: Apache-2.0
"""A room with hundreds of servers in it, some of which died."""

from __future__ import annotations

import socket
import statistics
import struct
from dataclasses import dataclass
from itertools import pairwise

import trio

from minihs.testing.events import RoomFactory
from scripts.bench_lib.measure import Span, quiet, wall_clock
from scripts.bench_lib.scenarios.federation import VERSION, has_text
from scripts.bench_lib.scenarios.standing import MIB
from scripts.bench_lib.subject import Subject
from tests.interop.kit.client import Client
from tests.interop.kit.hosted import HostedRoom
from tests.interop.kit.peer import Peer

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets the connection."""
LONGEST = 300.0
"""Seconds in which the last living server must have a message."""


@dataclass(slots=True)
class Grave:
    """What is left at the port of a dead server. It counts who knocks: so it can't refuse connections, which
    would leave nothing to count, but resets them, or takes them and never says a word."""

    port: int
    is_silent: bool
    knocks: int = 0

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        task_status.started()
        await trio.serve_listeners(self._open, listeners)

    async def _open(self, stream: trio.SocketStream) -> None:
        self.knocks += 1
        try:
            if self.is_silent:
                async for _ in stream:
                    pass
            else:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        except trio.BrokenResourceError:
            pass  # the server under test gave up
        finally:
            await trio.aclose_forcefully(stream)


async def crowd(subject: Subject) -> dict[str, float]:
    """Messages into a room of many servers, right after some of them died; then what the dead still cost."""
    sizes, server = subject.sizes, subject.server
    await _with_own_pauses(subject)
    host = await subject.person()
    peers = [await subject.peer() for _ in range(sizes.crowd)]
    room_id = await _join(host, peers)
    await _say(host, room_id, peers, "all are well")
    dying = peers[1 :: len(peers) // sizes.dead][: sizes.dead]  # the first is the one that we joined through
    living = [peer for peer in peers if peer not in dying]
    graves = []
    for number, peer in enumerate(dying):
        await subject.stop(peer)
        graves.append(Grave(peer.port, is_silent=number % 2 == 0))
        await subject.nursery.start(graves[-1].serve)
    await quiet(server)
    server.forget_peak()
    # From here on nothing waits until the server is quiet: it tries the dead again, as it should.
    cpu = [server.cpu_seconds()]
    taken_first = await _say(host, room_id, living, "some have died")
    cpu.append(server.cpu_seconds())
    taken = [await _say(host, room_id, living, f"word {n}") for n in range(sizes.crowd_messages)]
    cpu.append(server.cpu_seconds())
    knocks = sum(grave.knocks for grave in graves)
    await trio.sleep(sizes.after_seconds)
    cpu.append(server.cpu_seconds())
    cpu_first, cpu_talk, cpu_after = [later - earlier for earlier, later in pairwise(cpu)]
    return {
        "crowd_first_s": taken_first,
        "crowd_first_cpu_ms": 1000 * cpu_first,
        "crowd_s": statistics.median(taken),
        "crowd_cpu_ms": 1000 * cpu_talk / sizes.crowd_messages,
        "crowd_peak_mib": server.peak_rss_bytes() / MIB,
        "crowd_knocks": 60 * (sum(grave.knocks for grave in graves) - knocks) / sizes.after_seconds,
        "crowd_after_cpu_percent": 100 * cpu_after / sizes.after_seconds,
    }


async def _with_own_pauses(subject: Subject) -> None:
    """The kit lets Synapse try dead servers again within seconds: here it shall be as it is installed."""
    options = subject.server.place.options
    options["synapse"] = {"federation": {}}
    subject.server.prepare()
    await subject.server.restart()


async def _join(host: Client, peers: list[Peer]) -> str:
    """A room with a user of each: one join of ours, and all of them are there."""
    factory = RoomFactory(VERSION, f"@far:{peers[0].server_name}", name="crowd")
    for peer in peers[1:]:
        factory.join(f"@far:{peer.server_name}")
    peers[0].host(HostedRoom(factory))
    path = f"/_matrix/client/v3/join/{factory.room_id}"
    via = [("via", peers[0].server_name), ("server_name", peers[0].server_name)]
    room_id = str((await host.call("POST", path, {}, via, seconds=600))["room_id"])
    members = await host.joined_members(room_id)
    assert len(members) == len(peers) + 1, f"{len(members)} members after the join"
    return room_id


async def _say(host: Client, room_id: str, peers: list[Peer], text: str) -> float:
    """Seconds until the last of them has it."""
    span = Span()
    with wall_clock(span):
        await host.say(room_id, text)
        for peer in peers:
            await peer.wait_until(lambda peer=peer: has_text(peer, text), LONGEST)  # type: ignore[misc]  # a default binds it
    return span.wall
