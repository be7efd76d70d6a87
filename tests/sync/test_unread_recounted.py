# SPDX-License-Identifier: Apache-2.0
"""Unread counts are kept from answer to answer; whatever happens, they are those of a count from scratch."""

from __future__ import annotations

from random import Random

import pytest

from minihs.store.receipts import MAIN, UNTHREADED
from minihs.sync import unread
from minihs.sync.tokens import parse_sync_token
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World

STEPS = 40


class Story:
    """What may happen in a room of Alice's, Bob's and Dave's, who is of another server."""

    def __init__(self, world: World, room: str, random: Random, *, threads: bool) -> None:
        self.world, self.room, self.random, self.threads = world, room, random, threads
        self.said: list[str] = []
        self.roots: list[str] = []
        self.theirs: list[str] = []
        """Messages not of Bob's. His own, once redacted, would no longer mark what came before as read."""

    async def go_on(self) -> None:
        world, room, random = self.world, self.room, self.random
        for _ in range(random.choice((0, 1, 1, 1, 3, 6))):
            told = random.random()
            if told < 0.5:
                extra: Json = {}
                if random.random() < 0.3:
                    extra["m.mentions"] = {"user_ids": [random.choice((BOB, CAROL))]}
                if self.threads and self.roots and random.random() < 0.3:
                    root = random.choice(self.roots)
                    extra["m.relates_to"] = {"rel_type": "m.thread", "event_id": root}
                self.theirs.append(await world.say(ALICE, room, "well", **extra))
                self.said.append(self.theirs[-1])
            elif told < 0.65:
                self.theirs.append(await world.hear(DAVE, room, "so"))
                self.said.append(self.theirs[-1])
                self.roots.append(self.theirs[-1])
            elif told < 0.7:
                self.said.append(await world.say(BOB, room, "me"))
            elif told < 0.8 and self.theirs:
                redacted = self.theirs.pop(random.randrange(len(self.theirs)))
                await world.rooms.redact(ALICE, room, redacted, {}, None, None)
            elif told < 0.9 and self.said:
                kind = random.choice(("m.read", "m.read.private"))
                thread = random.choice((UNTHREADED, MAIN))
                await world.receipts.set_markers(BOB, room, {kind: random.choice(self.said)}, thread)
            else:
                topic = {"topic": str(random.random())}
                await world.rooms.send(ALICE, room, "m.room.topic", topic, state_key="")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("chunks", [(4, 1000), (1000,)])
async def test_kept_counts_are_those_of_a_count_from_the_start(
    world: World, chunks: tuple[int, ...], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "CHUNKS", chunks)
    random = Random(seed)
    room = await world.room()
    await world.rooms.join(BOB, room)
    await world.member(DAVE, room, "join")
    story = Story(world, room, random, threads=len(chunks) == 1)  # in threads not all chunks are looked at
    since = (await world.sync(BOB))["next_batch"]
    for _ in range(STEPS):
        await story.go_on()
        timeline: Json = {"limit": random.choice((1, 5, 20)), "unread_thread_notifications": True}
        if random.random() < 0.2:
            timeline["not_types"] = ["m.room.message"]
        answer = await world.sync(BOB, since, filter={"room": {"timeline": timeline}})
        if random.random() < 0.2:
            continue  # that answer was lost on its way
        since = answer["next_batch"]
        told = answer["rooms"]["join"].get(room)
        if told is not None:
            anew = unread.Unread(world.facts).counts(
                world.db.read, BOB, world.room_nid(room), room, parse_sync_token(since).pos, frozenset()
            )
            assert {name: told[name] for name in told if name.startswith("unread_")} == unread.in_sync(
                anew, by_thread=True
            )
