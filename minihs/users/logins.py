# SPDX-License-Identifier: Apache-2.0
"""Proving who one is: POST /login by password or token, and the password stage of User-Interactive
Authentication.

(client-server-api, "Login", "Identifier types".)
"""

from __future__ import annotations

from dataclasses import replace

from minihs.config import Config
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param
from minihs.matrix.fields import flag, identifier, optional_text, required_text
from minihs.matrix.ids import domain_of, is_user_id, localpart_of
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import tokens as token_store
from minihs.store import users as user_store
from minihs.store.database import Database, Tx
from minihs.users.failures import LoginFailures
from minihs.users.interactive import PASSWORD, Interactions, Session
from minihs.users.passwords import MAX_PASSWORD_BYTES, Passwords
from minihs.users.secrets import digest, new_secret
from minihs.users.sessions import NewSession, Sessions, locked_error

MAX_DEVICE_NAME = 255

TOKEN = "m.login.token"  # noqa: S105 - the name of a login type

LOGIN_TOKEN_LIFETIME_MS = 120_000
"""For the way from one device to the other, which may be somebody typing."""


class Logins:
    """Passwords and login tokens put to use, for one server."""

    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        config: Config,
        sessions: Sessions,
        interactions: Interactions,
        passwords: Passwords,
        failures: LoginFailures,
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._config = config
        self._sessions = sessions
        self._interactions = interactions
        self._passwords = passwords
        self._failures = failures

    async def login(self, body: JsonObject, remote_address: str | None) -> JsonObject:
        """POST /login."""
        kind = required_text(body, "type")
        if kind == "m.login.application_service":
            raise MatrixError(
                400, "M_APPSERVICE_LOGIN_UNSUPPORTED", "Application services can't log in on this server."
            )
        if kind not in (PASSWORD, TOKEN):
            raise MatrixError(400, "M_UNKNOWN", "This login type is not offered.")
        session = self.asked_session(body, remote_address)
        if kind == TOKEN:
            return await self._login_by_token(required_text(body, "token"), session)
        user = await self._authenticated(body)
        if user.locked:
            raise locked_error()

        def write(tx: Tx) -> None:
            now = user_store.get(tx, user.user_id)
            if now is None or now.password_hash != user.password_hash:
                raise wrong_password()  # it was changed, or the account closed, while it was checked
            session.begin(tx, user.user_id)

        await self._db.write(write)
        return self.welcome(user.user_id, session)

    async def _login_by_token(self, token: str, session: NewSession) -> JsonObject:
        def write(tx: Tx) -> str:
            user_id = token_store.use_login_token(tx, digest(token), now=session.now)
            user = None if user_id is None else user_store.get(tx, user_id)
            if user is None:
                raise forbidden("The login token is unknown, too old, or has been used.")
            if user.locked:
                raise locked_error()
            session.begin(tx, user.user_id)
            return user.user_id

        return self.welcome(await self._db.write(write), session)

    async def new_token(self, requester: Requester, body: JsonObject) -> JsonObject:
        """POST /login/get_token: let another device in, once and soon. Each takes the password anew."""
        await self.confirm_password(requester, "let another device log in", body.get("auth"))
        token = new_secret(self._runtime.random, "mhl")
        now = self._runtime.clock.now_ms()
        expires_ts = now + LOGIN_TOKEN_LIFETIME_MS

        def write(tx: Tx) -> None:
            token_store.add_login_token(
                tx, digest(token), requester.user_id, requester.device_id, expires_ts, now=now
            )

        await self._db.write(write)
        return {"login_token": token, "expires_in_ms": LOGIN_TOKEN_LIFETIME_MS}

    async def _authenticated(self, body: JsonObject) -> user_store.User:
        """Whose password this is; M_FORBIDDEN without saying what was wrong."""
        password = required_text(body, "password", limit=MAX_PASSWORD_BYTES)
        user = self._find(named_user(body))
        hash = user.password_hash if user else None
        if user is not None:
            self._failures.check(user.user_id)
        if not await self._passwords.matches(password, hash) or user is None or hash is None:
            if user is not None:
                self._failures.add(user.user_id)
            if user is not None and user.deactivated:
                raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated.")
            raise wrong_password()
        if not self._passwords.is_outdated(hash):
            return user
        newer = await self._passwords.hash(password)
        await self._db.write(lambda tx: user_store.replace_password_hash(tx, user.user_id, hash, newer))
        return replace(user, password_hash=newer)

    def _find(self, name: str) -> user_store.User | None:
        """By localpart or whole id, as typed or else in small letters."""
        if name.startswith("@"):
            if not is_user_id(name) or domain_of(name) != self._config.server_name:
                return None
            name = localpart_of(name)
        for localpart in (name, name.lower()):
            user = user_store.get(self._db.read, f"@{localpart}:{self._config.server_name}")
            if user is not None:
                return user
        return None

    async def confirm_password(self, requester: Requester, action: str, auth: object) -> None:
        """User-Interactive Authentication by the requester's own password."""

        async def check(auth: JsonObject, session: Session) -> None:
            if (await self._authenticated(auth)).user_id != requester.user_id:
                raise forbidden("This is another user's password.")

        await self._interactions.confirm(
            auth, action=action, user_id=requester.user_id, flows=[[PASSWORD]], stages={PASSWORD: check}
        )

    def asked_session(self, body: JsonObject, remote_address: str | None) -> NewSession:
        device_id = optional_text(body, "device_id")
        if device_id is not None:
            check_device_id(device_id)
        return self._sessions.new(
            device_id,
            optional_text(body, "initial_device_display_name", limit=MAX_DEVICE_NAME),
            refreshable=flag(body, "refresh_token"),
            remote_address=remote_address,
        )

    def welcome(self, user_id: str, session: NewSession | None) -> JsonObject:
        answer = {"user_id": user_id, "home_server": self._config.server_name}
        return answer if session is None else {**answer, **session.to_json()}


def named_user(body: JsonObject) -> str:
    """Whom a login or a password stage is about: `identifier`, or the old field `user`."""
    named = body.get("identifier")
    if named is None:
        return required_text(body, "user")
    if not isinstance(named, dict):
        raise bad_json("identifier must be an object.")
    kind = required_text(named, "type")
    if kind in ("m.id.thirdparty", "m.id.phone"):
        raise wrong_password()
    if kind != "m.id.user":
        raise invalid_param("Unknown type of identifier.")
    return required_text(named, "user")


def check_device_id(device_id: str) -> str:
    if device_id == "*":
        raise invalid_param("The device id * means all devices.")
    return identifier(device_id, "device_id")


def wrong_password() -> MatrixError:
    return forbidden("The user name or the password is wrong.")
