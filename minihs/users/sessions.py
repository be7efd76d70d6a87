# SPDX-License-Identifier: Apache-2.0
"""Access tokens: giving them out, knowing them again, renewing and ending them.

(client-server-api, "Using access tokens", "Refreshing access tokens", "Soft logout".) A client that does not
ask for refresh tokens gets an access token that does not expire.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, forbidden
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import cross_signing, dehydrated_devices, devices, tokens, users
from minihs.store.byte_cache import ByteCache
from minihs.store.database import Database, Tx
from minihs.store.watch import SESSIONS
from minihs.users.secrets import digest, new_device_id, new_secret

ACCESS_LIFETIME_MS = 3_600_000
"""Of access tokens that can be refreshed."""

KNOWN_BYTES = 256 * 1024
"""Of access tokens that need not be looked up again."""
KNOWN_TOKEN_BYTES = 1_000
"""What one takes, about."""

SEEN_EVERY_MS = 600_000
"""How old "last seen" of a device may become before a request writes it anew."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """The secrets of a login, drawn before the write closure, which may run twice."""

    device_id: str
    display_name: str | None
    access: str
    refresh: str | None
    now: int
    remote_address: str | None

    @property
    def expires_ts(self) -> int | None:
        return None if self.refresh is None else self.now + ACCESS_LIFETIME_MS

    def begin(self, tx: Tx, user_id: str) -> None:
        """Store it; whoever used this device before is logged out of it."""
        if self.device_id in cross_signing.public_keys(tx, user_id).values():
            raise forbidden("The device id is that of a cross-signing key.")
        if dehydrated_devices.is_one(tx, user_id, self.device_id):
            raise forbidden("The device id is that of the dehydrated device.")
        if not devices.add(tx, user_id, self.device_id, self.display_name, now=self.now):
            tokens.delete_of_device(tx, user_id, self.device_id)
        devices.set_seen(tx, user_id, self.device_id, self.now, self.remote_address)
        store_pair(tx, user_id, self.device_id, self.access, self.refresh, now=self.now)

    def to_json(self) -> JsonObject:
        return {"device_id": self.device_id, **pair_to_json(self.access, self.refresh)}


def store_pair(
    tx: Tx, user_id: str, device_id: str, access: str, refresh: str | None, *, now: int
) -> int | None:
    """An access token, and the refresh token that goes with it. Returns the latter's id."""
    refresh_id = None
    if refresh is not None:
        refresh_id = tokens.add_refresh_token(tx, digest(refresh), user_id, device_id, now=now)
    tokens.add_access_token(
        tx,
        digest(access),
        user_id,
        device_id,
        now=now,
        expires_ts=None if refresh is None else now + ACCESS_LIFETIME_MS,
        refresh_id=refresh_id,
    )
    return refresh_id


def pair_to_json(access: str, refresh: str | None) -> JsonObject:
    answer: JsonObject = {"access_token": access}
    if refresh is not None:
        answer |= {"refresh_token": refresh, "expires_in_ms": ACCESS_LIFETIME_MS}
    return answer


def locked_error() -> MatrixError:
    return MatrixError(401, "M_USER_LOCKED", "This account has been locked.", soft_logout=True)


def suspended_error() -> MatrixError:
    return MatrixError(403, "M_USER_SUSPENDED", "You cannot perform this action while suspended.")


def unknown_token(*, soft_logout: bool = False) -> MatrixError:
    return MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown access token.", soft_logout=soft_logout)


class Sessions:
    """The tokens of one server."""

    def __init__(self, db: Database, runtime: Runtime) -> None:
        self._db = db
        self._runtime = runtime
        self._uses: dict[int, tuple[Requester, str | None]] = {}
        self._used = trio.Event()
        self._known: ByteCache[bytes, tokens.AccessToken] = ByteCache(KNOWN_BYTES)
        """By the token's digest. Forgotten with every commit that could change any of it."""
        db.on_commit(self._see_commit)

    def _see_commit(self, keys: frozenset[str]) -> None:
        if SESSIONS in keys:
            self._known.clear()

    def new(
        self,
        device_id: str | None,
        display_name: str | None,
        *,
        refreshable: bool,
        remote_address: str | None,
    ) -> NewSession:
        random = self._runtime.random
        return NewSession(
            device_id=new_device_id(random) if device_id is None else device_id,
            display_name=display_name,
            access=new_secret(random, "mhs"),
            refresh=new_secret(random, "mhr") if refreshable else None,
            now=self._runtime.clock.now_ms(),
            remote_address=remote_address,
        )

    def requester_for_token(
        self, token: str, remote_address: str | None = None, *, even_locked: bool = False
    ) -> Requester | None:
        """Who has this token. None: nobody.

        MatrixError: it has expired, or the account is locked.
        """
        found = self._find(digest(token))
        if found is None or found.deactivated:
            return None
        now = self._runtime.clock.now_ms()
        if found.expires_ts is not None and found.expires_ts <= now:
            raise unknown_token(soft_logout=True)
        if found.locked and not even_locked:
            raise locked_error()
        requester = Requester(
            found.user_id,
            found.device_id,
            found.token_id,
            is_admin=found.admin,
            is_suspended=found.suspended,
        )
        is_stale = found.last_seen_ts is None or found.last_seen_ts + SEEN_EVERY_MS < now
        if is_stale or (not found.used and found.expires_ts is not None):
            self._uses[found.token_id] = (requester, remote_address)
            self._used.set()
        return requester

    def _find(self, token_digest: bytes) -> tokens.AccessToken | None:
        found = self._known.get(token_digest)
        if found is None:
            found = tokens.access_token(self._db.read, token_digest)
            if found is not None:
                self._known.put(token_digest, found, KNOWN_TOKEN_BYTES)
        return found

    async def run(self) -> None:
        """Write down which tokens were used. A request does not wait for that."""
        while True:
            await self._used.wait()
            self._used = trio.Event()
            uses, self._uses = self._uses, {}
            await self._record(uses)

    async def _record(self, uses: dict[int, tuple[Requester, str | None]]) -> None:
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> None:
            for token_id, (requester, remote_address) in uses.items():
                tokens.confirm_access_token(tx, token_id)
                devices.set_seen(tx, requester.user_id, requester.device_id, now, remote_address)

        await self._db.write(write)

    async def refresh(self, refresh_token: str) -> JsonObject:
        """POST /refresh. The old refresh token stays good until the new pair is used."""
        access = new_secret(self._runtime.random, "mhs")
        refresh = new_secret(self._runtime.random, "mhr")
        now = self._runtime.clock.now_ms()
        unrecorded = set(self._uses)

        def write(tx: Tx) -> None:
            for token_id in unrecorded:
                tokens.confirm_access_token(tx, token_id)
            found = tokens.refresh_token(tx, digest(refresh_token))
            if found is None:
                raise unknown_token()
            owner = users.get(tx, found.user_id)
            if owner is None or owner.deactivated:
                raise unknown_token()
            if owner.locked:
                raise locked_error()
            # Using it proves that the client has this pair, so the one before it is done with.
            tokens.confirm_pair(tx, found.refresh_id)
            new_id = store_pair(tx, found.user_id, found.device_id, access, refresh, now=now)
            if new_id is not None:
                tokens.set_successor(tx, found.refresh_id, new_id)

        await self._db.write(write)
        return pair_to_json(access, refresh)

    async def logout(self, requester: Requester) -> None:
        """End this session: the device goes, and its keys with it."""
        await self._db.write(lambda tx: devices.delete(tx, requester.user_id, requester.device_id))

    async def logout_all(self, user_id: str) -> None:
        await self._db.write(lambda tx: delete_devices(tx, user_id))


def delete_devices(tx: Tx, user_id: str, *, but: str | None = None) -> None:
    """All devices of a user, perhaps but one."""
    for device_id in devices.ids_of(tx, user_id):
        if device_id != but:
            devices.delete(tx, user_id, device_id)
