# SPDX-License-Identifier: Apache-2.0
"""Requests to other servers: how they are signed, bounded, ended and told apart when they fail."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from werkzeug.datastructures import Headers

from minihs.federation import pools as pools_module
from minihs.federation.connections import MAX_IDLE
from minihs.federation.http11 import MAX_HEAD
from minihs.federation.keyring import Keyring
from minihs.federation.own_keys import OwnKeys
from minihs.federation.request_auth import RequestAuth
from minihs.federation.transport import FAILURE_MEMORY, Request, path
from minihs.matrix.federation_errors import RemoteProtocolError, RemoteRefused, Unreachable
from minihs.testing.hostile import Reply, ScriptedPeer
from minihs.testing.internet import SocketAddress
from tests.federation.kit import Caller

V1 = "/_matrix/federation/v1"


async def test_path_segments_are_encoded_each_as_a_whole() -> None:
    assert path("/a", "!r:x", "$e/+ %?#ü") == "/a/%21r%3Ax/%24e%2F%2B%20%25%3F%23%C3%BC"


async def test_our_requests_pass_our_own_checks(us: Caller, peer: ScriptedPeer) -> None:
    """What we send, the other side (with the same eyes as ours) accepts as ours."""
    peer.on("GET", "/", {})
    peer.on("PUT", "/", {})
    await us.client.make_join("peer.test", "!room/x:peer.test", "@ü ?:us.test", ["11", "12"])
    await us.client.put_json("peer.test", "/x", {"b": [1, {"ä": None}], "a": 1.5}, [("q", "a b&c")])
    theirs = OwnKeys("peer.test", peer.key, us.runtime.clock)
    keyring = Keyring(theirs, us.db, us.runtime, us.client)
    our_keys = ScriptedPeer(us.internet, "us.test", key=us.key, clock=us.clock)
    keyring._fetcher._client = _AsPeer(our_keys)  # type: ignore[assignment]  # asks us directly
    auth = RequestAuth("peer.test", keyring)
    for request in peer.requests:
        headers = Headers([("Authorization", request.headers["authorization"])])
        assert await auth.authenticate(request.method, request.uri, headers, request.json) == "us.test"
    assert peer.requests[0].uri == (
        f"{V1}/make_join/%21room%2Fx%3Apeer.test/%40%C3%BC%20%3F%3Aus.test?ver=11&ver=12"
    )
    assert peer.requests[1].headers["content-type"] == "application/json"


class _AsPeer:
    def __init__(self, peer: ScriptedPeer) -> None:
        self._peer = peer

    async def server_keys(self, server: str) -> Any:
        return self._peer.key_document()


async def test_key_requests_are_not_signed(us: Caller, peer: ScriptedPeer) -> None:
    await us.client.server_keys("peer.test")
    assert "authorization" not in peer.requests[0].headers


# -- how it can fail --


async def test_refusals_carry_what_the_server_said(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("GET", "/", Reply(403, {"errcode": "M_FORBIDDEN", "error": "no", "more": 5}))
    with pytest.raises(RemoteRefused) as caught:
        await us.client.get_json("peer.test", "/x")
    assert (caught.value.status, caught.value.errcode, caught.value.error) == (403, "M_FORBIDDEN", "no")
    assert caught.value.body["more"] == 5


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, body=b"<html>"),
        Reply(404, json=["x"]),
        Reply(400, json={"errcode": 5, "error": ["x"]}),
        Reply(502, body=b""),
        Reply(302, headers=[("Location", "https://elsewhere.test/")]),
        Reply(400, body=b"x" * 1_000_000),
        Reply(404, body=b'{"errcode": "\\ud800"}'),
    ],
    ids=lambda reply: repr(reply)[:50],
)
async def test_refusals_need_not_be_well_formed(us: Caller, peer: ScriptedPeer, reply: Reply) -> None:
    peer.on("GET", "/", reply)
    with pytest.raises(RemoteRefused) as caught:
        await us.client.get_json("peer.test", "/x")
    assert caught.value.status == reply.status
    assert caught.value.errcode == "M_UNKNOWN"
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"not json"),
        Reply(body=b""),
        Reply(json=[1]),
        Reply(json="x"),
        Reply(json=None),
        Reply(body=b"[" * 1000 + b"]" * 1000),
        Reply(body=b'{"a": NaN}'),
        Reply(raw=b"HTTP/1.1 banana\r\n\r\n"),
        Reply(raw=b"220 mail.peer.test ESMTP\r\n\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD + b"\r\n\r\n"),
    ],
    ids=lambda reply: repr(reply)[:60],
)
async def test_rubbish_is_the_other_servers_fault(us: Caller, peer: ScriptedPeer, reply: Reply) -> None:
    peer.on("GET", "/", reply)
    with pytest.raises(RemoteProtocolError):
        await us.client.get_json("peer.test", "/x")


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("GET", "/", Reply(raw=b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a": 1}'))
    with pytest.raises((RemoteProtocolError, Unreachable)):
        await us.client.get_json("peer.test", "/x")


@pytest.mark.parametrize("signed_length", [True, False])
async def test_answers_are_cut_off_at_their_cap(us: Caller, peer: ScriptedPeer, signed_length: bool) -> None:
    body = b'{"x": "' + b"y" * 900_000 + b'"}'
    peer.on("GET", "/fits", Reply(body=body))
    peer.on("GET", "/large", Reply(body=body) if signed_length else Reply(body=b"y" * 1000, endless=True))
    await us.client.get_json("peer.test", "/fits", max_bytes=len(body))
    with pytest.raises(RemoteProtocolError, match="larger than"):
        await us.client.get_json("peer.test", "/large", max_bytes=len(body) - 1)
    assert us.internet.link(us.host, peer.host).bytes < 4_000_000


async def test_every_request_has_a_deadline(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("GET", "/silent", Reply(delay=10_000))

    async def drip(stream: trio.abc.Stream, _: SocketAddress, __: SocketAddress) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await stream.send_all(b" ")
            await trio.sleep(1)

    us.internet.host("drip.test").listen(8448, drip)
    for server in ("peer.test", "drip.test"):
        start = trio.current_time()
        with pytest.raises(Unreachable, match="in time"):
            await us.client.get_json(server, "/silent", within=30)
        assert trio.current_time() - start == pytest.approx(30)
    assert not us.pools._entries["drip.test"].pool.is_open


async def test_a_server_that_could_not_be_reached_is_not_tried_again_at_once(
    us: Caller, peer: ScriptedPeer
) -> None:
    peer.on("GET", "/", {})
    peer.host.down()
    with pytest.raises(Unreachable):
        await us.client.get_json("peer.test", "/x")
    peer.host.up()
    with pytest.raises(Unreachable):
        await us.client.get_json("peer.test", "/x")
    assert peer.requests == []
    us.client.heard_from("peer.test")
    assert await us.client.get_json("peer.test", "/x") == {}


async def test_but_it_is_a_moment_later(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("GET", "/", {})
    peer.host.down()
    with pytest.raises(Unreachable):
        await us.client.get_json("peer.test", "/x")
    peer.host.up()
    await trio.sleep(FAILURE_MEMORY + 0.1)
    assert await us.client.get_json("peer.test", "/x") == {}


@pytest.mark.parametrize("name", ["us.test", "no server name", "", "x" * 300])
async def test_there_is_nobody_to_ask(us: Caller, name: str) -> None:
    with pytest.raises(Unreachable):
        await us.client.version(name)
    assert us.internet.dns.queries == []


# -- connections --


async def test_connections_are_used_again(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("GET", "/", {})
    assert not us.client.is_connected("peer.test")
    for _ in range(10):
        await us.client.get_json("peer.test", "/x")
    assert us.internet.link(us.host, peer.host).connections == 1
    assert us.client.is_connected("peer.test")


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_connection_that_the_peer_closed_meanwhile_costs_nothing(
    us: Caller, peer: ScriptedPeer, method: str
) -> None:
    peer.on(method, "/", Reply(close=True))
    for _ in range(3):
        await us.client._object(Request(method, "peer.test", "/x", content=b"{}"), 30, 1000)
    assert len(peer.requests) == 3


async def test_a_connection_closed_in_the_middle_of_the_request_is_retried_once(
    us: Caller, peer: ScriptedPeer
) -> None:
    answers = iter([Reply(), Reply(raw=b""), Reply(), Reply(raw=b""), Reply(raw=b"")])
    peer.on("GET", "/", lambda _: next(answers))
    await us.client.get_json("peer.test", "/1")
    await us.client.get_json("peer.test", "/2")
    with pytest.raises(Unreachable, match="without an answer"):
        await us.client.get_json("peer.test", "/3")
    assert [request.path for request in peer.requests] == ["/1", "/2", "/2", "/3", "/3"]


async def test_a_connection_that_is_known_to_be_closed_is_not_tried(us: Caller, peer: ScriptedPeer) -> None:
    """A POST would not be sent again."""
    peer.on("POST", "/", Reply(close=True))
    for _ in range(3):
        await us.client.post_json("peer.test", "/x", {})
        await trio.sleep(0.1)
    assert len(peer.requests) == 3


async def test_what_comes_behind_an_answer_is_not_taken_for_the_next(us: Caller, peer: ScriptedPeer) -> None:
    async def chatty(stream: trio.abc.Stream, _: SocketAddress, __: SocketAddress) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
        while await stream.receive_some():
            await stream.send_all(answer % (2, b"{}") + answer % (14, b'{"false":true}'))

    us.internet.host("chatty.test").listen(8448, chatty)
    for _ in range(3):
        assert await us.client.get_json("chatty.test", "/x") == {}


async def test_a_post_is_not_sent_twice(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("POST", "/", Reply(raw=b""))
    with pytest.raises(Unreachable):
        await us.client.post_json("peer.test", "/x", {})
    assert len(peer.requests) == 1


async def test_cancelled_requests_leave_the_pool_clean(us: Caller, peer: ScriptedPeer) -> None:
    """At whatever moment a request is cancelled, no connection stays taken, and the next request works."""
    us.internet.latency = 0.01
    peer.on("GET", "/", Reply(body=b'{"x": "' + b"y" * 600_000 + b'"}', delay=0.02))
    moment, finished = 0.0, False
    while not finished:
        with trio.move_on_after(moment):
            await us.client.get_json("peer.test", "/x", within=100)
            finished = True
        entry = us.pools._entries.get("peer.test")
        if entry is not None:
            assert entry.users == 0
            assert entry.pool._turns.value == pools_module.CONNECTIONS_PER_SERVER
            assert entry.pool._free == entry.pool._open
        moment += 0.004
    assert moment > 0.05
    peer.on("GET", "/", {})
    assert await us.client.get_json("peer.test", "/x") == {}


async def test_four_requests_to_one_server_run_at_once_and_a_fifth_waits_its_turn(
    us: Caller, peer: ScriptedPeer
) -> None:
    peer.on("GET", "/", Reply(delay=10))
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(us.client.get_json, "peer.test", "/x")
    assert trio.current_time() - start == pytest.approx(20, abs=1)
    assert us.internet.link(us.host, peer.host).connections == 4


async def test_two_connections_stay_open_for_later(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("GET", "/", Reply(delay=10))

    async def ask(at_once: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(us.client.get_json, "peer.test", "/x")

    await ask(MAX_IDLE + 1)
    assert len(us.pools._entries["peer.test"].pool._open) == MAX_IDLE
    await ask(MAX_IDLE)
    assert us.internet.link(us.host, peer.host).connections == MAX_IDLE + 1


async def test_one_slow_server_does_not_slow_the_others(us: Caller, peer: ScriptedPeer) -> None:
    slow = ScriptedPeer(us.internet, "slow.test", clock=us.clock)
    slow.on("GET", "/", Reply(delay=25))
    peer.on("GET", "/", {})
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(_ignoring_errors, us, "slow.test")
        await trio.sleep(1)
        start = trio.current_time()
        await us.client.get_json("peer.test", "/x")
        assert trio.current_time() - start < 1
        nursery.cancel_scope.cancel()


async def _ignoring_errors(us: Caller, server: str) -> None:
    try:
        await us.client.get_json(server, "/x")
    except Unreachable:
        pass


async def test_pools_have_an_end_and_unused_ones_are_closed(
    us: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools_module, "MAX_POOLS", 5)
    peers = [ScriptedPeer(us.internet, f"p{number}.test", clock=us.clock) for number in range(20)]
    for each in peers:
        each.on("GET", "/", {})
        await us.client.get_json(each.name, "/x")
        assert len(us.pools) <= 5
    await trio.sleep(pools_module.IDLE_SECONDS + 1)
    await us.client.get_json("p0.test", "/x")
    assert len(us.pools) == 1


async def test_servers_that_do_not_answer_push_out_no_connection(
    us: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools_module, "MAX_POOLS", 5)
    peers = [ScriptedPeer(us.internet, f"p{number}.test", clock=us.clock) for number in range(10)]
    for each in peers:
        each.on("GET", "/", {})
    living, dead = peers[:4], peers[4:]
    for each in dead:
        each.host.down()
    for each in living:
        await us.client.get_json(each.name, "/x")
    for each in dead:
        with pytest.raises(Unreachable):
            await us.client.get_json(each.name, "/x")
        assert len(us.pools) <= 5
    assert [each.name for each in peers if us.pools.is_connected(each.name)] == [each.name for each in living]


async def test_a_pool_in_use_is_not_closed_under_its_user(
    us: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools_module, "MAX_POOLS", 1)
    slow = ScriptedPeer(us.internet, "slow.test", clock=us.clock)
    slow.on("GET", "/", Reply(json={"slow": True}, delay=10))
    other = ScriptedPeer(us.internet, "other.test", clock=us.clock)
    other.on("GET", "/", {})
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await us.client.get_json("slow.test", "/x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(1)
        await us.client.get_json("other.test", "/x")
        await us.pools.forget("slow.test")
    assert answers == [{"slow": True}]
