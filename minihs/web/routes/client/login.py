# SPDX-License-Identifier: Apache-2.0
"""Logging in and out (client-server-api, "Login", "Refreshing access tokens")."""

from __future__ import annotations

from minihs.matrix.fields import required_text
from minihs.requester import Requester
from minihs.users.sessions import Sessions
from minihs.web.requester import access_token, authenticate
from minihs.web.routing import CLIENT, NONE, Call, JsonObject, Routes

routes = Routes()

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"


@routes.get(f"{V3}/login", auth=NONE)
async def login_flows(_: Call) -> JsonObject:
    return {"flows": [{"type": "m.login.password"}, {"type": "m.login.token", "get_login_token": True}]}


@routes.post(f"{V3}/login", auth=NONE, limit="login")
async def login(call: Call) -> JsonObject:
    return await call.services.users.logins.login(await call.json(), call.remote_address)


@routes.post(f"{V1}/login/get_token", auth=CLIENT, limit="registration")
async def login_token(call: Call) -> JsonObject:
    body = await call.json(optional=True)
    return await call.services.users.logins.new_token(call.requester, body)


@routes.post(f"{V3}/refresh", auth=NONE, limit="login")
async def refresh(call: Call) -> JsonObject:
    return await call.services.users.sessions.refresh(required_text(await call.json(), "refresh_token"))


@routes.post(f"{V3}/logout", auth=NONE)
async def logout(call: Call) -> JsonObject:
    await call.services.users.sessions.logout(even_if_locked(call))
    return {}


@routes.post(f"{V3}/logout/all", auth=NONE)
async def logout_all(call: Call) -> JsonObject:
    await call.services.users.sessions.logout_all(even_if_locked(call).user_id)
    return {}


def even_if_locked(call: Call) -> Requester:
    """Who asks. The edge can't check it here: logging out is all that a locked account can do."""
    token = access_token(call.headers.get("Authorization"), call.query.get("access_token"))
    return authenticate(AnyAccount(call.services.users.sessions), token, call.remote_address)


class AnyAccount:
    """Knows the tokens of locked accounts, too."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def requester_for_token(self, token: str, remote_address: str | None = None) -> Requester | None:
        return self._sessions.requester_for_token(token, remote_address, even_locked=True)
