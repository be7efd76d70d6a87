# SPDX-License-Identifier: Apache-2.0
"""The kit itself: were a gate never shut, the partition tests would pass for nothing."""

from __future__ import annotations

import json

import pytest
import trio

from minihs.testing.events import RoomFactory
from tests.interop.kit.gate import Gate
from tests.interop.kit.hosted import HostedRoom
from tests.interop.kit.http import BrokenConnection, HttpClient
from tests.interop.kit.ports import free_port

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def answer_all(stream: trio.SocketStream) -> None:
    try:
        async for _ in stream:
            await stream.send_all(ANSWER)
    except trio.BrokenResourceError:
        pass  # cut by the gate


async def test_a_gate_passes_when_open_and_neither_connects_nor_keeps_a_connection_when_shut() -> None:
    outer, inner = free_port(), free_port()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, answer_all, inner)
        with Gate(outer, inner) as gate:
            kept = HttpClient("127.0.0.1", outer)
            assert (await kept.request("GET", "/")).body == b"hi"

            gate.shut()
            for client in (kept, HttpClient("127.0.0.1", outer)):
                with pytest.raises(BrokenConnection):
                    await client.request("GET", "/", seconds=5)

            gate.open()
            assert (await kept.request("GET", "/")).body == b"hi"
            await kept.aclose()
        nursery.cancel_scope.cancel()


async def test_a_gate_before_a_server_that_is_down_closes_the_connection() -> None:
    outer = free_port()
    with Gate(outer, free_port()), pytest.raises(BrokenConnection):
        await HttpClient("127.0.0.1", outer).request("GET", "/", seconds=5)


async def test_an_answer_that_is_not_http_is_an_error() -> None:
    port = free_port()

    async def rubbish(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"220 mail.example.org ready\r\n\r\n")

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, rubbish, port)
        with pytest.raises(BrokenConnection):
            await HttpClient("127.0.0.1", port).request("GET", "/", seconds=5)
        nursery.cancel_scope.cancel()


def test_a_hosted_room_leaves_its_members_out_of_a_join_and_tells_them_afterwards() -> None:
    factory = RoomFactory("11", "@a:one.test")
    for server in ("two", "three"):
        factory.join(f"@a:{server}.test")
    room = HostedRoom(factory, omits_members=True)
    asked = json.loads(room.send_join({}, "one.test", omit_members=True))
    unasked = json.loads(room.send_join({}, "one.test", omit_members=False))

    members = {event.event_id for (kind, _), event in factory.state.items() if kind == "m.room.member"}
    assert len(members) == 3
    assert not any(event["type"] == "m.room.member" for event in asked["state"])
    assert len(asked["state"]) == len(factory.state) - len(members)
    assert asked["members_omitted"]
    assert asked["servers_in_room"] == ["one.test", "three.test", "two.test"]
    assert not unasked["members_omitted"]
    assert len(unasked["state"]) == len(factory.state)
    # The join, which only the asker has, follows all of them; the last of them does not follow itself.
    assert members <= set(room.past.state_ids("$join")["pdu_ids"])
    assert len(json.loads(room.past.state("$join"))["pdus"]) == len(factory.state)
    assert len(room.past.state_ids(factory.tips[0])["pdu_ids"]) == len(factory.state) - 1


def test_a_past_is_told_from_the_newest_back() -> None:
    factory = RoomFactory("11", "@a:one.test")
    said = [factory.message("@a:one.test", f"message {number}") for number in range(4)]
    past = HostedRoom(factory).past

    told = past.before([said[3].event_id], 3)

    assert [event["content"]["body"] for event in told] == ["message 3", "message 2", "message 1"]
    assert len(past.before([said[3].event_id], 100)) == len(factory.events)
