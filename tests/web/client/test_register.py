# SPDX-License-Identifier: Apache-2.0
"""Making accounts: the three modes, user names, interactive authentication, the shared secret."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
import trio

from .kit import PASSWORD, Client, TestServer, open_server, refused

DUMMY = {"type": "m.login.dummy"}
NEW = {"username": "alice", "password": PASSWORD}
SYNAPSE = "/_synapse/admin/v1/register"


class TestOpen:
    async def test_registration_takes_two_requests_and_logs_in(self, server: TestServer) -> None:
        challenge = await server.ask("POST", "/register", NEW)
        assert challenge.status == 401
        assert challenge.json["flows"] == [{"stages": ["m.login.dummy"]}]
        assert challenge.json["params"] == {}
        assert "errcode" not in challenge.json
        auth = {**DUMMY, "session": challenge.json["session"]}
        answer = await server.ask(
            "POST",
            "/register",
            {**NEW, "auth": auth, "device_id": "PHONE", "initial_device_display_name": "My phone"},
        )
        assert answer.status == 200
        assert answer.json["user_id"] == "@alice:example.org"
        assert answer.json["device_id"] == "PHONE"
        alice = Client(server, answer.json)
        assert (await alice.get("/devices/PHONE")).json["display_name"] == "My phone"

    async def test_a_client_that_knows_the_flow_may_leave_the_first_request_out(
        self, server: TestServer
    ) -> None:
        assert (await server.ask("POST", "/register", {**NEW, "auth": DUMMY})).status == 200

    async def test_inhibit_login_makes_no_session(self, server: TestServer) -> None:
        answer = await server.ask("POST", "/register", {**NEW, "auth": DUMMY, "inhibit_login": True})
        assert answer.status == 200
        assert "access_token" not in answer.json
        assert "device_id" not in answer.json
        assert server.rows("SELECT * FROM devices") == []

    async def test_refresh_tokens_are_given_when_asked_for(self, server: TestServer) -> None:
        answer = await server.ask("POST", "/register", {**NEW, "auth": DUMMY, "refresh_token": True})
        assert {"refresh_token", "expires_in_ms"} <= answer.json.keys()

    async def test_a_name_is_made_up_for_who_gives_none(self, server: TestServer) -> None:
        answer = await server.ask("POST", "/register", {"password": PASSWORD, "auth": DUMMY})
        assert answer.status == 200
        assert answer.json["user_id"].startswith("@")

    async def test_capital_letters_are_lowered(self, server: TestServer) -> None:
        answer = await server.ask("POST", "/register", {**NEW, "username": "Alice", "auth": DUMMY})
        assert answer.json["user_id"] == "@alice:example.org"

    @pytest.mark.parametrize(
        "name", ["", "ä", "a b", "a:b", "@alice:example.org", "a\0", "a#b", "x" * 250, "ａ", "alice\n", "İ"]
    )
    async def test_names_outside_the_grammar_are_refused(self, server: TestServer, name: str) -> None:
        for auth in ({}, {"auth": DUMMY}):
            answer = await server.ask("POST", "/register", {**NEW, "username": name, **auth})
            assert refused(answer, 400, "M_INVALID_USERNAME")
        assert server.rows("SELECT * FROM users") == []

    @pytest.mark.parametrize("name", ["a", "a.b_c=d-e/f+0", "x" * 242])
    async def test_names_within_the_grammar_are_taken(self, server: TestServer, name: str) -> None:
        answer = await server.ask("POST", "/register", {**NEW, "username": name, "auth": DUMMY})
        assert answer.json["user_id"] == f"@{name}:example.org"

    async def test_a_taken_name_is_refused_before_and_after_authentication(self, server: TestServer) -> None:
        challenge = await server.ask("POST", "/register", NEW)
        await server.users.create_account("alice", "another password")
        assert refused(await server.ask("POST", "/register", NEW), 400, "M_USER_IN_USE")
        body = {**NEW, "auth": {**DUMMY, "session": challenge.json["session"]}}
        assert refused(await server.ask("POST", "/register", body), 400, "M_USER_IN_USE")

    async def test_of_two_who_want_a_name_at_once_one_gets_it(self, server: TestServer) -> None:
        answers = []

        async def register() -> None:
            answers.append(await server.ask("POST", "/register", {**NEW, "auth": DUMMY}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(register)
            nursery.start_soon(register)
        assert sorted(answer.status for answer in answers) == [200, 400]

    async def test_the_name_of_a_closed_account_is_never_given_again(self, server: TestServer) -> None:
        alice = await server.user("alice")
        assert (await alice.confirmed("POST", "/account/deactivate", {})).status == 200
        assert refused(await server.ask("POST", "/register", NEW), 400, "M_USER_IN_USE")
        assert refused(await server.ask("GET", "/register/available?username=alice"), 400, "M_USER_IN_USE")

    @pytest.mark.parametrize(
        ("body", "errcode"),
        [
            ({"username": 1}, "M_BAD_JSON"),
            ({"password": 1}, "M_BAD_JSON"),
            ({"password": "x" * 2000}, "M_INVALID_PARAM"),
            ({"auth": "x"}, "M_BAD_JSON"),
            ({"auth": {"type": "m.login.dummy", "session": 5}}, "M_BAD_JSON"),
            ({"device_id": []}, "M_BAD_JSON"),
            ({"initial_device_display_name": "x" * 300}, "M_INVALID_PARAM"),
            ({"auth": DUMMY, "inhibit_login": "x"}, "M_BAD_JSON"),
            ({"auth": DUMMY, "password": None}, "M_MISSING_PARAM"),
        ],
    )
    async def test_malformed_requests_are_refused(
        self, server: TestServer, body: dict[str, Any], errcode: str
    ) -> None:
        assert refused(await server.ask("POST", "/register", {**NEW, **body}), 400, errcode)

    async def test_guests_are_refused(self, server: TestServer) -> None:
        assert refused(await server.ask("POST", "/register?kind=guest", {}), 403, "M_FORBIDDEN")
        assert refused(await server.ask("POST", "/register?kind=alien", {}), 400, "M_INVALID_PARAM")

    async def test_availability(self, server: TestServer) -> None:
        assert (await server.ask("GET", "/register/available?username=alice")).json == {"available": True}
        await server.users.create_account("alice", PASSWORD)
        taken = await server.ask("GET", "/register/available?username=alice")
        assert refused(taken, 400, "M_USER_IN_USE")
        bad = await server.ask("GET", "/register/available?username=%C3%A4")
        assert refused(bad, 400, "M_INVALID_USERNAME")
        assert refused(await server.ask("GET", "/register/available"), 400, "M_MISSING_PARAM")


class TestInteraction:
    @pytest.mark.parametrize("session", ["unknown", ""])
    async def test_an_unknown_session_gets_a_new_one(self, server: TestServer, session: str) -> None:
        answer = await server.ask("POST", "/register", {**NEW, "auth": {**DUMMY, "session": session}})
        assert refused(answer, 401, "M_UNKNOWN")
        assert answer.json["session"] != session

    async def test_a_session_is_good_for_one_request(self, server: TestServer) -> None:
        challenge = await server.ask("POST", "/register", NEW)
        auth = {**DUMMY, "session": challenge.json["session"]}
        assert (await server.ask("POST", "/register", {**NEW, "auth": auth})).status == 200
        again = await server.ask("POST", "/register", {**NEW, "username": "bob", "auth": auth})
        assert refused(again, 401, "M_UNKNOWN")

    async def test_a_session_grows_too_old(self, server: TestServer) -> None:
        challenge = await server.ask("POST", "/register", NEW)
        server.clock.step(2 * 3600 * 1000)
        auth = {**DUMMY, "session": challenge.json["session"]}
        assert refused(await server.ask("POST", "/register", {**NEW, "auth": auth}), 401, "M_UNKNOWN")

    @pytest.mark.parametrize("stage", ["m.login.password", "m.login.registration_token", 7, {}])
    async def test_another_stage_is_refused(self, server: TestServer, stage: Any) -> None:
        answer = await server.ask("POST", "/register", {**NEW, "auth": {"type": stage}})
        assert refused(answer, 401, "M_UNRECOGNIZED")
        assert answer.json["flows"] == [{"stages": ["m.login.dummy"]}]


async def test_closed_registration_is_refused(tmp_path: Path) -> None:
    async with open_server(tmp_path) as server:
        for body in (NEW, {**NEW, "auth": DUMMY}, {}):
            assert refused(await server.ask("POST", "/register", body), 403, "M_FORBIDDEN")
        validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=x"
        assert refused(await server.ask("GET", validity), 403, "M_FORBIDDEN")


class TestTokens:
    VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity?token="

    @staticmethod
    def auth(token: Any) -> dict[str, Any]:
        return {"auth": {"type": "m.login.registration_token", "token": token}}

    async def test_a_token_is_good_for_its_number_of_accounts(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"mode": "token"}) as server:
            await server.users.accounts.create_registration_token(token="welcome", uses=1)
            challenge = await server.ask("POST", "/register", NEW)
            assert challenge.json["flows"] == [{"stages": ["m.login.registration_token"]}]
            assert (await server.ask("GET", self.VALIDITY + "welcome")).json == {"valid": True}
            answer = await server.ask("POST", "/register", {**NEW, **self.auth("welcome")})
            assert answer.status == 200
            assert (await server.ask("GET", self.VALIDITY + "welcome")).json == {"valid": False}
            bob = {**NEW, "username": "bob"}
            refusal = await server.ask("POST", "/register", {**bob, **self.auth("welcome")})
            assert refused(refusal, 401, "M_UNAUTHORIZED")

    async def test_two_at_once_can_not_share_the_last_use(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"mode": "token"}) as server:
            await server.users.accounts.create_registration_token(token="welcome", uses=1)
            statuses = []

            async def register(name: str) -> None:
                body = {**NEW, "username": name, **self.auth("welcome")}
                statuses.append((await server.ask("POST", "/register", body)).status)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(register, "alice")
                nursery.start_soon(register, "bob")
            assert sorted(statuses)[0] == 200
            assert len(server.rows("SELECT * FROM users")) == 1

    async def test_a_failed_registration_does_not_use_the_token_up(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"mode": "token"}) as server:
            await server.users.accounts.create_registration_token(token="welcome", uses=1)
            body = {"username": "alice", **self.auth("welcome")}
            assert refused(await server.ask("POST", "/register", body), 400, "M_MISSING_PARAM")
            assert (await server.ask("GET", self.VALIDITY + "welcome")).json == {"valid": True}

    async def test_a_token_expires(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"mode": "token"}) as server:
            expires = server.clock.now_ms() + 1000
            await server.users.accounts.create_registration_token(token="t", uses=None, expires_ts=expires)
            assert (await server.ask("GET", self.VALIDITY + "t")).json == {"valid": True}
            server.clock.step(2000)
            assert (await server.ask("GET", self.VALIDITY + "t")).json == {"valid": False}

    @pytest.mark.parametrize("mode", ["closed", "token", "open"])
    async def test_an_invitation_is_good_for_one_account_in_every_mode(
        self, tmp_path: Path, mode: str
    ) -> None:
        async with open_server(tmp_path, registration={"mode": mode}) as server:
            token = (await server.users.accounts.invite(days=7))["token"]
            challenge = await server.ask("POST", "/register", NEW)
            assert {"stages": ["m.login.registration_token"]} in challenge.json["flows"]
            assert (await server.ask("GET", self.VALIDITY + token)).json == {"valid": True}
            assert (await server.ask("POST", "/register", {**NEW, **self.auth(token)})).status == 200
            again = await server.ask("POST", "/register", {**NEW, "username": "bob", **self.auth(token)})
            assert again.status in (401, 403)
            assert len(server.rows("SELECT * FROM users")) == 1

    async def test_where_registration_is_closed_an_old_invitation_opens_nothing(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"mode": "closed"}) as server:
            token = (await server.users.accounts.invite(days=7))["token"]
            server.clock.step(7 * 86_400_000 + 1)
            answer = await server.ask("POST", "/register", {**NEW, **self.auth(token)})
            assert refused(answer, 403, "M_FORBIDDEN")
            assert refused(await server.ask("GET", self.VALIDITY + token), 403, "M_FORBIDDEN")

    @pytest.mark.parametrize(
        ("token", "errcode"),
        [
            ("wrong", "M_UNAUTHORIZED"),
            (None, "M_MISSING_PARAM"),
            (7, "M_BAD_JSON"),
            ("x" * 65, "M_INVALID_PARAM"),
        ],
    )
    async def test_wrong_tokens_may_be_tried_again(self, tmp_path: Path, token: Any, errcode: str) -> None:
        async with open_server(tmp_path, registration={"mode": "token"}) as server:
            answer = await server.ask("POST", "/register", {**NEW, **self.auth(token)})
            assert refused(answer, 401, errcode)
            assert answer.json["flows"] == [{"stages": ["m.login.registration_token"]}]
            assert refused(
                await server.ask("POST", "/register", {**NEW, "auth": DUMMY}), 401, "M_UNRECOGNIZED"
            )


class TestSharedSecret:
    SECRET = "a shared secret"

    def body(self, nonce: str, *, admin: bool = False, secret: str = SECRET, **more: Any) -> dict[str, Any]:
        parts = [nonce, "bridge", PASSWORD, "admin" if admin else "notadmin"]
        parts += [more["user_type"]] if "user_type" in more else []
        mac = hmac.new(secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
        return {
            "nonce": nonce,
            "username": "bridge",
            "password": PASSWORD,
            "admin": admin,
            "mac": mac,
            **more,
        }

    async def nonce(self, server: TestServer) -> str:
        nonce: str = (await server.ask("GET", SYNAPSE)).json["nonce"]
        return nonce

    async def test_it_makes_accounts_even_if_registration_is_closed(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"shared_secret": self.SECRET}) as server:
            body = self.body(await self.nonce(server), admin=True, displayname="Bridge")
            answer = await server.ask("POST", SYNAPSE, body)
            assert answer.status == 200
            client = Client(server, answer.json)
            assert client.user_id == "@bridge:example.org"
            assert answer.json["home_server"] == "example.org"
            assert (await client.get(f"/profile/{client.user_id}")).json == {"displayname": "Bridge"}
            assert server.rows("SELECT admin FROM users") == [(1,)]

    async def test_a_nonce_is_good_once_and_for_a_minute(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"shared_secret": self.SECRET}) as server:
            body = self.body(await self.nonce(server), user_type="bot")
            assert (await server.ask("POST", SYNAPSE, body)).status == 200
            assert refused(await server.ask("POST", SYNAPSE, body), 400, "M_UNKNOWN")
            late = self.body(await self.nonce(server))
            server.clock.step(61_000)
            assert refused(await server.ask("POST", SYNAPSE, late), 400, "M_UNKNOWN")
            assert refused(await server.ask("POST", SYNAPSE, self.body("made up")), 400, "M_UNKNOWN")

    async def test_a_wrong_mac_makes_nothing(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, registration={"shared_secret": self.SECRET}) as server:
            for change in ({"mac": "00"}, {"mac": "é"}, {"admin": True}, {"username": "other"}):
                body = {**self.body(await self.nonce(server)), **change}
                assert refused(await server.ask("POST", SYNAPSE, body), 403, "M_FORBIDDEN")
            body = self.body(await self.nonce(server), secret="guess")
            assert refused(await server.ask("POST", SYNAPSE, body), 403, "M_FORBIDDEN")
            assert server.rows("SELECT * FROM users") == []

    @pytest.mark.parametrize(
        "change", [{"mac": 1}, {"password": None}, {"username": []}, {"admin": 1}, {"nonce": {}}]
    )
    async def test_malformed_requests_are_refused(self, tmp_path: Path, change: dict[str, Any]) -> None:
        async with open_server(tmp_path, registration={"shared_secret": self.SECRET}) as server:
            answer = await server.ask("POST", SYNAPSE, {**self.body(await self.nonce(server)), **change})
            assert answer.status == 400
            assert answer.json["errcode"] in ("M_BAD_JSON", "M_MISSING_PARAM")

    async def test_without_a_secret_it_is_off(self, server: TestServer) -> None:
        assert refused(await server.ask("GET", SYNAPSE), 400, "M_UNKNOWN")
        assert refused(await server.ask("POST", SYNAPSE, self.body("n", secret="")), 400, "M_UNKNOWN")
