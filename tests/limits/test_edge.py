# SPDX-License-Identifier: Apache-2.0
"""The bounds of the edge, each with one more than is allowed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from werkzeug.datastructures import Headers

from minihs.web import body, client_address, connection, http11, request_reader, serving
from minihs.web.client_address import parse_networks
from minihs.web.routing import NONE, Call, JsonObject, Routes
from tests.advisories.kit import siege
from tests.web.kit import open_house

VERSIONS = "/_matrix/client/versions"


def test_the_limits_of_connections_are_the_defaults() -> None:
    """One more than a limit is refused: tests/web/test_connection.py, TestLimits."""
    limits = serving.Limits()
    assert limits.connections == serving.MAX_CONNECTIONS
    assert limits.connections_per_address == serving.MAX_CONNECTIONS_PER_ADDRESS


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
async def test_headers_have_a_number(more: int, status: int) -> None:
    async with open_house() as house:
        visitor = house.visit()
        extra = b"X-Y: z\r\n" * (request_reader.MAX_HEADERS - 1 + more)
        await visitor.send(f"GET {VERSIONS} HTTP/1.1\r\nHost: x\r\n".encode() + extra + b"\r\n")
        assert (await visitor.response()).status == status


@pytest.mark.parametrize(("size", "refused"), [(-500, False), (connection.RECEIVE_BYTES, True)])
async def test_headers_that_do_not_end_have_a_size(size: int, refused: bool) -> None:
    async with open_house() as house:
        visitor = house.visit()
        await visitor.send(f"GET {VERSIONS} HTTP/1.1\r\nHost: x\r\nX: ".encode())
        await visitor.send(b"y" * (request_reader.MAX_HEADER_BYTES + size))
        if not refused:
            await visitor.send(b"\r\n\r\n")
        assert (await visitor.response()).status == (431 if refused else 200)


async def test_of_unread_input_some_is_drained_and_no_more(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        link = at.world.internet.link(at.peer.host, at.world["one.test"].host)
        visitor = await at.visit()
        before, started = link.bytes, trio.current_time()
        head = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n"
        await visitor.send(head.encode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor.send, bytes(6 * connection.LINGER_BYTES))
            assert b" 413 " in (await visitor.everything())[:20]
            nursery.cancel_scope.cancel()
        assert link.bytes - before < 2 * connection.LINGER_BYTES
        assert trio.current_time() - started < connection.LINGER_SECONDS + 1
        assert connection.CLOSE_SECONDS < connection.LINGER_SECONDS


async def test_a_streamed_body_that_makes_no_progress_is_given_up() -> None:
    routes, taken = Routes(), []

    @routes.post("/_test/stream", auth=NONE)
    async def take(call: Call) -> JsonObject:
        async for chunk in call.stream():
            taken.append(chunk)
        return {}

    async with open_house(routes) as house:
        for pause, status in ((body.NEXT_CHUNK_SECONDS - 1, 200), (body.NEXT_CHUNK_SECONDS + 1, 408)):
            visitor = house.visit()
            await visitor.send(b"POST /_test/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
            await trio.sleep(pause)
            await visitor.send(b"y")
            assert (await visitor.response()).status == status


def test_of_forwarded_addresses_the_last_few_are_looked_at() -> None:
    proxies = parse_networks(["10.0.0.0/8"])

    def address(forwarded: str) -> str:
        state = {"is_proxy": True, "trusted_proxies": proxies}
        scope = {"state": state, "client": ("10.0.0.1", 1)}
        return client_address.client_address(
            SimpleNamespace(scope=scope, headers=Headers([("X-Forwarded-For", forwarded)]))
        )

    more = client_address.MAX_FORWARDED
    assert address("203.0.113.5" + ", 10.0.0.2" * (more - 1)) == "203.0.113.5"
    assert address("203.0.113.5" + ", 10.0.0.2" * more) == "10.0.0.2"


def test_so_many_heads_of_answers_are_remembered() -> None:
    edge = http11.EdgeConfig()
    lines = {edge.lines([(b"x-number", b"%d" % number)]) for number in range(2 * http11.MAX_LINES + 1)}
    assert len(lines) == 2 * http11.MAX_LINES + 1
    assert 0 < len(edge._lines) <= http11.MAX_LINES
