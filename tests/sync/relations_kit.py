# SPDX-License-Identifier: Apache-2.0
"""Making and reading relations."""

from __future__ import annotations

from typing import Any

from minihs.requester import Requester
from minihs.store import account_data
from minihs.sync.relations import RelationOptions, Relations
from minihs.sync.room_reads import RoomReads
from tests.sync.world import Json, World


def relation(rel_type: str, event_id: str, **more: Any) -> Json:
    return {"m.relates_to": {"rel_type": rel_type, "event_id": event_id, **more}}


def edit_of(event_id: str, body: str) -> Json:
    return {**relation("m.replace", event_id), "m.new_content": {"msgtype": "m.text", "body": body}}


async def react(world: World, user: str, room: str, event_id: str, key: str = "👍") -> str:
    return await world.rooms.send(user, room, "m.reaction", relation("m.annotation", event_id, key=key))


async def reply(world: World, user: str, room: str, root: str, body: str = "in the thread") -> str:
    return await world.say(user, room, body, **relation("m.thread", root))


async def a_room_of(world: World, *users: str, **request: Any) -> str:
    room = await world.room(**request)
    for user in users:
        await world.rooms.join(user, room)
    return room


async def children(world: World, user: str, room: str, event_id: str, **options: Any) -> Json:
    reads = Relations(world.db, world.runtime, world.facts)
    options = {"limit": 50, **options}
    return await reads.children(Requester(user, "PHONE", 1), room, event_id, RelationOptions(**options))


async def threads(world: World, user: str, room: str, **options: Any) -> Json:
    reads = Relations(world.db, world.runtime, world.facts)
    options = {"limit": 50, "start": None, "participated": False, **options}
    return await reads.threads(Requester(user, "PHONE", 1), room, **options)


def ids_of(answer: Json) -> list[str]:
    return [event["event_id"] for event in answer["chunk"]]


def read(world: World, user: str, room: str, event_id: str) -> Json:
    return RoomReads(world.db, world.runtime, world.facts).event(Requester(user, "PHONE", 1), room, event_id)


def summed(world: World, user: str, room: str, event_id: str) -> Json:
    relations: Json = read(world, user, room, event_id)["unsigned"].get("m.relations", {})
    return relations


async def ignore(world: World, user: str, ignored: str) -> None:
    content = f'{{"ignored_users": {{"{ignored}": {{}}}}}}'
    await world.db.write(lambda tx: account_data.put(tx, user, account_data.IGNORED_USERS, content))
