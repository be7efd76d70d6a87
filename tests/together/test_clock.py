# SPDX-License-Identifier: Apache-2.0
"""A board that wakes up in 1970: what it signed would bear that date for ever."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from minihs.runtime import EARLIEST_PLAUSIBLE_MS
from minihs.testing.api import ApiError
from minihs.testing.servers import cluster
from tests.testing.test_servers import until_texts


async def test_nothing_is_signed_by_a_clock_from_before_2024(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        room = await alice.create_room(preset="public_chat")
        elsewhere = await bob.create_room(preset="public_chat")
        await alice.send(room, "before")
        now = world.clock.now_ms()
        world.clock.step(EARLIEST_PLAUSIBLE_MS - 1_000 - now)
        for deed in (
            partial(alice.send, room, "in 1970"),
            alice.create_room,
            partial(alice.invite, room, bob.user_id),
            partial(alice.leave, room),
        ):
            with pytest.raises(ApiError, match="clock is wrong") as caught:
                await deed()
            assert (caught.value.status, caught.value.errcode) == (503, "M_UNKNOWN")
        await until_texts(alice, room, ["before"])  # what there is can be read
        world.clock.step(now - EARLIEST_PLAUSIBLE_MS)
        await alice.send(room, "after")
        await alice.join(elsewhere, "two.test")
        await until_texts(alice, room, ["before", "after"])
