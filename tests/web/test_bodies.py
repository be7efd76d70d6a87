# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests: JSON, how large they may be, and how often one may ask."""

from __future__ import annotations

import os
import time

import psutil
import pytest
import trio

from minihs.web.rate_limits import LIMITS
from minihs.web.routing import (
    KIB,
    MIB,
    NONE,
    OPTIONAL_CLIENT,
    TRANSACTION_BODY_CAP,
    Call,
    JsonObject,
    Routes,
)

from .kit import FakeClock, is_refusal, make_services, open_house


def taking_json(cap: int = 64 * KIB) -> Routes:
    routes = Routes()

    @routes.post("/_test/json", auth=NONE, body_cap=cap)
    async def take(call: Call) -> JsonObject:
        return {"got": await call.json()}

    @routes.post("/_test/optional", auth=NONE)
    async def optional(call: Call) -> JsonObject:
        return {"got": await call.json(optional=True)}

    return routes


class TestJson:
    @pytest.mark.parametrize(
        ("body", "errcode"),
        [
            (b"", "M_NOT_JSON"),
            (b"{", "M_NOT_JSON"),
            (b"\xff\xfe", "M_NOT_JSON"),
            (b'{"a": NaN}', "M_NOT_JSON"),
            (b'{"a": "\\ud800"}', "M_NOT_JSON"),
            (b"[" * 5000, "M_NOT_JSON"),
            (b'{"a":' * 111 + b"1" + b"}" * 111, "M_NOT_JSON"),
            (b"[]", "M_BAD_JSON"),
            (b'"text"', "M_BAD_JSON"),
            (b"null", "M_BAD_JSON"),
        ],
    )
    async def test_bad_json_is_told_from_a_wrong_shape(
        self, body: bytes, errcode: str, autojump_clock: object
    ) -> None:
        async with open_house(taking_json()) as house:
            assert is_refusal(await house.ask("POST", "/_test/json", body=body), 400, errcode)

    async def test_ten_megabytes_of_brackets_are_refused_quickly(self, autojump_clock: object) -> None:
        async with open_house(taking_json(TRANSACTION_BODY_CAP)) as house:
            started = time.process_time()
            response = await house.ask("POST", "/_test/json", body=b"[" * (10 * MIB))
            assert is_refusal(response, 400, "M_NOT_JSON")
            assert time.process_time() - started < 2

    async def test_an_empty_body_may_be_allowed(self, autojump_clock: object) -> None:
        async with open_house(taking_json()) as house:
            assert (await house.ask("POST", "/_test/optional")).json == {"got": {}}
            assert (await house.ask("POST", "/_test/optional", body={"a": 1})).json == {"got": {"a": 1}}

    async def test_the_content_type_does_not_matter(self, autojump_clock: object) -> None:
        async with open_house(taking_json()) as house:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = await house.ask("POST", "/_test/json", body={"a": 1}, headers=headers)
        assert response.json == {"got": {"a": 1}}


class TestBodyCaps:
    async def test_an_announced_excess_is_refused_before_it_is_sent(self, autojump_clock: object) -> None:
        async with open_house(taking_json()) as house:
            visitor = house.visit()
            await visitor.send(
                b"POST /_test/json HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (64 * KIB + 1)
            )
            response = await visitor.response()
            assert is_refusal(response, 413, "M_TOO_LARGE")
            # The connection is over, and who doesn't know would lose the next request on it.
            assert response.headers["Connection"] == "close"

    async def test_a_body_of_just_the_cap_passes(self, autojump_clock: object) -> None:
        body = b'{"a":"' + b"x" * (64 * KIB - 8) + b'"}'
        async with open_house(taking_json()) as house:
            response = await house.ask("POST", "/_test/json", body=body)
            assert response.status == 200
            assert "Connection" not in response.headers
            assert (await house.ask("POST", "/_test/json", body=body + b" ")).status == 413

    async def test_a_chunked_body_is_refused_when_it_passes_the_cap(self, autojump_clock: object) -> None:
        async with open_house(taking_json(KIB)) as house:
            visitor = house.visit()
            await visitor.send(b"POST /_test/json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(3):
                await visitor.send(b"200\r\n" + b"x" * 512 + b"\r\n")
                await trio.sleep(0.1)
            assert is_refusal(await visitor.response(), 413, "M_TOO_LARGE")

    async def test_memory_is_bounded_whatever_is_sent(self) -> None:
        """100 MiB against a cap of 1 KiB, and against a slow handler. On a real socket, which pushes back."""
        routes = taking_json(KIB)
        taken: list[int] = []

        @routes.post("/_test/slow", auth=NONE, body_cap=200 * MIB)
        async def slow(call: Call) -> JsonObject:
            async for chunk in call.stream():
                taken.append(len(chunk))
                await trio.sleep(0.05)
            return {}

        process = psutil.Process(os.getpid())
        async with open_house(routes) as house, trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]

            async def serve(stream: trio.SocketStream) -> None:
                await house.edge.handle(stream, ("127.0.0.1", 1), None)

            nursery.start_soon(trio.serve_listeners, serve, listeners)
            before = process.memory_info().rss
            for path in ("json", "slow"):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(
                    b"POST /_test/%b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                    % path.encode()
                )
                chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
                with trio.move_on_after(1):
                    try:
                        for _ in range(100):
                            await stream.send_all(chunk)
                    except trio.BrokenResourceError:
                        pass
                assert process.memory_info().rss - before < 20 * MIB
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()
        assert taken

    async def test_the_answer_arrives_although_the_body_was_not_read(self) -> None:
        """Closing a socket with unread input sends a reset, which would destroy the answer under way."""
        async with open_house(taking_json(KIB)) as house, trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]

            async def serve(stream: trio.SocketStream) -> None:
                await house.edge.handle(stream, ("127.0.0.1", 1), None)

            nursery.start_soon(trio.serve_listeners, serve, listeners)
            for _ in range(5):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(
                    b"POST /_test/json HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
                    + bytes(1000000)
                )
                received = b""
                with trio.fail_after(5):
                    while piece := await stream.receive_some(65536):
                        received += piece
                assert b"M_TOO_LARGE" in received
                await stream.aclose()
            nursery.cancel_scope.cancel()


class TestLimits:
    @staticmethod
    def routes() -> Routes:
        routes = Routes()

        @routes.post("/_test/login", auth=OPTIONAL_CLIENT, limit="login")
        async def login(_: Call) -> JsonObject:
            return {}

        return routes

    async def test_one_request_more_than_the_burst_has_to_wait(self, autojump_clock: object) -> None:
        clock = FakeClock()
        async with open_house(self.routes(), services=make_services(clock)) as house:
            for _ in range(LIMITS["login"].burst):
                assert (await house.ask("POST", "/_test/login")).status == 200
            response = await house.ask("POST", "/_test/login")
            assert is_refusal(response, 429, "M_LIMIT_EXCEEDED")
            wait = response.json["retry_after_ms"]
            assert int(response.headers["Retry-After"]) * 1000 >= wait > 0
            assert (await house.ask("POST", "/_test/login", peer=("192.0.2.50", 1))).status == 200
            assert (await house.ask("POST", "/_test/login", token="alices-token")).status == 200
            clock.ms += wait
            assert (await house.ask("POST", "/_test/login")).status == 200
            assert (await house.ask("POST", "/_test/login")).status == 429

    async def test_limits_can_be_switched_off(self, autojump_clock: object) -> None:
        services = make_services(rate_limits={"enabled": False})
        async with open_house(self.routes(), services=services) as house:
            for _ in range(LIMITS["login"].burst + 5):
                assert (await house.ask("POST", "/_test/login")).status == 200
