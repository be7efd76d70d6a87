# SPDX-License-Identifier: Apache-2.0
"""Logging in, tokens, logging out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.store import users as user_store
from minihs.users.passwords import Passwords

from .kit import PASSWORD, Client, TestServer, refused


def password_login(user: Any, password: Any = PASSWORD, **more: Any) -> dict[str, Any]:
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
        **more,
    }


async def test_login_by_password_and_token_is_offered(server: TestServer) -> None:
    answer = await server.ask("GET", "/login")
    flows = [{"type": "m.login.password"}, {"type": "m.login.token", "get_login_token": True}]
    assert answer.json == {"flows": flows}


@pytest.mark.parametrize("user", ["alice", "@alice:example.org", "Alice", "@ALICE:example.org"])
async def test_login_by_localpart_or_whole_id(server: TestServer, user: str) -> None:
    await server.users.create_account("alice", PASSWORD)
    answer = await server.ask("POST", "/login", password_login(user))
    assert answer.status == 200
    assert answer.json["user_id"] == "@alice:example.org"
    me = Client(server, answer.json)
    assert (await me.get("/account/whoami")).json == {
        "user_id": "@alice:example.org",
        "device_id": me.device_id,
        "is_guest": False,
    }


async def test_the_old_form_with_user_works_and_so_does_r0(server: TestServer) -> None:
    await server.users.create_account("alice", PASSWORD)
    body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    answer = await server.ask("POST", "/_matrix/client/r0/login", body)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        (password_login("alice", "wrong"), 403, "M_FORBIDDEN"),
        (password_login("nobody"), 403, "M_FORBIDDEN"),
        (password_login("@alice:other.example"), 403, "M_FORBIDDEN"),
        (password_login("@alice"), 403, "M_FORBIDDEN"),
        ({**password_login("alice"), "identifier": {"type": "m.id.thirdparty"}}, 403, "M_FORBIDDEN"),
        ({**password_login("alice"), "identifier": {"type": "m.id.other"}}, 400, "M_INVALID_PARAM"),
        ({**password_login("alice"), "identifier": "alice"}, 400, "M_BAD_JSON"),
        ({**password_login("alice"), "identifier": {}}, 400, "M_MISSING_PARAM"),
        (password_login(7), 400, "M_BAD_JSON"),
        (password_login("alice", 7), 400, "M_BAD_JSON"),
        (password_login("alice", None), 400, "M_MISSING_PARAM"),
        (password_login("alice", "x" * 2000), 400, "M_INVALID_PARAM"),
        (password_login("alice", device_id=7), 400, "M_BAD_JSON"),
        (password_login("alice", device_id=""), 400, "M_INVALID_PARAM"),
        (password_login("alice", device_id="*"), 400, "M_INVALID_PARAM"),
        (password_login("alice", device_id="x" * 300), 400, "M_INVALID_PARAM"),
        (password_login("alice", device_id="a\0b"), 400, "M_INVALID_PARAM"),
        (password_login("alice", refresh_token="yes"), 400, "M_BAD_JSON"),
        ({"type": "m.login.token", "token": "x"}, 403, "M_FORBIDDEN"),
        ({"type": "m.login.token", "token": 7}, 400, "M_BAD_JSON"),
        ({"type": "m.login.token"}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.sso"}, 400, "M_UNKNOWN"),
        ({"type": "m.login.application_service"}, 400, "M_APPSERVICE_LOGIN_UNSUPPORTED"),
        ({"type": []}, 400, "M_BAD_JSON"),
        ({}, 400, "M_MISSING_PARAM"),
        ([], 400, "M_BAD_JSON"),
        (b"{", 400, "M_NOT_JSON"),
    ],
)
async def test_bad_logins_are_refused(server: TestServer, body: Any, status: int, errcode: str) -> None:
    await server.users.create_account("alice", PASSWORD)
    assert refused(await server.ask("POST", "/login", body), status, errcode)


async def test_the_device_is_made_with_its_name_and_reused(server: TestServer) -> None:
    first = await server.user("alice", device_id="PHONE", initial_device_display_name="My phone")
    assert (await first.get("/devices/PHONE")).json["display_name"] == "My phone"
    second = await server.login("alice", device_id="PHONE", initial_device_display_name="Other name")
    assert (await second.get("/devices")).json["devices"][0]["display_name"] == "My phone"
    assert len((await second.get("/devices")).json["devices"]) == 1
    assert refused(await first.get("/devices"), 401, "M_UNKNOWN_TOKEN")


async def test_each_login_without_device_id_makes_a_device(server: TestServer) -> None:
    one, two = await server.user("alice"), await server.login("alice")
    assert one.device_id != two.device_id
    assert len((await one.get("/devices")).json["devices"]) == 2


async def test_requests_without_or_with_a_foreign_token_are_refused(server: TestServer) -> None:
    assert refused(await server.ask("GET", "/account/whoami"), 401, "M_MISSING_TOKEN")
    alice = await server.user("alice")
    for token in ["", "x", alice.token + "x", alice.token[:-1], "é", alice.user_id]:
        alice.token = token
        answer = await alice.get("/account/whoami")
        assert answer.status == 401
        assert answer.json["errcode"] in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN")


async def test_logout_ends_the_token_and_the_device(server: TestServer) -> None:
    alice, other = await server.user("alice"), await server.login("alice")
    assert (await alice.post("/logout", b"")).json == {}
    assert refused(await alice.get("/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    devices = (await other.get("/devices")).json["devices"]
    assert [device["device_id"] for device in devices] == [other.device_id]


async def test_logout_all_ends_all_devices_of_this_user_only(server: TestServer) -> None:
    alice, other, bob = await server.user("alice"), await server.login("alice"), await server.user("bob")
    assert (await alice.post("/logout/all", {})).status == 200
    for client in (alice, other):
        assert refused(await client.get("/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    assert (await bob.get("/account/whoami")).status == 200


GET_TOKEN = "/_matrix/client/v1/login/get_token"


def token_login(token: str) -> dict[str, Any]:
    return {"type": "m.login.token", "token": token, "device_id": "TABLET"}


class TestLoginToken:
    """One device lets another in."""

    async def test_it_logs_in_once_as_who_asked_for_it(self, server: TestServer) -> None:
        alice = await server.user("alice")
        made = await alice.confirmed("POST", GET_TOKEN, {})
        assert made.status == 200
        assert made.json["expires_in_ms"] == 120_000
        body = token_login(made.json["login_token"])
        answer = await server.ask("POST", "/login", body)
        assert answer.status == 200
        assert (answer.json["user_id"], answer.json["device_id"]) == (alice.user_id, "TABLET")
        assert (await Client(server, answer.json).get("/account/whoami")).status == 200
        assert refused(await server.ask("POST", "/login", body), 403, "M_FORBIDDEN")
        assert (await alice.get("/capabilities")).json["capabilities"]["m.get_login_token"]["enabled"]

    async def test_of_two_who_use_it_at_once_one_is_let_in(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = token_login((await alice.confirmed("POST", GET_TOKEN, {})).json["login_token"])
        statuses = []

        async def log_in() -> None:
            statuses.append((await server.ask("POST", "/login", body)).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(log_in)
            nursery.start_soon(log_in)
        assert sorted(statuses) == [200, 403]

    async def test_each_takes_the_password_anew(self, server: TestServer) -> None:
        alice = await server.user("alice")
        assert (await alice.confirmed("POST", GET_TOKEN, {}, password="wrong")).status == 401
        assert (await alice.confirmed("POST", GET_TOKEN, {})).status == 200
        again = await alice.post(GET_TOKEN, b"")
        assert again.status == 401
        assert again.json["flows"] == [{"stages": ["m.login.password"]}]
        assert len(server.rows("SELECT * FROM login_tokens")) == 1

    async def test_it_expires(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = token_login((await alice.confirmed("POST", GET_TOKEN, {})).json["login_token"])
        server.clock.step(120_000)
        assert refused(await server.ask("POST", "/login", body), 403, "M_FORBIDDEN")
        await alice.confirmed("POST", GET_TOKEN, {})
        assert len(server.rows("SELECT * FROM login_tokens")) == 1

    async def test_it_ends_with_the_device_that_asked(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = token_login((await alice.confirmed("POST", GET_TOKEN, {})).json["login_token"])
        await alice.post("/logout", {})
        assert refused(await server.ask("POST", "/login", body), 403, "M_FORBIDDEN")

    async def test_a_locked_account_is_not_let_in_but_the_token_stays(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = token_login((await alice.confirmed("POST", GET_TOKEN, {})).json["login_token"])
        await server.db.write(lambda tx: user_store.set_locked(tx, alice.user_id, True))
        assert refused(await server.ask("POST", "/login", body), 401, "M_USER_LOCKED")
        await server.db.write(lambda tx: user_store.set_locked(tx, alice.user_id, False))
        assert (await server.ask("POST", "/login", body)).status == 200


class TestRefresh:
    async def test_an_access_token_expires_softly_and_is_refreshed(self, server: TestServer) -> None:
        alice = await server.user("alice", refresh_token=True)
        server.clock.step(alice.login["expires_in_ms"] + 1)
        expired = await alice.get("/account/whoami")
        assert refused(expired, 401, "M_UNKNOWN_TOKEN")
        assert expired.json["soft_logout"] is True
        answer = await server.ask("POST", "/refresh", {"refresh_token": alice.login["refresh_token"]})
        assert answer.status == 200
        alice.token = answer.json["access_token"]
        assert (await alice.get("/account/whoami")).json["device_id"] == alice.device_id

    async def test_a_client_that_did_not_ask_gets_a_token_that_lasts(self, server: TestServer) -> None:
        alice = await server.user("alice")
        assert "refresh_token" not in alice.login
        assert "expires_in_ms" not in alice.login
        server.clock.step(10 * 365 * 86_400_000)
        assert (await alice.get("/account/whoami")).status == 200

    async def test_the_old_refresh_token_is_good_until_the_new_pair_is_used(self, server: TestServer) -> None:
        alice = await server.user("alice", refresh_token=True)
        old = {"refresh_token": alice.login["refresh_token"]}
        lost = await server.ask("POST", "/refresh", old)
        again = await server.ask("POST", "/refresh", old)
        assert again.status == 200
        alice.token = lost.json["access_token"]
        assert refused(await alice.get("/account/whoami"), 401, "M_UNKNOWN_TOKEN")  # of the lost answer
        alice.token = again.json["access_token"]
        assert (await alice.get("/account/whoami")).status == 200
        assert refused(await server.ask("POST", "/refresh", old), 401, "M_UNKNOWN_TOKEN")

    async def test_using_the_new_refresh_token_revokes_the_old_one(self, server: TestServer) -> None:
        alice = await server.user("alice", refresh_token=True)
        old = {"refresh_token": alice.login["refresh_token"]}
        new = (await server.ask("POST", "/refresh", old)).json
        assert (await server.ask("POST", "/refresh", {"refresh_token": new["refresh_token"]})).status == 200
        assert refused(await server.ask("POST", "/refresh", old), 401, "M_UNKNOWN_TOKEN")

    async def test_use_of_a_token_is_written_down(self, server: TestServer) -> None:
        alice = await server.user("alice", refresh_token=True)
        await alice.get("/account/whoami")
        await trio.testing.wait_all_tasks_blocked()
        assert server.rows("SELECT used FROM access_tokens") == [(1,)]

    async def test_logout_ends_the_refresh_token_too(self, server: TestServer) -> None:
        alice = await server.user("alice", refresh_token=True)
        await alice.post("/logout", {})
        answer = await server.ask("POST", "/refresh", {"refresh_token": alice.login["refresh_token"]})
        assert refused(answer, 401, "M_UNKNOWN_TOKEN")

    @pytest.mark.parametrize(
        ("body", "status", "errcode"),
        [
            ({}, 400, "M_MISSING_PARAM"),
            ({"refresh_token": 1}, 400, "M_BAD_JSON"),
            ({"refresh_token": "nonsense"}, 401, "M_UNKNOWN_TOKEN"),
        ],
    )
    async def test_bad_refreshes_are_refused(
        self, server: TestServer, body: Any, status: int, errcode: str
    ) -> None:
        assert refused(await server.ask("POST", "/refresh", body), status, errcode)

    async def test_an_access_token_is_no_refresh_token(self, server: TestServer) -> None:
        alice = await server.user("alice", refresh_token=True)
        answer = await server.ask("POST", "/refresh", {"refresh_token": alice.token})
        assert refused(answer, 401, "M_UNKNOWN_TOKEN")


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


class TestSecrets:
    async def test_no_password_or_token_is_in_the_database(self, server: TestServer, tmp_path: Path) -> None:
        alice = await server.user("alice", refresh_token=True)
        new_password = "new and no less secret"
        answer = await alice.confirmed("POST", "/account/password", {"new_password": new_password})
        assert answer.status == 200
        openid = (await alice.post(f"{alice.path}/openid/request_token", {})).json["access_token"]
        login = (await alice.confirmed("POST", GET_TOKEN, {}, password=new_password)).json["login_token"]
        invitation = (await server.users.accounts.invite(days=1))["token"]
        stored = everything_in(tmp_path)
        assert b"@alice:example.org" in stored
        tokens = (alice.token, alice.login["refresh_token"], openid, login, invitation)
        for secret in (PASSWORD, new_password, *tokens):
            assert secret.encode() not in stored

    async def test_tokens_have_at_least_128_bits(self, server: TestServer) -> None:
        alice = await server.user("alice", refresh_token=True)
        assert len(alice.token.partition("_")[2]) * 6 >= 128
        assert len(alice.login["refresh_token"].partition("_")[2]) * 6 >= 128

    async def test_a_password_hashed_with_older_parameters_is_hashed_anew(self, server: TestServer) -> None:
        weak = Passwords(server.runtime, time_cost=1, memory_kib=32)
        await server.users.create_account("alice", PASSWORD)
        old = await weak.hash(PASSWORD)
        await server.db.write(lambda tx: tx.execute("UPDATE users SET password_hash = ?", (old,)).rowcount)
        await server.login("alice")
        assert server.rows("SELECT password_hash FROM users")[0][0] != old
        await server.login("alice")


async def test_an_account_without_password_can_not_log_in(server: TestServer) -> None:
    await server.users.create_account("bot", None)
    for password in ("", "x"):
        assert refused(
            await server.ask("POST", "/login", password_login("bot", password)), 403, "M_FORBIDDEN"
        )


async def test_a_device_id_can_not_be_a_cross_signing_key(server: TestServer) -> None:
    alice = await server.user("alice")
    await server.db.write(
        lambda tx: (
            tx.execute(
                "INSERT INTO cross_signing_keys VALUES (?, 'master', 'KEY', '{}')", (alice.user_id,)
            ).rowcount
        )
    )
    answer = await server.ask("POST", "/login", password_login("alice", device_id="KEY"))
    assert refused(answer, 403, "M_FORBIDDEN")
