# SPDX-License-Identifier: Apache-2.0
"""How connections live and end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from minihs.web.client_address import parse_networks
from minihs.web.connection import HANDSHAKE_SECONDS, HEADER_SECONDS, KEEP_ALIVE_SECONDS, SEND_SECONDS
from minihs.web.routing import KIB, MIB, NONE, Answer, Call, JsonObject, Routes
from minihs.web.serving import DRAIN_SECONDS, Limits, Policy

from .kit import PEER, Visitor, make_edge, open_house

VERSIONS = "/_matrix/client/versions"


async def test_a_connection_is_used_again(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        for _ in range(3):
            assert (await visitor.request("GET", VERSIONS)).status == 200


class Spawned(trio.abc.Instrument):
    def __init__(self) -> None:
        self.tasks: list[str] = []

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks.append(task.name)


async def test_a_request_costs_one_task(autojump_clock: object) -> None:
    spawned = Spawned()
    async with open_house() as house:
        visitor = house.visit()
        await visitor.request("GET", VERSIONS)
        trio.lowlevel.add_instrument(spawned)
        for body in (b"", b'{"half of it'):
            await visitor.request("POST" if body else "GET", VERSIONS, body=body)
        trio.lowlevel.remove_instrument(spawned)
    assert len(spawned.tasks) == 2, spawned.tasks


async def test_a_new_connection_that_says_nothing_is_closed(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        assert await visitor.is_closed()
        assert trio.current_time() >= KEEP_ALIVE_SECONDS


async def test_a_connection_that_is_idle_after_an_answer_is_closed(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        await trio.sleep(50)
        await visitor.request("GET", VERSIONS)
        started = trio.current_time()
        assert await visitor.is_closed()
        assert trio.current_time() - started == pytest.approx(KEEP_ALIVE_SECONDS, abs=1)


async def test_connection_close_is_obeyed(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        response = await visitor.request("GET", VERSIONS, headers={"Connection": "close"})
        assert response.status == 200
        started = trio.current_time()
        assert await visitor.is_closed()
        assert trio.current_time() - started < 1


async def test_a_long_poll_is_not_idle(autojump_clock: object) -> None:
    routes = Routes()

    @routes.get("/_test/poll", auth=NONE)
    async def poll(_: Call) -> JsonObject:
        await trio.sleep(KEEP_ALIVE_SECONDS * 3)
        return {}

    async with open_house(routes) as house:
        assert (await house.ask("GET", "/_test/poll")).status == 200


async def test_a_client_that_hangs_up_cancels_its_handler(autojump_clock: object) -> None:
    routes = Routes()
    ends: list[str] = []

    @routes.get("/_test/poll", auth=NONE)
    async def poll(_: Call) -> JsonObject:
        try:
            await trio.sleep(1000)
        except trio.Cancelled:
            ends.append("cancelled")
            raise
        ends.append("finished")
        return {}

    async with open_house(routes) as house:
        visitor = house.visit()
        await visitor.send(b"GET /_test/poll HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(1)
        await visitor.hang_up()
        await trio.sleep(1)
        assert ends == ["cancelled"]
        await house.until_nobody_is_left()


async def test_a_handler_is_not_cancelled_while_its_client_waits(autojump_clock: object) -> None:
    """The answer's last step and the end of the request must not race."""
    routes = Routes()
    ends: list[str] = []

    @routes.get("/_test/quick", auth=NONE)
    async def quick(_: Call) -> Answer:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            await trio.sleep(1)
            yield b"b"
            ends.append("finished")

        return Answer(body=body())

    async with open_house(routes) as house:
        visitor = house.visit()
        for _ in range(3):
            assert (await visitor.request("GET", "/_test/quick")).body == b"ab"
        assert ends == ["finished"] * 3


@pytest.mark.parametrize("pieces", [1, 2])
async def test_the_headers_of_a_second_request_have_their_own_deadline(
    pieces: int, autojump_clock: object
) -> None:
    """However the first came, with which they came."""
    request = f"GET {VERSIONS} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    begun = request[:10] * (pieces - 1)
    async with open_house() as house:
        visitor = house.visit()
        await visitor.send(begun)
        await trio.sleep(1)
        await visitor.send(request[len(begun) :] + request[:10])
        assert (await visitor.response()).status == 200
        started = trio.current_time()
        assert await visitor.is_closed()
        assert trio.current_time() - started == pytest.approx(HEADER_SECONDS, abs=1)


class Slowly:
    """A handler at a plain socket that answers when it is let, without having read the body, of which five
    pieces came: one more than are held."""

    def __init__(self) -> None:
        self.routes = Routes()
        self.let = trio.Event()
        self.routes.post("/_test/slow", auth=NONE)(self.slow)

    async def slow(self, _: Call) -> JsonObject:
        await self.let.wait()
        return {}

    @asynccontextmanager
    async def answered(self, header: str, last_piece: bytes) -> AsyncIterator[Visitor]:
        ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
        async with open_house(self.routes) as house, trio.open_nursery() as nursery:
            nursery.start_soon(house.edge.handle, theirs, PEER, None, None)
            head = f"POST /_test/slow HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: 5\r\n\r\n"
            for piece in (head.encode(), b"1", b"2", b"3", b"4", last_piece):
                await ours.send_all(piece)
                await wait_all_tasks_blocked(0.01)
            self.let.set()
            yield Visitor(ours)
            await ours.aclose()


async def test_behind_the_last_answer_nothing_is_said() -> None:
    async with Slowly().answered("Connection: close", b"5\r\n") as visitor:
        assert (await visitor.everything()).count(b"HTTP/1.1 ") == 1


async def test_a_connection_is_idle_when_its_last_byte_was_of_a_request(autojump_clock: object) -> None:
    async with Slowly().answered("Connection: keep-alive", b"5") as visitor:
        assert (await visitor.response()).status == 200
        started = trio.current_time()
        assert await visitor.is_closed()
        assert trio.current_time() - started == pytest.approx(KEEP_ALIVE_SECONDS, abs=1)


async def test_a_short_answer_leaves_in_one_piece(autojump_clock: object) -> None:
    pieces: list[bytes] = []
    async with open_house() as house:
        visitor = house.visit()
        await visitor.send(f"GET {VERSIONS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        pieces.append(await visitor.stream.receive_some(65536))
    assert pieces[0].startswith(b"HTTP/1.1 200")
    assert pieces[0].endswith(b"}")


async def test_the_first_piece_of_a_stream_does_not_wait_for_the_second(autojump_clock: object) -> None:
    routes = Routes()

    @routes.get("/_test/slow", auth=NONE)
    async def slow(_: Call) -> Answer:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            await trio.sleep(100)
            yield b"second"

        return Answer(body=body())

    async with open_house(routes) as house:
        visitor = house.visit()
        await visitor.send(b"GET /_test/slow HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(1):
            data = b""
            while b"first" not in data:
                data += await visitor.stream.receive_some(65536)


def large_answer_routes(size: int) -> Routes:
    routes = Routes()

    @routes.get("/_test/large", auth=NONE)
    async def large(_: Call) -> Answer:
        return Answer(body=b"x" * size)

    return routes


async def test_a_client_that_stops_reading_is_dropped(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        edge = make_edge(large_answer_routes(MIB))
        ours, theirs = lockstep_stream_pair()  # a send blocks until it is received
        nursery.start_soon(edge.handle, theirs, PEER, None)
        await ours.send_all(b"GET /_test/large HTTP/1.1\r\nHost: x\r\n\r\n")
        await ours.receive_some(1)
        await trio.sleep(SEND_SECONDS - 1)
        assert "<Edge: 1 connections" in repr(edge)
        await trio.sleep(6)
        assert "<Edge: 0 connections" in repr(edge)
        nursery.cancel_scope.cancel()


async def test_a_client_that_reads_slowly_gets_everything(autojump_clock: object) -> None:
    size = 640 * KIB
    async with trio.open_nursery() as nursery:
        edge = make_edge(large_answer_routes(size))
        ours, theirs = lockstep_stream_pair()
        nursery.start_soon(edge.handle, theirs, PEER, None)
        await ours.send_all(b"GET /_test/large HTTP/1.1\r\nHost: x\r\n\r\n")
        received = 0
        while received < size:  # 64 KiB in 10 s: far longer than one deadline in all
            received += len(await ours.receive_some(64 * KIB))
            await trio.sleep(10)
        nursery.cancel_scope.cancel()


async def test_a_tls_handshake_that_never_comes_is_given_up(autojump_clock: object) -> None:
    async with open_house() as house, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        server = trio.SSLStream(theirs, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True)
        nursery.start_soon(house.edge.handle, server, PEER, None)
        assert await Visitor(ours).is_closed()
        assert trio.current_time() == pytest.approx(HANDSHAKE_SECONDS, abs=1)


async def test_a_bug_in_a_connection_is_contained(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug in our own protocol code")

    async with open_house() as house:
        with monkeypatch.context() as patch:
            patch.setattr("minihs.web.http11.Http11._begin", broken)
            visitor = house.visit()
            await visitor.send(f"GET {VERSIONS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert await visitor.is_closed()
        assert (await house.ask("GET", VERSIONS)).status == 200
    assert "a bug in our own protocol code" in capsys.readouterr().out


class TestLimits:
    async def test_one_connection_more_than_the_limit_is_refused(self, autojump_clock: object) -> None:
        async with open_house(limits=Limits(connections=3, connections_per_address=100)) as house:
            guests = [house.visit(peer=(f"192.0.2.{number}", 1)) for number in range(3)]
            for guest in guests:
                assert (await guest.request("GET", VERSIONS)).status == 200
            assert await house.visit(peer=("192.0.2.9", 1)).is_closed()
            await guests[0].hang_up()
            await trio.sleep(1)
            assert (await house.ask("GET", VERSIONS, peer=("192.0.2.9", 1))).status == 200

    async def test_one_address_may_not_have_more_than_its_share(self, autojump_clock: object) -> None:
        async with open_house(limits=Limits(connections=100, connections_per_address=2)) as house:
            guests = [house.visit() for _ in range(2)]
            for guest in guests:
                assert (await guest.request("GET", VERSIONS)).status == 200
            assert await house.visit().is_closed()
            assert (await house.ask("GET", VERSIONS, peer=("192.0.2.7", 1))).status == 200

    async def test_addresses_of_one_ipv6_network_share(self, autojump_clock: object) -> None:
        async with open_house(limits=Limits(connections=100, connections_per_address=1)) as house:
            guest = house.visit(peer=("2001:db8::1", 1))
            await guest.request("GET", VERSIONS)
            assert await house.visit(peer=("2001:db8::2", 1)).is_closed()
            assert (await house.ask("GET", VERSIONS, peer=("2001:db8:0:1::2", 1))).status == 200

    async def test_proxies_and_unix_sockets_are_exempt(self, autojump_clock: object) -> None:
        policy = Policy(trusted_proxies=parse_networks(["192.0.2.0/24"]))
        async with open_house(limits=Limits(connections=100, connections_per_address=1)) as house:
            for guest in [house.visit(policy=policy) for _ in range(3)] + [
                house.visit(None) for _ in range(3)
            ]:
                assert (await guest.request("GET", VERSIONS)).status == 200

    async def test_the_counts_go_back_to_nothing(self, autojump_clock: object) -> None:
        async with open_house() as house:
            for _ in range(5):
                await house.ask("GET", VERSIONS)
            await house.until_nobody_is_left()
            assert not house.edge._per_address


class TestShutdown:
    async def test_idle_connections_are_closed_at_once(self, autojump_clock: object) -> None:
        async with open_house() as house:
            visitor = house.visit()
            await visitor.request("GET", VERSIONS)
            await trio.sleep(1)
            started = trio.current_time()
            await house.edge.wind_up()
            await house.until_nobody_is_left()
            assert trio.current_time() - started < 0.5

    async def test_a_request_under_way_is_answered_and_then_closed(self, autojump_clock: object) -> None:
        async with open_house(sleepy(2)) as house:
            visitor = house.visit()
            await visitor.send(b"GET /_test/sleep HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.sleep(0.5)
            await house.edge.wind_up()
            response = await visitor.response()
            assert response.status == 200
            assert await visitor.is_closed()
            assert trio.current_time() == pytest.approx(2, abs=0.5)

    async def test_a_client_that_stops_reading_does_not_hold_it_up(self, autojump_clock: object) -> None:
        async with trio.open_nursery() as nursery:
            edge = make_edge(large_answer_routes(MIB))
            ours, theirs = lockstep_stream_pair()
            nursery.start_soon(edge.handle, theirs, PEER, None)
            await ours.send_all(b"GET /_test/large HTTP/1.1\r\nHost: x\r\n\r\n")
            await ours.receive_some(1)
            await edge.wind_up()
            await trio.sleep(DRAIN_SECONDS + 0.3)
            assert "<Edge: 0 connections" in repr(edge)
            nursery.cancel_scope.cancel()

    async def test_no_new_connections_are_taken(self, autojump_clock: object) -> None:
        async with open_house() as house:
            await house.edge.wind_up()
            assert await house.visit().is_closed()


def sleepy(seconds: float) -> Routes:
    routes = Routes()

    @routes.get("/_test/sleep", auth=NONE)
    async def sleep(_: Call) -> JsonObject:
        await trio.sleep(seconds)
        return {}

    return routes
