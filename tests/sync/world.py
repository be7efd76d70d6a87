# SPDX-License-Identifier: Apache-2.0
"""A server's rooms and its reading side, without web and network: for tests of what clients see.

Our users act through `rooms`; users of other servers through `receive`, which makes an event as their server
would, wherever in the DAG, and takes it in as if it had come in a transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import trio

from minihs.matrix.auth_rules import auth_types_for
from minihs.matrix.event import Event, build_event
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import domain_of
from minihs.requester import Requester
from minihs.rooms.admission import Source
from minihs.rooms.placement import place_live, state_after
from minihs.rooms.service import Rooms
from minihs.runtime import InlineThreads, Runtime
from minihs.store import devices, rooms, users
from minihs.store.database import Database, Tx
from minihs.sync.filters import NO_FILTER, SyncFilter, parse_filter
from minihs.sync.group_facts import GroupFacts
from minihs.sync.notifier import Notifier
from minihs.sync.ports import OpenAcls
from minihs.sync.receipts import Receipts
from minihs.sync.sliding.request import parse as parse_sliding
from minihs.sync.sliding.syncer import SlidingSyncer
from minihs.sync.syncer import Syncer, SyncOptions
from minihs.sync.typing import Typing
from minihs.testing.clock import SeededRandom
from minihs.testing.events import signing_key_of

type Json = dict[str, Any]

OUR_NAME = "here.test"
ALICE, BOB, CAROL = "@alice:here.test", "@bob:here.test", "@carol:here.test"
DAVE, ERIN = "@dave:there.test", "@erin:there.test"


class TestClock:
    """Wall time that moves a millisecond whenever somebody looks."""

    __test__ = False

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms


class NoFederation:
    """Nobody answers."""

    def __getattr__(self, name: str) -> Any:
        async def refuse(*args: object, **kwargs: object) -> Any:
            raise FederationError(f"no federation in this test ({name})")

        return refuse


class AllKeys:
    async def verify_events(self, events: Sequence[Event]) -> list[Exception | None]:
        return [None] * len(events)


class EverybodysUsers:
    def exists(self, user_id: str) -> bool:
        return True

    def member_profile(self, user_id: str) -> Json:
        return {"displayname": user_id[1:].partition(":")[0]}

    def check_may_invite(self, sender: str, target: str) -> None:
        return None


class Edus:
    """Remembers what was to be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[list[str], str, Json]] = []

    def queue_edu(
        self, hosts: Collection[str], edu_type: str, content: Json, *, key: tuple[str, ...]
    ) -> None:
        self.sent.append((sorted(hosts), edu_type, content))


class World:
    def __init__(self, db: Database, runtime: Runtime, clock: TestClock, nursery: trio.Nursery) -> None:
        self.db, self.runtime, self.clock = db, runtime, clock
        self.edus = Edus()
        self.acls = OpenAcls()
        self.rooms = Rooms(
            our_name=OUR_NAME,
            signing_key=signing_key_of(OUR_NAME),
            db=db,
            runtime=runtime,
            keys=AllKeys(),
            federation=cast(Any, NoFederation()),
            users=EverybodysUsers(),
            visible_to=lambda host, events: set(),
            durable_edus={},
            fleeting_edus={},
            default_room_version="11",
            nursery=nursery,
        )
        self.notifier = Notifier()
        db.on_commit(self.notifier.wake)
        self.facts = GroupFacts()
        db.on_events(self.facts.bodies.take_over)
        self.typing = Typing(db.read, runtime, self.notifier, OUR_NAME, edus=self.edus, acls=self.acls)
        self.receipts = Receipts(db, runtime, OUR_NAME, edus=self.edus, acls=self.acls)
        self.syncer = self.new_syncer()
        self.sliding = self.new_sliding()

    def new_syncer(self) -> Syncer:
        """As after a restart: nothing remembered."""
        return Syncer(self.db, self.runtime, self.notifier, self.typing, self.facts)

    def new_sliding(self) -> SlidingSyncer:
        return SlidingSyncer(self.db, self.runtime, self.notifier, self.typing, self.facts)

    async def room(self, creator: str = ALICE, **request: Any) -> str:
        return await self.rooms.create(creator, {"preset": "public_chat", **request})

    async def say(self, sender: str, room_id: str, body: str, **content: Any) -> str:
        return await self.rooms.send(
            sender, room_id, "m.room.message", {"msgtype": "m.text", "body": body, **content}
        )

    async def sync(self, user: str, since: str = "", /, **options: Any) -> Json:
        """One /sync. `filter` as a JSON object, `device`, and the fields of SyncOptions."""
        device = options.pop("device", "PHONE")
        wanted: SyncFilter = NO_FILTER
        if "filter" in options:
            wanted = parse_filter(options.pop("filter"))
        return await self.syncer.sync(
            Requester(user, device, 1), SyncOptions(filter=wanted, since=since, **options)
        )

    async def slide(self, user: str, pos: str = "", /, **body: Any) -> Json:
        """One request of sliding sync. `device`, `timeout`, `stable`, and the fields of the body."""
        device, timeout = body.pop("device", "PHONE"), body.pop("timeout", 0)
        is_stable = body.pop("stable", False)
        request = parse_sliding(body, user, pos=pos, timeout_ms=timeout, is_stable=is_stable)
        return await self.sliding.sync(Requester(user, device, 1), request)

    def tips(self, room_id: str) -> list[str]:
        return sorted(self.rooms.parts.head(room_id).tips)

    async def receive(
        self,
        sender: str,
        room_id: str,
        type: str,
        content: Json,
        state_key: str | None = None,
        *,
        after: Sequence[str] | None = None,
    ) -> str:
        """An event of another server arrives. `after`: its prev_events; by default the room's extremities."""
        return await self.rooms.parts.tasks.run(
            room_id, lambda: self._receive(sender, room_id, type, content, state_key, after)
        )

    async def _receive(
        self,
        sender: str,
        room_id: str,
        type: str,
        content: Json,
        state_key: str | None,
        after: Sequence[str] | None,
    ) -> str:
        parts = self.rooms.parts
        head = parts.head(room_id)
        batch = parts.batch(head)
        prevs = list(after) if after is not None else self.tips(room_id)
        before = parts.graph.resolve(head.version, [state_after(batch, prev)[1] for prev in prevs])
        types = auth_types_for(head.version, type=type, sender=sender, state_key=state_key, content=content)
        auth = [found for key in types if (found := parts.graph.lookup(before, key)) is not None]
        depth = max(parts.graph.event(prev).depth for prev in prevs) + 1  # type: ignore[union-attr]  # placed
        event = build_event(
            version=head.version,
            room_id=room_id,
            type=type,
            sender=sender,
            content=content,
            state_key=state_key,
            depth=depth,
            prev_events=prevs,
            auth_events=auth,
            origin_server_ts=self.clock.now_ms(),
            server_name=domain_of(sender),
            key=signing_key_of(domain_of(sender)),
        )
        place_live(batch, event, self.clock.now_ms(), Source.TRANSACTION)
        await batch.commit()
        return event.event_id

    async def hear(self, sender: str, room_id: str, body: str, *, after: Sequence[str] | None = None) -> str:
        return await self.receive(
            sender, room_id, "m.room.message", {"msgtype": "m.text", "body": body}, after=after
        )

    async def member(
        self, sender: str, room_id: str, membership: str, *, after: Sequence[str] | None = None
    ) -> str:
        return await self.receive(
            sender, room_id, "m.room.member", {"membership": membership}, sender, after=after
        )

    def room_nid(self, room_id: str) -> int:
        found = rooms.room_nid(self.db.read, room_id)
        assert found is not None
        return found


@asynccontextmanager
async def new_world(path: Path) -> AsyncIterator[World]:
    clock = TestClock()
    runtime = Runtime(clock, SeededRandom(), InlineThreads())
    async with (
        Database.open(path / "test.db", runtime, inline=True, synchronous="OFF") as db,
        trio.open_nursery() as nursery,
    ):

        def add_users(tx: Tx) -> None:
            for user_id in (ALICE, BOB, CAROL):
                users.add(tx, user_id, None, admin=False, now=0)
                for device in ("PHONE", "LAPTOP"):
                    devices.add(tx, user_id, device, None, now=0)

        await db.write(add_users)
        yield World(db, runtime, clock, nursery)
        nursery.cancel_scope.cancel()


def bodies(timeline: Json) -> list[str]:
    """The messages of a timeline or a chunk."""
    events = timeline["events"] if isinstance(timeline, dict) else timeline
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


def state_of(section: Json) -> dict[tuple[str, str], Json]:
    return {(event["type"], event["state_key"]): event for event in section["events"]}
