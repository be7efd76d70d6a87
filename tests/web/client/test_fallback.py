# SPDX-License-Identifier: Apache-2.0
"""The pages for clients that leave logging in and authenticating to a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from minihs.web.routes.client.fallback import INVITATION_PAGE

from .kit import PASSWORD, TestServer, open_server

LOGIN = "/_matrix/static/client/login/"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    async with open_server(tmp_path, registration={"mode": "token"}) as server:
        yield server


def stage_path(stage: str, session: str) -> str:
    return f"/_matrix/client/v3/auth/{stage}/fallback/web?session={quote(session)}"


async def post(server: TestServer, path: str, **fields: str) -> Any:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return await server.house.ask("POST", path, body=urlencode(fields).encode(), headers=headers)


def script_of(page: Any) -> str:
    """The page's script, which its policy must let run: it, and nothing else."""
    found = re.search(r"<script>(.*)</script>", page.body.decode(), re.S)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    return found[1]


async def test_a_page_logs_in_and_tells_the_client(server: TestServer) -> None:
    for path in (LOGIN, LOGIN.rstrip("/")):
        page = await server.ask("GET", path + "?device_id=PHONE")
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        script = script_of(page)
        assert "window.matrixLogin.onLogin(body)" in script
        assert "/_matrix/client/v3/login" in script


async def test_a_registration_token_can_be_given_in_the_browser(server: TestServer) -> None:
    await server.users.accounts.create_registration_token(token="invited", uses=1)
    body = {"username": "alice", "password": PASSWORD}
    challenge = (await server.ask("POST", "/register", body)).json
    stage, session = "m.login.registration_token", challenge["session"]
    page = await server.ask("GET", stage_path(stage, session))
    assert page.status == 200
    assert session in page.body.decode()
    wrong = await post(server, stage_path(stage, session), session=session, token="no")
    assert wrong.status == 200
    assert b"<script>" not in wrong.body
    done = await post(server, stage_path(stage, session), session=session, token="invited")
    assert 'postMessage("authDone", "*")' in script_of(done)
    answer = await server.ask("POST", "/register", {**body, "auth": {"session": session}})
    assert answer.status == 200


async def test_a_password_can_be_given_in_the_browser(server: TestServer) -> None:
    alice = await server.user("alice")
    other = await server.login("alice")
    path = f"/devices/{other.device_id}"
    challenge = (await alice.delete(path)).json
    stage = stage_path("m.login.password", challenge["session"])
    wrong = await post(server, stage, user="alice", password="wrong")
    assert b"<script>" not in wrong.body
    done = await post(server, stage, user="alice", password=PASSWORD)
    assert "authDone" in script_of(done)
    assert (await alice.delete(path, {"auth": {"session": challenge["session"]}})).status == 200


async def test_unknown_sessions_and_stages_have_no_page(server: TestServer) -> None:
    alice = await server.user("alice")
    challenge = (await alice.delete(f"/devices/{alice.device_id}")).json
    for stage, session in (
        ("m.login.password", "unknown"),
        ("m.login.registration_token", challenge["session"]),
        ("m.login.sso", challenge["session"]),
    ):
        for answer in (
            await server.ask("GET", stage_path(stage, session)),
            await post(server, stage_path(stage, session), session=session, token="x"),
        ):
            assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")
    missing = await server.ask("GET", "/_matrix/client/v3/auth/m.login.password/fallback/web")
    assert (missing.status, missing.json["errcode"]) == (400, "M_MISSING_PARAM")


async def test_nothing_from_outside_is_part_of_a_page_as_it_is(server: TestServer) -> None:
    bad = await post(server, stage_path("m.login.password", '"><script>alert(1)</script>'), user="x")
    assert bad.status == 404
    assert bad.headers["Content-Type"].startswith("application/json")
    not_a_form = await server.house.ask("POST", stage_path("m.login.password", "x"), body=b"\xff=1")
    assert (not_a_form.status, not_a_form.json["errcode"]) == (400, "M_INVALID_PARAM")


async def test_an_invitation_links_to_a_page_that_makes_the_account(server: TestServer) -> None:
    for path in (INVITATION_PAGE, INVITATION_PAGE.rstrip("/")):
        script = script_of(await server.ask("GET", path))
        assert "/_matrix/client/v3/register" in script
        assert "location.hash" in script
