# SPDX-License-Identifier: Apache-2.0
"""The internet in memory behaves like one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from minihs.testing.clock import SeededRandom, VirtualClock
from minihs.testing.internet import Host, Internet, SocketAddress
from minihs.testing.streams import Link, connection


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet.open(seed=5) as internet:
        yield internet


async def echo(stream: trio.abc.Stream, peer: SocketAddress, local: SocketAddress) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


def two_hosts(internet: Internet) -> tuple[Host, Host]:
    one, two = internet.host("one.test"), internet.host("two.test")
    two.listen(7, echo, tls=False)
    return one, two


async def test_its_streams_keep_trios_rules() -> None:
    async def pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        return connection(Link(SeededRandom()._random))

    await trio.testing.check_half_closeable_stream(pair, None)


async def test_what_is_sent_arrives_after_the_latency(internet: Internet) -> None:
    internet.latency = 0.5
    one, two = two_hosts(internet)
    start = trio.current_time()
    stream = await one.network.connect(two.address, 7)
    assert trio.current_time() - start == pytest.approx(1.0)
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    assert trio.current_time() - start == pytest.approx(2.0)
    assert internet.link(one, two).connections == 1
    assert internet.link(two, one).bytes == 10


async def test_loss_delays_but_never_reorders(internet: Internet) -> None:
    one, two = two_hosts(internet)
    internet.link(one, two).loss = 0.5
    stream = await one.network.connect(two.address, 7)
    pieces = [b"%03d" % number for number in range(200)]
    start = trio.current_time()

    async def send() -> None:
        for piece in pieces:
            await stream.send_all(piece)

    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while len(got) < 600:
            got += await stream.receive_some()
    assert got == b"".join(pieces)
    assert trio.current_time() > start


async def test_a_partition_stalls_connections_until_it_heals(internet: Internet) -> None:
    one, two = two_hosts(internet)
    three = internet.host("three.test")
    stream = await one.network.connect(two.address, 7)
    internet.partition([one], [two, three])
    await stream.send_all(b"hello")
    with trio.move_on_after(1000) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught
    with trio.move_on_after(1000) as scope:
        await one.network.connect(two.address, 7)
    assert scope.cancelled_caught
    await three.network.connect(two.address, 7)
    internet.heal()
    assert await stream.receive_some() == b"hello"


async def test_a_machine_that_goes_down_breaks_its_connections(internet: Internet) -> None:
    one, two = two_hosts(internet)
    stream = await one.network.connect(two.address, 7)
    two.down()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await one.network.connect(two.address, 7)
    two.up()
    await one.network.connect(two.address, 7)
    assert internet.link(one, two).refused == 1


async def test_a_closed_port_refuses_and_an_unknown_address_has_no_route(internet: Internet) -> None:
    one, two = two_hosts(internet)
    with pytest.raises(ConnectionRefusedError):
        await one.network.connect(two.address, 8)
    with pytest.raises(OSError):
        await one.network.connect("45.255.255.255", 7)


async def test_senders_wait_when_nobody_reads(internet: Internet) -> None:
    one, two = two_hosts(internet)

    async def deaf(stream: trio.abc.Stream, peer: SocketAddress, local: SocketAddress) -> None:
        await trio.sleep_forever()

    two.listen(9, deaf, tls=False)
    stream = await one.network.connect(two.address, 9)
    with trio.move_on_after(10) as scope:
        for _ in range(1000):
            await stream.send_all(b"x" * 10_000)
    assert scope.cancelled_caught


async def test_the_same_seed_gives_the_same_run() -> None:
    async def run(seed: int) -> list[float]:
        times = []
        async with Internet.open(seed) as internet:
            one, two = two_hosts(internet)
            internet.link(one, two).loss = 0.3
            stream = await one.network.connect(two.address, 7)
            start = trio.current_time()
            for _ in range(20):
                await stream.send_all(b"x")
                await stream.receive_some()
                times.append(round(trio.current_time() - start, 6))
        return times

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)


async def test_the_wall_clock_follows_trios_clock() -> None:
    clock = VirtualClock(epoch_ms=1_000_000)
    assert clock.now_ms() == 1_000_000
    await trio.sleep(12.5)
    assert clock.now_ms() == 1_012_500
    clock.step(-2_000)
    assert clock.now_ms() == 1_010_500


def test_chance_with_a_seed_is_the_same_each_time() -> None:
    assert SeededRandom(7).token_urlsafe(9) == SeededRandom(7).token_urlsafe(9)
    assert SeededRandom(7).token_bytes(9) != SeededRandom(8).token_bytes(9)
    assert 1 <= SeededRandom(7).uniform(1, 2) <= 2
