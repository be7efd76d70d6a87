# SPDX-License-Identifier: Apache-2.0
"""Password hashes: argon2id, salted, one at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.lowlevel

from minihs.matrix.errors import MatrixError
from minihs.runtime import Runtime
from minihs.users.passwords import MAX_PASSWORD_BYTES, MAX_WAITING, Passwords


def cheap(runtime: Runtime | None = None) -> Passwords:
    return Passwords(runtime or Runtime(), time_cost=1, memory_kib=64)


async def test_a_hash_matches_its_password_only() -> None:
    passwords = cheap()
    hash = await passwords.hash("pässword")
    assert await passwords.matches("pässword", hash)
    assert not await passwords.matches("password", hash)
    assert not await passwords.matches("", hash)


async def test_it_is_argon2id_with_parameters_for_a_small_board() -> None:
    hash = await Passwords(Runtime()).hash("x")
    assert hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_the_same_password_gets_another_hash() -> None:
    passwords = cheap()
    assert await passwords.hash("x") != await passwords.hash("x")


async def test_without_a_hash_nothing_matches_and_the_time_is_spent_all_the_same() -> None:
    runs = 0

    class Counting:
        async def run[T](self, function: Callable[..., T], *args: object) -> T:
            nonlocal runs
            runs += 1
            await trio.lowlevel.checkpoint()
            return function(*args)

    passwords = cheap(Runtime(threads=Counting()))
    assert not await passwords.matches("", None)
    before = runs
    assert not await passwords.matches("x", None)
    assert runs == before + 1


@pytest.mark.parametrize("hash", ["", "x", "$argon2id$v=19$m=64,t=1,p=1$rubbish", "plaintext"])
async def test_a_damaged_hash_matches_nothing(hash: str) -> None:
    assert not await cheap().matches("plaintext", hash)


async def test_hashes_of_other_parameters_are_outdated() -> None:
    old = await cheap().hash("x")
    assert Passwords(Runtime()).is_outdated(old)
    assert not cheap().is_outdated(old)


async def test_a_password_that_is_too_long_is_refused() -> None:
    with pytest.raises(MatrixError) as refused:
        await cheap().hash("ä" * MAX_PASSWORD_BYTES)
    assert refused.value.errcode == "M_INVALID_PARAM"


async def test_one_is_hashed_at_a_time_and_a_crowd_is_turned_away() -> None:
    running = most = 0

    class Slow:
        async def run[T](self, function: Callable[..., T], *args: object) -> T:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await trio.lowlevel.checkpoint()
            result = function(*args)
            running -= 1
            return result

    passwords = cheap(Runtime(threads=Slow()))
    refused = 0

    async def hash() -> None:
        nonlocal refused
        try:
            await passwords.hash("x")
        except MatrixError as error:
            refused += error.status == 429

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WAITING + 11):
            nursery.start_soon(hash)
    assert most == 1
    assert refused == 10
