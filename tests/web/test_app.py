# SPDX-License-Identifier: Apache-2.0
"""From a request to its handler and back: paths, errors, CORS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from minihs.matrix.errors import forbidden
from minihs.web.routing import (
    NONE,
    Answer,
    Call,
    JsonObject,
    Routes,
)

from .kit import Response, is_refusal, make_services, open_house

VERSIONS = "/_matrix/client/versions"


def has_cors(response: Response) -> bool:
    return (
        response.headers.get("Access-Control-Allow-Origin") == "*"
        and {"GET", "POST", "PUT", "DELETE", "OPTIONS"}
        <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
        and {"Authorization", "Content-Type", "X-Requested-With"}
        <= set(response.headers["Access-Control-Allow-Headers"].split(", "))
    )


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


async def in_two() -> AsyncIterator[bytes]:
    yield b"abc"
    yield b"de"


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

    async def test_a_header_that_would_split_the_answer_is_not_sent(self, autojump_clock: object) -> None:
        routes = Routes()

        @routes.get("/_test/split", auth=NONE)
        async def split(_: Call) -> Answer:
            return Answer(body=b"x", headers={"X-Extra": "a\r\nSet-Cookie: b"})

        async with open_house(routes) as house:
            response = await house.ask("GET", "/_test/split")
        assert response.status == 500
        assert "Set-Cookie" not in response.headers

    @pytest.mark.parametrize(("length", "sent"), [(4, b"abc"), (6, b"abcde")])
    async def test_an_answer_of_another_length_than_announced_ends_the_connection(
        self, length: int, sent: bytes, autojump_clock: object
    ) -> None:
        routes = Routes()

        @routes.get("/_test/odd", auth=NONE)
        async def odd(_: Call) -> Answer:
            return Answer(body=in_two(), headers={"Content-Length": str(length)})

        async with open_house(routes) as house:
            visitor = house.visit()
            started = trio.current_time()
            await visitor.send(b"GET /_test/odd HTTP/1.1\r\nHost: x\r\n\r\n")
            received = await visitor.everything()
            assert trio.current_time() - started < 1
        assert received.partition(b"\r\n\r\n")[2] == sent

    async def test_to_a_client_of_old_a_stream_ends_with_the_connection(self, autojump_clock: object) -> None:
        routes = Routes()

        @routes.get("/_test/stream", auth=NONE)
        async def stream(_: Call) -> Answer:
            return Answer(body=in_two())

        async with open_house(routes) as house:
            visitor = house.visit()
            await visitor.send(b"GET /_test/stream HTTP/1.0\r\n\r\n")
            assert (await visitor.everything()).endswith(b"\r\n\r\nabcde")

    async def test_an_upgrade_is_ignored_and_the_connection_goes_on(self, autojump_clock: object) -> None:
        async with open_house() as house:
            visitor = house.visit()
            request = f"GET {VERSIONS} HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
            for _ in range(2):
                await visitor.send(request.encode())
                assert (await visitor.response()).status == 200
