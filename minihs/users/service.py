# SPDX-License-Identifier: Apache-2.0
"""All that has to do with the accounts of this server, in one place for the routes."""

from __future__ import annotations

import trio

from minihs.config import Config
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import forbidden, invalid_param, not_found
from minihs.matrix.ids import domain_of, is_user_id
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import devices, tokens
from minihs.store import users as user_store
from minihs.store.database import Database
from minihs.users import ports
from minihs.users.account_data import ClientData, check_own
from minihs.users.accounts import Accounts
from minihs.users.devices import Devices
from minihs.users.directory import Directory
from minihs.users.failures import LoginFailures
from minihs.users.interactive import Interactions
from minihs.users.logins import Logins
from minihs.users.passwords import Passwords
from minihs.users.presence import Presence
from minihs.users.profiles import Profiles
from minihs.users.secrets import digest, new_secret
from minihs.users.sessions import Sessions
from minihs.users.shared_secret import SharedSecretRegistration

OPENID_LIFETIME_S = 3600


class Users:
    """The accounts of one server and what belongs to them, each part by its own name."""

    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        config: Config,
        *,
        rooms: ports.Rooms | None = None,
        federation: ports.Federation | None = None,
        passwords: Passwords | None = None,
        presence: Presence | None = None,
    ) -> None:
        rooms = rooms or ports.NoRooms()
        passwords = passwords or Passwords(runtime)
        self._db = db
        self._runtime = runtime
        self._server_name = config.server_name
        self.sessions = Sessions(db, runtime)
        self.interactions = Interactions(runtime)
        failures = LoginFailures(runtime.clock, enabled=config.rate_limits.enabled)
        self.logins = Logins(db, runtime, config, self.sessions, self.interactions, passwords, failures)
        self.accounts = Accounts(db, runtime, config, self.logins, self.interactions, passwords, rooms)
        self.shared_secret = SharedSecretRegistration(runtime, config, self.accounts, self.sessions)
        self.devices = Devices(db, self.logins)
        self.profiles = Profiles(db, config.server_name, rooms, federation)
        self.data = ClientData(db)
        self.presence = presence or Presence(db, runtime, config.server_name)
        self.directory = Directory(db)

    async def run(self) -> None:
        """What goes on in the background; for the server's nursery."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.accounts.run)
            nursery.start_soon(self.sessions.run)
            nursery.start_soon(self.presence.run)

    def requester_for_token(self, token: str, remote_address: str | None = None) -> Requester | None:
        return self.sessions.requester_for_token(token, remote_address)

    async def create_account(self, localpart: str, password: str | None, admin: bool = False) -> str:
        """Make an account, whatever the registration mode; its user id. For `minihs user add`."""
        answer = await self.accounts.create(localpart, password, admin=admin)
        user_id: str = answer["user_id"]
        return user_id

    async def reset_password(self, user_id: str, password: str, *, log_out: bool) -> None:
        """Give an account another password, for who forgot it. `log_out`: its devices have to log in anew."""
        if not self.exists(user_id):
            raise not_found("There is no such account on this server.")
        await self.accounts.set_password(user_id, password, logout=log_out)

    def exists(self, user_id: str) -> bool:
        """An account of this server that was not deactivated."""
        return user_store.is_active(self._db.read, user_id)

    async def new_openid_token(self, requester: Requester, user_id: str) -> JsonObject:
        """POST /user/{userId}/openid/request_token."""
        check_own(requester, user_id)
        token = new_secret(self._runtime.random, "mho")
        now = self._runtime.clock.now_ms()
        expires_ts = now + OPENID_LIFETIME_S * 1000
        await self._db.write(
            lambda tx: tokens.add_openid_token(tx, digest(token), user_id, expires_ts, now=now)
        )
        return {
            "access_token": token,
            "token_type": "Bearer",
            "matrix_server_name": self._server_name,
            "expires_in": OPENID_LIFETIME_S,
        }

    def openid_user(self, token: str) -> str | None:
        """Whom an OpenID token stands for: GET /_matrix/federation/v1/openid/userinfo."""
        return tokens.openid_user(self._db.read, digest(token), now=self._runtime.clock.now_ms())

    # Moderation by an administrator (client-server-api, "Account moderation")

    def moderated(self, requester: Requester, user_id: str) -> user_store.User:
        """The account, for an administrator who may look at it."""
        if not requester.is_admin:
            raise forbidden("Only an administrator may do this.")
        if not is_user_id(user_id) or domain_of(user_id) != self._server_name:
            raise invalid_param("This is not a user of this server.")
        user = user_store.get(self._db.read, user_id)
        if user is None or user.deactivated:
            raise not_found("There is no such account on this server.")
        return user

    async def set_locked(self, requester: Requester, user_id: str, locked: bool) -> None:
        self._check_other(requester, self.moderated(requester, user_id))
        await self._db.write(lambda tx: user_store.set_locked(tx, user_id, locked))

    async def set_suspended(self, requester: Requester, user_id: str, suspended: bool) -> None:
        self._check_other(requester, self.moderated(requester, user_id))
        await self._db.write(lambda tx: user_store.set_suspended(tx, user_id, suspended))

    def whois(self, user_id: str) -> JsonObject:
        """When and from where a user's devices were last seen."""
        found: JsonObject = {}
        for device in devices.of_user(self._db.read, user_id):
            connection = {"ip": device.last_seen_ip, "last_seen": device.last_seen_ts}
            known = {name: value for name, value in connection.items() if value is not None}
            found[device.device_id] = {"sessions": [{"connections": [known]}]}
        return {"user_id": user_id, "devices": found}

    def _check_other(self, requester: Requester, user: user_store.User) -> None:
        if user.user_id == requester.user_id or user.admin:
            raise forbidden("Administrators can't lock or suspend each other.")
