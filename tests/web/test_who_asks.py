# SPDX-License-Identifier: Apache-2.0
"""Who asks, and where: clients by their token, servers by their signature; what a listener serves."""

from __future__ import annotations

from minihs.web.client_address import parse_networks
from minihs.web.routing import (
    CLIENT,
    FEDERATION,
    NONE,
    OPTIONAL_CLIENT,
    TRANSACTION_BODY_CAP,
    Answer,
    Call,
    JsonObject,
    Routes,
)
from minihs.web.serving import Policy

from .kit import FakeClock, FakeRequestAuth, is_refusal, make_services, open_house

VERSIONS = "/_matrix/client/versions"
SIGNED = {"Authorization": 'X-Matrix origin="other.example",key="ed25519:1",sig="good"'}


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
