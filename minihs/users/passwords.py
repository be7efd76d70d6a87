# SPDX-License-Identifier: Apache-2.0
"""Passwords: argon2id, off the loop, one at a time.

One at a time, because each takes 19 MiB and, on a small board, a quarter of a second of a core: a crowd that
logs in must not take the memory, nor all the cores, from the rest. More than a few in the queue are turned
away.
"""

from __future__ import annotations

import argon2
import trio
from argon2.exceptions import InvalidHashError, VerificationError

from minihs.matrix.errors import invalid_param, limit_exceeded
from minihs.runtime import Runtime

TIME_COST = 2
MEMORY_KIB = 19 * 1024
PARALLELISM = 1
SALT_BYTES = 16

MAX_PASSWORD_BYTES = 1024

MAX_WAITING = 50
"""Hashes that may wait for their turn."""


class Passwords:
    """Hashing and checking, for one server."""

    def __init__(self, runtime: Runtime, *, time_cost: int = TIME_COST, memory_kib: int = MEMORY_KIB) -> None:
        self._runtime = runtime
        self._hasher = argon2.PasswordHasher(
            time_cost=time_cost, memory_cost=memory_kib, parallelism=PARALLELISM, salt_len=SALT_BYTES
        )
        self._turn = trio.Lock()
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """What to keep of a password."""
        check_password(password)
        salt = self._runtime.random.token_bytes(SALT_BYTES)
        async with self._queue():
            return await self._runtime.threads.run(lambda: self._hasher.hash(password, salt=salt))

    async def matches(self, password: str, hash: str | None) -> bool:
        """Whether it is the password. Without a hash (no such user) it takes as long and is False."""
        check_password(password)
        if hash is None and self._decoy is None:
            self._decoy = await self.hash("")
        async with self._queue():
            found = await self._runtime.threads.run(self._verify, hash or self._decoy or "", password)
        return found and hash is not None

    def is_outdated(self, hash: str) -> bool:
        """Made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(hash)

    def _verify(self, hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(hash, password)
        except (VerificationError, InvalidHashError):
            return False

    def _queue(self) -> trio.Lock:
        if self._turn.statistics().tasks_waiting >= MAX_WAITING:
            raise limit_exceeded(5_000, "Too many logins at once.")
        return self._turn


def check_password(password: str) -> None:
    if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
        raise invalid_param(f"A password has at most {MAX_PASSWORD_BYTES} bytes.")
