# SPDX-License-Identifier: Apache-2.0
"""Registration by a shared secret, as Synapse has it: for bridges, bots and scripts.

GET /_synapse/admin/v1/register gives a nonce that is good once and for a minute. The POST proves knowledge
of the secret by an HMAC-SHA1 over nonce, user name, password and "admin" or "notadmin", joined by NUL bytes,
and the user type where there is one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict

from minihs.config import Config
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, forbidden, invalid_param
from minihs.matrix.fields import flag, optional_text, required_text
from minihs.runtime import Runtime
from minihs.users.accounts import Accounts
from minihs.users.passwords import MAX_PASSWORD_BYTES
from minihs.users.profiles import MAX_DISPLAYNAME
from minihs.users.sessions import Sessions

NONCE_LIFETIME_MS = 60_000
MAX_NONCES = 1000


class SharedSecretRegistration:
    """The nonces of one server; in memory, since they live for a minute."""

    def __init__(self, runtime: Runtime, config: Config, accounts: Accounts, sessions: Sessions) -> None:
        self._runtime = runtime
        self._secret = config.registration.shared_secret
        self._accounts = accounts
        self._sessions = sessions
        self._nonces: OrderedDict[str, int] = OrderedDict()

    def new_nonce(self) -> str:
        self._check_enabled()
        nonce = self._runtime.random.token_urlsafe(24)
        self._nonces[nonce] = self._runtime.clock.now_ms()
        if len(self._nonces) > MAX_NONCES:
            self._nonces.popitem(last=False)
        return nonce

    async def register(self, body: JsonObject, remote_address: str | None) -> JsonObject:
        self._check_enabled()
        nonce = required_text(body, "nonce")
        username = required_text(body, "username")
        password = required_text(body, "password", limit=MAX_PASSWORD_BYTES)
        admin = flag(body, "admin")
        user_type = optional_text(body, "user_type")
        if "\0" in username or "\0" in password:
            raise invalid_param("The user name and the password can't contain NUL.")
        given = required_text(body, "mac")
        self._use(nonce)
        mac = shared_secret_mac(self._secret, nonce, username, password, admin=admin, user_type=user_type)
        if not hmac.compare_digest(mac.encode(), given.lower().encode()):
            raise forbidden("HMAC incorrect")
        self._accounts.check_available(username)
        inhibit_login = flag(body, "inhibit_login")
        return await self._accounts.create(
            username,
            password,
            admin=admin,
            displayname=optional_text(body, "displayname", limit=MAX_DISPLAYNAME),
            session=None
            if inhibit_login
            else self._sessions.new(None, None, refreshable=False, remote_address=remote_address),
        )

    def _use(self, nonce: str) -> None:
        made = self._nonces.pop(nonce, None)
        if made is None or made + NONCE_LIFETIME_MS < self._runtime.clock.now_ms():
            raise MatrixError(400, "M_UNKNOWN", "The nonce is unknown or too old.")

    def _check_enabled(self) -> None:
        if not self._secret:
            raise MatrixError(400, "M_UNKNOWN", "Shared secret registration is not enabled.")


def shared_secret_mac(
    secret: str, nonce: str, username: str, password: str, *, admin: bool, user_type: str | None = None
) -> str:
    parts = [nonce, username, password, "admin" if admin else "notadmin"]
    if user_type is not None:
        parts.append(user_type)
    message = "\0".join(parts).encode()
    return hmac.new(secret.encode(), message, hashlib.sha1).hexdigest()
