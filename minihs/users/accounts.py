# SPDX-License-Identifier: Apache-2.0
"""Accounts: making them, changing the password, closing them.

(client-server-api, "Account registration", "Password management", "Account deactivation".)
"""

from __future__ import annotations

import structlog
import trio

from minihs.config import Config
from minihs.matrix.canonical import JsonObject, dumps
from minihs.matrix.errors import MatrixError, forbidden, missing_param
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.fields import flag, optional_text, required_text
from minihs.matrix.ids import fits, is_local_user_part
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import account_data, cross_signing, key_backups, memberships, profiles, registration, rooms
from minihs.store import tokens as token_store
from minihs.store import users as user_store
from minihs.store.database import Database, Tx
from minihs.users import ports
from minihs.users.interactive import DUMMY, REGISTRATION_TOKEN, Interactions, Session, always
from minihs.users.logins import Logins
from minihs.users.passwords import MAX_PASSWORD_BYTES, Passwords
from minihs.users.secrets import digest, new_localpart, new_secret
from minihs.users.sessions import NewSession, delete_devices

LEAVING_PATIENCE_S = 5
"""A room whose servers don't answer would keep the client waiting."""

DAY_MS = 86_400_000
MAX_INVITATION_DAYS = 365

log = structlog.get_logger(__name__)


class Accounts:
    """The accounts of one server."""

    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        config: Config,
        logins: Logins,
        interactions: Interactions,
        passwords: Passwords,
        rooms: ports.Rooms,
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._config = config
        self._logins = logins
        self._interactions = interactions
        self._passwords = passwords
        self._rooms = rooms
        self._closed = trio.Event()
        self._leaving: dict[str, trio.Event] = {}

    # Registration

    async def register(self, body: JsonObject, remote_address: str | None) -> JsonObject:
        """POST /register, for a person."""
        flows = self._registration_flows()
        username = optional_text(body, "username")
        password = optional_text(body, "password", limit=MAX_PASSWORD_BYTES)
        session = self._logins.asked_session(body, remote_address)
        if username is not None:
            self.check_available(username)
        confirmed = await self._interactions.confirm(
            body.get("auth"),
            action="register",
            user_id=None,
            flows=flows,
            stages={DUMMY: always, REGISTRATION_TOKEN: self._check_registration_token},
        )
        if password is None:
            raise missing_param("password is missing.")
        localpart = new_localpart(self._runtime.random) if username is None else username.lower()
        return await self.create(
            localpart,
            password,
            session=None if flag(body, "inhibit_login") else session,
            registration_token=confirmed.notes.get("registration_token"),
        )

    def _registration_flows(self) -> list[list[str]]:
        """Closed registration, too, is open to who was invited (`minihs user invite`)."""
        mode = self._config.registration.mode
        flows = [[DUMMY]] if mode == "open" else []
        if mode == "token" or registration.any_valid(self._db.read, now=self._runtime.clock.now_ms()):
            flows.append([REGISTRATION_TOKEN])
        if not flows:
            raise forbidden("Registration is closed on this server.")
        return flows

    def check_available(self, username: str) -> str:
        """The user id that this name would give; M_INVALID_USERNAME or M_USER_IN_USE."""
        user_id = self.new_user_id(username)
        if user_store.get(self._db.read, user_id) is not None:
            raise user_in_use()
        return user_id

    def new_user_id(self, username: str) -> str:
        """The id for a new user: capital letters are lowered, anything else outside the grammar refused."""
        localpart = username.lower()
        user_id = f"@{localpart}:{self._config.server_name}"
        if not is_local_user_part(localpart) or not fits(user_id):
            raise MatrixError(400, "M_INVALID_USERNAME", "User names are made of a-z, 0-9 and ._=-/+ only.")
        return user_id

    async def create(
        self,
        localpart: str,
        password: str | None,
        *,
        admin: bool = False,
        displayname: str | None = None,
        session: NewSession | None = None,
        registration_token: bytes | None = None,
    ) -> JsonObject:
        """Make an account, log it in if there is a `session`, and answer as /register does."""
        user_id = self.new_user_id(localpart)
        hash = None if password is None else await self._passwords.hash(password)
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> None:
            if registration_token is not None and not registration.use(tx, registration_token, now=now):
                raise forbidden("The registration token was used up meanwhile.")
            if not user_store.add(tx, user_id, hash, admin=admin, now=now):
                raise user_in_use()
            if displayname is not None:
                profiles.set_field(tx, user_id, "displayname", dumps(displayname).decode())
            if session is not None:
                session.begin(tx, user_id)

        await self._db.write(write)
        log.info("account made", user=user_id, admin=admin)
        return self._logins.welcome(user_id, session)

    async def create_registration_token(
        self, *, token: str, uses: int | None = 1, expires_ts: int | None = None
    ) -> None:
        """Let whoever shows `token` make an account."""
        now = self._runtime.clock.now_ms()
        await self._db.write(
            lambda tx: registration.add(tx, digest(token), uses=uses, expires_ts=expires_ts, now=now)
        )

    async def invite(self, days: int) -> JsonObject:
        """A token for one account: {"token", "expires_ts"}. Whatever the registration mode."""
        token = new_secret(self._runtime.random, "mhi")
        expires_ts = self._runtime.clock.now_ms() + days * DAY_MS
        await self.create_registration_token(token=token, expires_ts=expires_ts)
        return {"token": token, "expires_ts": expires_ts}

    def is_valid_registration_token(self, token: str) -> bool:
        self._registration_flows()  # or refuse
        return registration.is_valid(self._db.read, digest(token), now=self._runtime.clock.now_ms())

    async def _check_registration_token(self, auth: JsonObject, session: Session) -> None:
        token = required_text(auth, "token", limit=64)
        if not self.is_valid_registration_token(token):
            raise MatrixError(401, "M_UNAUTHORIZED", "The registration token is not valid.")
        session.notes["registration_token"] = digest(token)

    # Password and end

    async def change_password(self, requester: Requester, body: JsonObject) -> None:
        """POST /account/password."""
        password = required_text(body, "new_password", limit=MAX_PASSWORD_BYTES)
        logout_devices = flag(body, "logout_devices", default=True)
        await self._logins.confirm_password(requester, "change the password", body.get("auth"))
        await self.set_password(
            requester.user_id, password, logout=logout_devices, keep_device=requester.device_id
        )

    async def set_password(
        self, user_id: str, password: str, *, logout: bool, keep_device: str | None = None
    ) -> None:
        hash = await self._passwords.hash(password)

        def write(tx: Tx) -> None:
            user_store.set_password_hash(tx, user_id, hash)
            if logout:
                delete_devices(tx, user_id, but=keep_device)

        await self._db.write(write)

    async def deactivate(self, requester: Requester, body: JsonObject) -> None:
        """POST /account/deactivate."""
        erase = flag(body, "erase")
        await self._logins.confirm_password(requester, "deactivate the account", body.get("auth"))
        await self.close(requester.user_id, erase=erase)

    async def close(self, user_id: str, *, erase: bool = False) -> None:
        """Deactivate an account. `run` takes it out of its rooms, which is waited for, but not for long."""

        def write(tx: Tx) -> None:
            user_store.deactivate(tx, user_id)
            delete_devices(tx, user_id)
            cross_signing.delete(tx, user_id)
            key_backups.delete_all(tx, user_id)
            token_store.delete_openid_tokens(tx, user_id)
            profiles.delete(tx, user_id)
            if erase:
                account_data.delete(tx, user_id)

        done = self._leaving.setdefault(user_id, trio.Event())
        await self._db.write(write)
        log.info("account deactivated", user=user_id)
        self._closed.set()
        with trio.move_on_after(LEAVING_PATIENCE_S):
            await done.wait()

    async def run(self) -> None:
        """Let deactivated accounts leave their rooms, those of before the last start included."""
        while True:
            self._closed = trio.Event()
            for user_id in user_store.leaving(self._db.read):
                await self._leave_rooms(user_id)
                self._leaving.pop(user_id, trio.Event()).set()
            await self._closed.wait()

    async def _leave_rooms(self, user_id: str) -> None:
        for membership in memberships.of_user(self._db.read, user_id):
            if membership.membership not in ("join", "invite", "knock"):
                continue
            room_id = rooms.room_ids(self._db.read, [membership.room_nid])[membership.room_nid]
            try:
                await self._rooms.leave(user_id, room_id)
            except (MatrixError, FederationError) as error:
                # A room that doesn't let go must not keep the account in the others.
                log.warning("a deactivated account can't leave", user=user_id, room=room_id, why=str(error))
        await self._db.write(lambda tx: user_store.set_left(tx, user_id))


def user_in_use() -> MatrixError:
    return MatrixError(400, "M_USER_IN_USE", "This user id is taken.")
