# SPDX-License-Identifier: Apache-2.0
"""Do two servers hold the same state of a room?"""

from __future__ import annotations

import trio

from tests.interop.kit.client import Client, JsonObject, NeverSeen


async def wait_for_the_same_state(
    room: str, one: Client, other: Client, *, seconds: float = 30.0
) -> dict[tuple[str, str], JsonObject]:
    """Both must come to name the same event for each key; the state is returned."""
    difference: object = None
    with trio.move_on_after(seconds):
        while True:
            mine, theirs = await one.state(room), await other.state(room)
            difference = {
                key: (_id(mine, key), _id(theirs, key))
                for key in {*mine, *theirs}
                if _id(mine, key) != _id(theirs, key)
            }
            if not difference:
                return mine
            await trio.sleep(0.2)
    raise NeverSeen(f"{one.user_id} and {other.user_id} differ about {room} after {seconds} s: {difference}")


def _id(state: dict[tuple[str, str], JsonObject], key: tuple[str, str]) -> str | None:
    return state[key]["event_id"] if key in state else None
