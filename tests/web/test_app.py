# SPDX-License-Identifier: Apache-2.0
"""From a request to its handler and back: paths, authentication, JSON, errors, CORS, caps, limits."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

import psutil
import pytest
import trio

from minihs.matrix.errors import forbidden
from minihs.web.client_address import parse_networks
from minihs.web.rate_limits import LIMITS
from minihs.web.routing import (
    CLIENT,
    FEDERATION,
    KIB,
    MIB,
    NONE,
    OPTIONAL_CLIENT,
    TRANSACTION_BODY_CAP,
    Answer,
    Call,
    JsonObject,
    Routes,
)
from minihs.web.serving import Policy

from .kit import FakeClock, FakeRequestAuth, Response, make_services, open_house

VERSIONS = "/_matrix/client/versions"
SIGNED = {"Authorization": 'X-Matrix origin="other.example",key="ed25519:1",sig="good"'}


def has_cors(response: Response) -> bool:
    return (
        response.headers.get("Access-Control-Allow-Origin") == "*"
        and {"GET", "POST", "PUT", "DELETE", "OPTIONS"}
        <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
        and {"Authorization", "Content-Type", "X-Requested-With"}
        <= set(response.headers["Access-Control-Allow-Headers"].split(", "))
    )


def is_refusal(response: Response, status: int, errcode: str) -> bool:
    return response.status == status and response.json["errcode"] == errcode and "error" in response.json


class TestPaths:
    @staticmethod
    def echo() -> Routes:
        routes = Routes()

        @routes.get("/_matrix/client/v3/_test/{room_id}/event/{event_id}", auth=NONE)
        async def two(_: Call, room_id: str, event_id: str) -> JsonObject:
            return {"room_id": room_id, "event_id": event_id}

        return routes

    async def test_an_encoded_slash_stays_within_its_segment(self, autojump_clock: object) -> None:
        async with open_house(self.echo()) as house:
            response = await house.ask("GET", "/_matrix/client/v3/_test/%21a%3Ab/event/%24x%2Fy%2f%25")
        assert response.json == {"room_id": "!a:b", "event_id": "$x/y/%"}

    async def test_utf_8_and_plus_signs_come_through(self, autojump_clock: object) -> None:
        async with open_house(self.echo()) as house:
            response = await house.ask("GET", "/_matrix/client/v3/_test/%C3%A9+%20/event/%F0%9F%98%80")
        assert response.json == {"room_id": "é+ ", "event_id": "😀"}

    async def test_bad_utf_8_in_the_path_is_a_bad_request(self, autojump_clock: object) -> None:
        async with open_house(self.echo()) as house:
            response = await house.ask("GET", "/_matrix/client/v3/_test/%ff/event/x")
        assert is_refusal(response, 400, "M_INVALID_PARAM")

    @pytest.mark.parametrize("end", ["", "/"])
    @pytest.mark.parametrize("order", [1, -1])
    async def test_an_empty_state_key_has_two_spellings(
        self, end: str, order: int, autojump_clock: object
    ) -> None:
        routes = Routes()
        prefix = "/_matrix/client/v3/_test/{room_id}/state"
        without_key = [prefix + "/{event_type}", prefix + "/{event_type}/"][::order]

        @routes.get(prefix, auth=NONE)
        async def whole(_: Call, room_id: str) -> JsonObject:
            return {"room_id": room_id}

        @routes.put(prefix + "/{event_type}/{state_key}", also=without_key, auth=NONE)
        async def state(_: Call, room_id: str, event_type: str, state_key: str = "") -> JsonObject:
            return {"room_id": room_id, "type": event_type, "state_key": state_key}

        async with open_house(routes) as house:
            path = "/_matrix/client/r0/_test/r/state"
            response = await house.ask("PUT", f"{path}/m.room.name{end}")
            assert response.json == {"room_id": "r", "type": "m.room.name", "state_key": ""}
            response = await house.ask("PUT", f"{path}/m.room.name/k")
            assert response.json == {"room_id": "r", "type": "m.room.name", "state_key": "k"}
            assert (await house.ask("GET", path)).json == {"room_id": "r"}
            assert (await house.ask("GET", path + "/")).status == 404

    async def test_both_prefixes_are_served(self, autojump_clock: object) -> None:
        async with open_house(self.echo()) as house:
            for prefix in ("r0", "v3"):
                assert (await house.ask("GET", f"/_matrix/client/{prefix}/_test/a/event/b")).status == 200
            assert (await house.ask("GET", "/_matrix/client/v2/_test/a/event/b")).status == 404

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/_matrix",
            "/_matrix/client/v3/nonsense",
            "/_matrix/federation/v9/x",
            "//_matrix",
            "/%2e%2e/x",
        ],
    )
    async def test_an_unknown_path_is_unrecognized(self, path: str, autojump_clock: object) -> None:
        async with open_house() as house:
            assert is_refusal(await house.ask("GET", path), 404, "M_UNRECOGNIZED")

    async def test_a_slash_too_many_is_another_path(self, autojump_clock: object) -> None:
        async with open_house() as house:
            assert is_refusal(await house.ask("GET", VERSIONS + "/"), 404, "M_UNRECOGNIZED")

    async def test_a_wrong_method_is_unrecognized(self, autojump_clock: object) -> None:
        async with open_house() as house:
            for method in ("POST", "PUT", "DELETE", "PATCH", "BREW"):
                assert is_refusal(await house.ask(method, VERSIONS), 405, "M_UNRECOGNIZED")

    async def test_head_is_get_without_the_body(self, autojump_clock: object) -> None:
        async with open_house() as house:
            visitor = house.visit()
            response = await visitor.request("HEAD", VERSIONS)
            assert (response.status, response.body) == (200, b"")
            assert int(response.headers["Content-Length"]) > 0
            assert (await visitor.request("GET", VERSIONS)).status == 200

    async def test_unknown_query_parameters_do_no_harm(self, autojump_clock: object) -> None:
        async with open_house() as house:
            assert (await house.ask("GET", VERSIONS + "?_cacheBuster=1&&=&x")).status == 200


class TestCors:
    @pytest.mark.parametrize(
        "path",
        [VERSIONS, "/_matrix/client/v3/capabilities", "/nowhere", "/_matrix/media/v3/nowhere",
         "/.well-known/matrix/client"],
    )  # fmt: skip
    async def test_every_answer_to_clients_has_the_headers(self, path: str, autojump_clock: object) -> None:
        async with open_house() as house:
            assert has_cors(await house.ask("GET", path))

    async def test_a_crash_has_them_too(self, autojump_clock: object) -> None:
        async with open_house(crashing(ZeroDivisionError())) as house:
            response = await house.ask("GET", "/_test/crash")
        assert response.status == 500
        assert has_cors(response)

    @pytest.mark.parametrize("path", [VERSIONS, "/nowhere/at/all", "/_matrix/client/v3/sync", "*"])
    async def test_options_is_answered_everywhere(self, path: str, autojump_clock: object) -> None:
        async with open_house() as house:
            response = await house.ask("OPTIONS", path)
        assert response.status == 200
        assert has_cors(response)

    async def test_servers_do_not_get_them(self, autojump_clock: object) -> None:
        async with open_house() as house:
            response = await house.ask("GET", "/_matrix/federation/v1/nowhere")
        assert "Access-Control-Allow-Origin" not in response.headers


def crashing(error: BaseException) -> Routes:
    routes = Routes()

    @routes.get("/_test/crash", auth=NONE)
    async def crash(_: Call) -> JsonObject:
        raise error

    return routes


class TestErrors:
    async def test_a_refusal_is_its_own_answer(self, autojump_clock: object) -> None:
        async with open_house(crashing(forbidden("Not you."))) as house:
            response = await house.ask("GET", "/_test/crash")
        assert response.status == 403
        assert response.json == {"errcode": "M_FORBIDDEN", "error": "Not you."}

    async def test_a_refusal_within_groups_is_found(self, autojump_clock: object) -> None:
        group = ExceptionGroup("", [ExceptionGroup("", [forbidden("Not you.")]), forbidden("Nor you.")])
        async with open_house(crashing(group)) as house:
            assert is_refusal(await house.ask("GET", "/_test/crash"), 403, "M_FORBIDDEN")

    @pytest.mark.parametrize(
        "error",
        [ValueError("secret detail"), ExceptionGroup("", [forbidden("x"), ValueError("secret detail")])],
    )
    async def test_a_bug_is_500_with_an_id_that_the_log_has(
        self, error: Exception, autojump_clock: object, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with open_house(crashing(error)) as house:
            response = await house.ask("GET", "/_test/crash")
        assert is_refusal(response, 500, "M_UNKNOWN")
        assert b"secret" not in response.body
        error_id = response.json["error"].rsplit(" ", 1)[1].rstrip(".")
        logged = capsys.readouterr().out
        assert error_id in logged
        assert "secret detail" in logged
        assert "Traceback" in logged


class TestClients:
    @staticmethod
    def whoami() -> Routes:
        routes = Routes()

        @routes.get("/_test/must", auth=CLIENT)
        async def must(call: Call) -> JsonObject:
            return {"user_id": call.requester.user_id}

        @routes.get("/_test/may", auth=OPTIONAL_CLIENT)
        async def may(call: Call) -> JsonObject:
            return {"known": call.maybe_requester is not None}

        return routes

    async def test_a_token_in_the_header_or_the_query_tells_who_asks(self, autojump_clock: object) -> None:
        async with open_house(self.whoami()) as house:
            for response in (
                await house.ask("GET", "/_test/must", token="alices-token"),
                await house.ask("GET", "/_test/must?access_token=alices-token"),
                await house.ask("GET", "/_test/must", headers={"authorization": "bearer alices-token"}),
            ):
                assert response.json == {"user_id": "@alice:example.org"}

    async def test_no_token_is_a_missing_token(self, autojump_clock: object) -> None:
        async with open_house(self.whoami()) as house:
            for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic YTpi"}):
                response = await house.ask("GET", "/_test/must", headers=headers)
                assert is_refusal(response, 401, "M_MISSING_TOKEN")

    async def test_a_wrong_token_is_unknown(self, autojump_clock: object) -> None:
        async with open_house(self.whoami()) as house:
            assert is_refusal(await house.ask("GET", "/_test/must", token="x"), 401, "M_UNKNOWN_TOKEN")
            assert is_refusal(await house.ask("GET", "/_test/may", token="x"), 401, "M_UNKNOWN_TOKEN")

    async def test_an_optional_token_may_be_left_out(self, autojump_clock: object) -> None:
        async with open_house(self.whoami()) as house:
            assert (await house.ask("GET", "/_test/may")).json == {"known": False}
            assert (await house.ask("GET", "/_test/may", token="alices-token")).json == {"known": True}


class TestServers:
    @staticmethod
    def routes() -> Routes:
        routes = Routes()

        @routes.put("/_matrix/federation/v1/_test/{txn_id}", auth=FEDERATION, body_cap=TRANSACTION_BODY_CAP)
        async def put(call: Call, txn_id: str) -> JsonObject:
            return {"origin": call.origin, "txn_id": txn_id, "body": await call.json()}

        @routes.get("/_matrix/federation/v1/_test/{event_id}", auth=FEDERATION)
        async def get(call: Call, event_id: str) -> JsonObject:
            return {"origin": call.origin, "event_id": event_id}

        return routes

    async def test_what_is_verified_is_what_was_received(self, autojump_clock: object) -> None:
        services = make_services()
        target = "/_matrix/federation/v1/_test/%24a%2Fb?x=%7e&y="
        async with open_house(self.routes(), services=services) as house:
            response = await house.ask("PUT", target, body={"a": [1]}, headers=SIGNED)
            assert response.json == {"origin": "other.example", "txn_id": "$a/b", "body": {"a": [1]}}
            response = await house.ask("GET", target, headers=SIGNED)
            assert response.json == {"origin": "other.example", "event_id": "$a/b"}
            await house.ask("PUT", target, headers=SIGNED)
        assert isinstance(services.request_auth, FakeRequestAuth)
        assert services.request_auth.seen == [
            ("PUT", target, {"a": [1]}),
            ("GET", target, None),
            ("PUT", target, None),
        ]

    async def test_an_unsigned_request_is_refused_before_its_body_is_read(
        self, autojump_clock: object
    ) -> None:
        async with open_house(self.routes()) as house:
            for headers in ({}, {"Authorization": "Bearer x"}):
                visitor = house.visit()
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                await visitor.send(
                    b"PUT /_matrix/federation/v1/_test/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n"
                    + lines.encode()
                    + b"\r\n"
                )
                assert is_refusal(await visitor.response(), 401, "M_UNAUTHORIZED")

    async def test_a_wrong_signature_is_refused(self, autojump_clock: object) -> None:
        bad = {"Authorization": SIGNED["Authorization"].replace("good", "bad")}
        async with open_house(self.routes()) as house:
            response = await house.ask("PUT", "/_matrix/federation/v1/_test/1", body={}, headers=bad)
        assert is_refusal(response, 401, "M_UNAUTHORIZED")

    async def test_a_clock_from_before_2024_serves_no_federation(self, autojump_clock: object) -> None:
        clock = FakeClock()
        clock.ms = 86_400_000
        async with open_house(self.routes(), services=make_services(clock)) as house:
            target = "/_matrix/federation/v1/_test/1"
            response = await house.ask("PUT", target, body={}, headers=SIGNED)
            assert response.status == 503
            assert "clock" in response.json["error"]
            assert (await house.ask("GET", VERSIONS)).status == 200
            clock.ms = 1_800_000_000_000
            assert (await house.ask("PUT", target, body={}, headers=SIGNED)).status == 200


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
            (b'{"a":' * 101 + b"1" + b"}" * 101, "M_NOT_JSON"),
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
            assert is_refusal(await visitor.response(), 413, "M_TOO_LARGE")

    async def test_a_body_of_just_the_cap_passes(self, autojump_clock: object) -> None:
        body = b'{"a":"' + b"x" * (64 * KIB - 8) + b'"}'
        async with open_house(taking_json()) as house:
            assert (await house.ask("POST", "/_test/json", body=body)).status == 200
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


class TestListeners:
    async def test_a_listener_serves_only_its_apis(self, autojump_clock: object) -> None:
        clients, servers = Policy(apis=frozenset({"client"})), Policy(apis=frozenset({"federation"}))
        async with open_house(TestServers.routes()) as house:
            signed = "/_matrix/federation/v1/_test/1"
            assert (await house.ask("GET", VERSIONS, policy=clients)).status == 200
            assert (await house.ask("GET", signed, headers=SIGNED, policy=clients)).status == 404
            assert (await house.ask("GET", VERSIONS, policy=servers)).status == 404
            assert (await house.ask("GET", signed, headers=SIGNED, policy=servers)).status == 200

    async def test_forwarded_addresses_are_believed_of_trusted_proxies_only(
        self, autojump_clock: object
    ) -> None:
        routes = Routes()

        @routes.get("/_test/address", auth=NONE)
        async def address(call: Call) -> Answer:
            return Answer(json=call.remote_address)

        proxied = Policy(trusted_proxies=parse_networks(["192.0.2.1", "10.0.0.0/8"]))
        forwarded = {"X-Forwarded-For": "1.1.1.1, 203.0.113.5, 10.1.1.1"}
        async with open_house(routes) as house:
            for policy, peer, headers, expected in (
                (proxied, ("192.0.2.1", 1), forwarded, "203.0.113.5"),
                (Policy(), ("192.0.2.1", 1), forwarded, "192.0.2.1"),
                (proxied, ("192.0.2.2", 1), forwarded, "192.0.2.2"),
                (proxied, ("192.0.2.1", 1), {}, "192.0.2.1"),
                (proxied, ("192.0.2.1", 1), {"X-Forwarded-For": "rubbish"}, "192.0.2.1"),
                (proxied, ("192.0.2.1", 1), {"X-Forwarded-For": "10.0.0.1"}, "10.0.0.1"),
                (proxied, None, {"X-Forwarded-For": "2001:db8::7"}, "2001:db8::7"),
                (proxied, None, {}, "unix"),
            ):
                response = await house.ask("GET", "/_test/address", peer=peer, policy=policy, headers=headers)
                assert response.json == expected


class TestWellKnown:
    async def test_what_is_configured_is_announced(self, autojump_clock: object) -> None:
        services = make_services(
            public_base_url="https://matrix.example.org/", delegated_server="matrix.example.org:443"
        )
        async with open_house(services=services) as house:
            client = await house.ask("GET", "/.well-known/matrix/client")
            server = await house.ask("GET", "/.well-known/matrix/server")
        assert client.json == {"m.homeserver": {"base_url": "https://matrix.example.org"}}
        assert has_cors(client)
        assert server.json == {"m.server": "matrix.example.org:443"}

    async def test_what_is_not_configured_is_not_found(self, autojump_clock: object) -> None:
        async with open_house() as house:
            for path in ("client", "server", "support"):
                response = await house.ask("GET", f"/.well-known/matrix/{path}")
                assert is_refusal(response, 404, "M_NOT_FOUND")

    async def test_whom_to_ask_for_help_is_announced(self, autojump_clock: object) -> None:
        path = "/.well-known/matrix/support"
        contact = {"matrix_id": "@admin:example.com"}
        async with open_house(services=make_services(support=contact)) as house:
            answer = await house.ask("GET", path)
            assert answer.json == {"contacts": [{**contact, "role": "m.role.admin"}]}
            assert has_cors(answer)
        page = "https://example.org/help"
        async with open_house(services=make_services(support={"page": page})) as house:
            assert (await house.ask("GET", path)).json == {"support_page": page}


class TestVersions:
    async def test_old_clients_find_their_version_and_new_ones_theirs(self, autojump_clock: object) -> None:
        async with open_house() as house:
            versions = (await house.ask("GET", VERSIONS)).json["versions"]
        assert {"v1.1", "v1.9", "v1.11"} <= set(versions)

    async def test_capabilities_name_the_default_room_version(self, autojump_clock: object) -> None:
        async with open_house() as house:
            response = await house.ask("GET", "/_matrix/client/v3/capabilities", token="alices-token")
        rooms = response.json["capabilities"]["m.room_versions"]
        assert rooms["default"] == "12"
        assert set(rooms["available"]) == {str(number) for number in range(1, 13)}


class TestAnswers:
    async def test_a_stream_that_breaks_is_cut_short_for_all_to_see(self, autojump_clock: object) -> None:
        routes = Routes()
        closed: list[bool] = []

        @routes.get("/_test/stream", auth=NONE)
        async def stream(_: Call) -> Answer:
            async def body() -> AsyncIterator[bytes]:
                try:
                    yield b"beginning"
                    raise OSError("the disk is gone")
                finally:
                    closed.append(True)

            return Answer(body=body(), headers={"Content-Type": "text/plain"})

        async with open_house(routes) as house:
            visitor = house.visit()
            await visitor.send(b"GET /_test/stream HTTP/1.1\r\nHost: x\r\n\r\n")
            received = await visitor.everything()
            assert b"beginning" in received
            assert not received.endswith(b"0\r\n\r\n")  # the end of a chunked body that is whole
            assert closed == [True]
            assert (await house.ask("GET", VERSIONS)).status == 200

    async def test_an_answer_that_has_no_json_form_is_a_bug_and_said_so(self, autojump_clock: object) -> None:
        routes = Routes()

        @routes.get("/_test/odd", auth=NONE)
        async def odd(_: Call) -> JsonObject:
            return {"a": object()}

        async with open_house(routes) as house:
            assert is_refusal(await house.ask("GET", "/_test/odd"), 500, "M_UNKNOWN")

    async def test_status_headers_and_bytes_are_sent_as_given(self, autojump_clock: object) -> None:
        routes = Routes()

        @routes.get("/_test/bytes", auth=NONE)
        async def file(_: Call) -> Answer:
            return Answer(201, body=b"\x00\xff", headers={"Content-Type": "image/png", "X-Extra": "é"})

        async with open_house(routes) as house:
            response = await house.ask("GET", "/_test/bytes")
        assert (response.status, response.body) == (201, b"\x00\xff")
        assert response.headers["Content-Type"] == "image/png"
        assert has_cors(response)
