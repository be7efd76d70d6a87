# SPDX-License-Identifier: Apache-2.0
"""Packets that are not HTTP as it should be: each is answered or dropped, and the server goes on."""

from __future__ import annotations

import pytest
import trio

from minihs.web.connection import HEADER_SECONDS
from minihs.web.routing import NONE, Call, JsonObject, Routes

from .kit import Visitor, open_house

VERSIONS = "/_matrix/client/versions"

CORPUS = {
    # The four that end a stock Hypercorn on trio.
    "upgrade to h2c with broken settings": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: !!!not base64!!!\r\n\r\n",
        404,
    ),
    "upgrade to WebSocket with trailing bytes": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x85trail",
        404,
    ),
    "HTTP/2 by prior knowledge, CONNECT without :path": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        b"\x00\x00\x0b\x01\x05\x00\x00\x00\x01\x02\x07CONNECT\x41\x01x",
        (400, 505),
    ),
    "a path that is not ASCII": (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    # Other bad manners.
    "Transfer-Encoding and Content-Length": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two Content-Lengths": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{}{}",
        400,
    ),
    "a negative Content-Length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "an unknown Transfer-Encoding": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "a broken chunk": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        (400, 404),
    ),
    "headers without end": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000, 431),
    "ten thousand headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
    "a folded header": (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 400),
    "a header with a NUL": (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "a TLS handshake on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
    "only blank lines": (b"\r\n" * 200 + b"x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n", 400),
    "an empty path": (b"GET ?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a path that is a word": (b"GET matrix HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a query that is not UTF-8": (f"GET {VERSIONS}?a=%ff HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 200),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", (400, 404, 505)),
    "a thousand slashes": (b"GET " + b"/" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 404),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
async def test_a_bad_packet_is_answered_and_the_server_goes_on(name: str, autojump_clock: object) -> None:
    packet, statuses = CORPUS[name]
    async with open_house() as house:
        visitor = house.visit()
        await visitor.send(packet)
        response = await visitor.response()
        assert response.status in (statuses if isinstance(statuses, tuple) else (statuses,))
        await visitor.hang_up()
        assert (await house.ask("GET", VERSIONS)).status == 200
        await house.until_nobody_is_left()


@pytest.mark.parametrize("name", CORPUS)
async def test_a_bad_packet_in_single_bytes_does_no_more_harm(name: str, autojump_clock: object) -> None:
    packet, _ = CORPUS[name]
    async with open_house() as house:
        visitor = house.visit()
        for byte in packet[:3000]:
            await visitor.send(bytes([byte]))
        await visitor.hang_up()
        assert (await house.ask("GET", VERSIONS)).status == 200
        await house.until_nobody_is_left()


async def test_pipelined_requests_are_answered_in_order(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        request = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
        await visitor.send(request % VERSIONS.encode() + request % b"/nowhere" + request % VERSIONS.encode())
        assert [(await visitor.response()).status for _ in range(3)] == [200, 404, 200]


async def test_a_request_hidden_behind_a_body_is_not_taken_for_part_of_it(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        await visitor.send(
            b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}extra GET / HTTP/1.1\r\n\r\n"
        )
        assert (await visitor.response()).status == 404
        assert (await visitor.response()).status == 400
        assert await visitor.is_closed()


async def test_a_body_shorter_than_announced_does_not_reach_the_handler_as_whole(
    autojump_clock: object,
) -> None:
    routes = Routes()
    bodies: list[bytes] = []

    @routes.post("/_test/body", auth=NONE)
    async def take(call: Call) -> JsonObject:
        bodies.append(await call.body())
        return {}

    async with open_house(routes) as house:
        visitor = house.visit()
        await visitor.send(b"POST /_test/body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{}")
        await visitor.hang_up()
        await house.until_nobody_is_left()
    assert bodies == []


async def test_headers_that_drip_in_are_cut_off_at_their_deadline(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, visitor)
            assert await visitor.is_closed()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - started == pytest.approx(HEADER_SECONDS, abs=2)


async def drip(visitor: Visitor) -> None:
    await visitor.send(b"GET / HTTP/1.1\r\n")
    for number in range(1000):
        await visitor.send(b"X-%d: y\r\n" % number)
        await trio.sleep(1)


async def test_a_body_that_drips_in_is_given_up(autojump_clock: object) -> None:
    routes = Routes()

    @routes.post("/_test/body", auth=NONE)
    async def take(call: Call) -> JsonObject:
        return {"size": len(await call.body())}

    async with open_house(routes) as house:
        visitor = house.visit()
        await visitor.send(b"POST /_test/body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, visitor)
            response = await visitor.response()
            nursery.cancel_scope.cancel()
        assert response.status == 408


async def test_a_request_in_absolute_form_is_served(autojump_clock: object) -> None:
    async with open_house() as house:
        assert (await house.ask("GET", "http://example.org" + VERSIONS)).status == 200
