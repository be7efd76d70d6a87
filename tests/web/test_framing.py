# SPDX-License-Identifier: Apache-2.0
"""Where a request ends, and what is not one at all: bytes against the running edge."""

from __future__ import annotations

import pytest
import trio

from minihs.web.connection import LINGER_SECONDS
from minihs.web.http11 import origin_form
from minihs.web.request_reader import MAX_HEADER_BYTES, MAX_HEADERS
from minihs.web.routing import NONE, Call, JsonObject, Routes

from .kit import House, Visitor, open_house
from .packets import ECHO, FOLLOWED, FOLLOWER, REFUSED, TAKEN, Seen, chunked, get, post


def echo_routes(seen: list[Seen]) -> Routes:
    routes = Routes()

    @routes.post("/_test/echo", auth=NONE)
    @routes.put("/_test/echo", auth=NONE)
    @routes.get("/_test/echo", auth=NONE)
    async def echo(call: Call) -> JsonObject:
        body = await call.body()
        seen.append((call.method, call.raw_uri, body))
        return {}

    return routes


def statuses(answered: bytes) -> list[int]:
    return [int(part[:3]) for part in answered.split(b"HTTP/1.1 ")[1:]]


async def answer_to(house: House, *pieces: bytes) -> list[int]:
    """The statuses of all answers until the server closes."""
    visitor = house.visit()
    for piece in pieces:
        await visitor.send(piece)
    try:
        return statuses(await visitor.everything())
    finally:
        await visitor.hang_up()


async def test_what_is_no_request_is_refused_and_what_is_behind_it_is_not_served(
    autojump_clock: object,
) -> None:
    seen: list[Seen] = []
    wrong = {}
    async with open_house(echo_routes(seen)) as house:
        for name, (packet, expected) in REFUSED.items():
            answers = await answer_to(house, packet + FOLLOWER)
            allowed = expected if isinstance(expected, tuple) else (expected,)
            served = answers[0] == 200  # then what comes behind the first must be what is refused
            if answers[0] not in allowed or answers[1:] != [400] * served or FOLLOWED in seen:
                wrong[name] = answers
            seen.clear()
        assert not wrong
        assert (await house.ask("POST", "/_test/echo", body=b"{}")).status == 200


async def test_what_is_one_is_served_and_what_is_behind_it_too(autojump_clock: object) -> None:
    seen: list[Seen] = []
    wrong = {}
    close = FOLLOWER.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with open_house(echo_routes(seen)) as house:
        for name, (packet, expected) in TAKEN.items():
            answers = await answer_to(house, packet + close)
            if answers != [200, 200] or seen != [*expected, FOLLOWED]:
                wrong[name] = (answers, list(seen))
            seen.clear()
    assert not wrong


@pytest.mark.parametrize("name", ["chunks with extensions", "an upgrade with a body"])
async def test_it_is_the_same_wherever_it_is_cut(name: str, autojump_clock: object) -> None:
    """All packets, cut everywhere, are read in test_request_reader.py; here they cross the whole edge."""
    packet, expected = TAKEN[name]
    close = FOLLOWER.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    seen: list[Seen] = []
    async with open_house(echo_routes(seen)) as house:
        for cut in range(1, len(packet)):
            assert await answer_to(house, packet[:cut], packet[cut:] + close) == [200, 200], cut
            assert seen == [*expected, FOLLOWED], cut
            seen.clear()


class TestSize:
    """A head may have so many bytes and headers and no more, in whatever pieces they come."""

    @pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
    @pytest.mark.parametrize("piece", [2 * MAX_HEADER_BYTES, 1000, 100])
    async def test_bytes(self, more: int, status: int, piece: int, autojump_clock: object) -> None:
        start = b"GET /_test/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
        head = start + b"a" * (MAX_HEADER_BYTES - len(start) - 4 + more) + b"\r\n\r\n"
        async with open_house(echo_routes([])) as house:
            pieces = [head[at : at + piece] for at in range(0, len(head), piece)]
            assert await answer_to(house, *pieces) == [status]

    @pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
    @pytest.mark.parametrize("piece", [2 * MAX_HEADER_BYTES, 1])
    async def test_headers(self, more: int, status: int, piece: int, autojump_clock: object) -> None:
        head = post(b"Connection: close", *[b"X: y"] * (MAX_HEADERS - 2 + more), b"")
        async with open_house(echo_routes([])) as house:
            pieces = [head[at : at + piece] for at in range(0, len(head), piece)]
            assert await answer_to(house, *pieces) == [status]

    @pytest.mark.parametrize(
        "endless", [b"0\r\n" + b"X: y\r\n" * 20_000, b"1;" + b"a" * 120_000, b"0" * 120_000]
    )
    async def test_what_is_no_data_in_a_chunked_body(self, endless: bytes, autojump_clock: object) -> None:
        async with open_house(echo_routes([])) as house:
            assert await answer_to(house, chunked(b"2\r\n{}\r\n" + endless)) == [431]

    async def test_one_chunk_for_each_byte_is_no_abuse(self, autojump_clock: object) -> None:
        seen: list[Seen] = []
        size = MAX_HEADER_BYTES // 2
        async with open_house(echo_routes(seen)) as house:
            packet = chunked(b"1\r\nx\r\n" * size + b"0\r\n\r\n") + FOLLOWER
            visitor = house.visit()
            await visitor.send(packet)
            assert [(await visitor.response()).status for _ in range(2)] == [200, 200]
        assert seen == [("POST", "/_test/echo", b"x" * size), FOLLOWED]


async def test_the_next_request_is_not_begun_before_the_first_is_answered(autojump_clock: object) -> None:
    routes = Routes()
    steps: list[str] = []

    @routes.post("/_test/slow", auth=NONE)
    async def slow(call: Call) -> JsonObject:
        number = (await call.body()).decode()
        steps.append(f"{number} begins")
        await trio.sleep(10)
        steps.append(f"{number} ends")
        return {}

    request = b"POST /_test/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d"
    async with open_house(routes) as house:
        visitor = house.visit()
        await visitor.send(b"".join(request % number for number in range(3)))
        for number in range(3):
            assert (await visitor.response()).status == 200
            assert steps[: 2 * number + 2][-2:] == [f"{number} begins", f"{number} ends"]
            assert len(steps) <= 2 * number + 3
        await visitor.send(request % 3 + b"garbage\r\n\r\n")
        assert [(await visitor.response()).status for _ in range(2)] == [200, 400]
        assert await visitor.is_closed()


class TestExpect:
    async def test_a_client_that_waits_is_told_to_go_on(self, autojump_clock: object) -> None:
        seen: list[Seen] = []
        async with open_house(echo_routes(seen)) as house:
            visitor = house.visit()
            await visitor.send(post(b"Expect: 100-Continue", b"Content-Length: 2", b""))
            with trio.fail_after(1):
                assert await visitor.stream.receive_some(99) == b"HTTP/1.1 100 \r\n\r\n"
            await visitor.send(b"{}")
            assert (await visitor.response()).status == 200
        assert seen == [ECHO]

    async def test_one_of_HTTP_1_0_is_not(self, autojump_clock: object) -> None:
        async with open_house(echo_routes([])) as house:
            first = b"POST /_test/echo HTTP/1.0"
            packet = post(b"Expect: 100-continue", b"Content-Length: 2", b"{}", first=first)
            assert await answer_to(house, packet) == [200]

    async def test_one_that_is_refused_is_not(self, autojump_clock: object) -> None:
        async with open_house(echo_routes([])) as house:
            packet = post(b"Expect: 100-continue", b"Content-Length: -2", b"{}")
            assert await answer_to(house, packet) == [400]


HALF = post(b"Content-Length: 3", b"{}")
CHUNK = chunked(b"2\r\n{}\r\n")


class TestHalfClosed:
    @pytest.mark.parametrize("packet", [b"POST /_test/echo HT", HALF, CHUNK, CHUNK + b"0\r\n"])
    async def test_half_a_request_is_none(self, packet: bytes, autojump_clock: object) -> None:
        seen: list[Seen] = []
        async with open_house(echo_routes(seen)) as house:
            assert await answer_to_half(house, packet) == [400]
        assert seen == []

    async def test_whoever_does_it_behind_a_request_is_gone(self, autojump_clock: object) -> None:
        routes = Routes()

        @routes.get("/_test/slow", auth=NONE)
        async def slow(_: Call) -> JsonObject:
            await trio.sleep(10)
            return {}

        async with open_house(routes) as house:
            assert await answer_to_half(house, get(b"GET /_test/slow HTTP/1.1")) == []
            assert trio.current_time() < 5

    async def test_and_without_a_request_there_is_nothing_to_say(self, autojump_clock: object) -> None:
        async with open_house(echo_routes([])) as house:
            assert await answer_to_half(house, b"") == []


async def answer_to_half(house: House, packet: bytes) -> list[int]:
    visitor: Visitor = house.visit()
    await visitor.send(packet)
    assert isinstance(visitor.stream, trio.StapledStream)
    await visitor.stream.send_eof()
    return statuses(await visitor.everything())


async def test_HTTP_1_0_needs_no_host_and_has_one_answer(autojump_clock: object) -> None:
    async with open_house(echo_routes([])) as house:
        assert await answer_to(house, get(b"GET /_test/echo HTTP/1.0", host=b"")) == [200]
        first = b"GET /_test/echo HTTP/1.0\r\nConnection: keep-alive"
        assert await answer_to(house, get(first)) == [200]


async def test_what_is_still_sent_behind_a_bad_head_is_drained(autojump_clock: object) -> None:
    async with open_house() as house:
        visitor = house.visit()
        await visitor.send(b"GET / HTTP/1.1\nHost: x\r\n")
        assert (await visitor.response()).status == 400
        await trio.sleep(LINGER_SECONDS / 2)
        assert "<Edge: 1 connections" in repr(house.edge)
        await trio.sleep(LINGER_SECONDS)
        assert "<Edge: 0 connections" in repr(house.edge)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://x", b"/"),
        (b"HTTPS://x:1/a//b?c", b"/a//b?c"),
        (b"http://x?a=/_test/echo", b"/?a=/_test/echo"),
        (b"http://x#/_test/echo", None),
        (b"http:///_test/echo", None),
    ],
)
def test_where_the_path_of_an_absolute_target_begins(target: bytes, expected: bytes | None) -> None:
    """A proxy that allows some paths only must have seen the same one."""
    assert origin_form(target) == expected


async def test_options_may_ask_about_everything(autojump_clock: object) -> None:
    async with open_house() as house:
        assert (await house.ask("OPTIONS", "*")).status == 200
        assert (await house.ask("GET", "*")).status == 404
