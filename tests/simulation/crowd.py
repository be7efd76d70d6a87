# SPDX-License-Identifier: Apache-2.0
"""The people of a simulation, the room that they are in, and a ledger of what they were told. What they do
there is in tests/simulation/deeds.py."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import trio

from minihs.testing.api import ApiClient
from minihs.testing.servers import Cluster

RANKS = [50, 75, 90]
"""Power levels of those who have some. They differ, so that the higher can bring down the lower."""


@dataclass
class Ledger:
    """What was acknowledged, and all that happened in order."""

    events: dict[str, str] = field(default_factory=dict)
    """Event id to kind, of each deed that was answered with an event id."""
    texts: dict[str, str] = field(default_factory=dict)
    """Event id to body, of the messages among them."""
    outcomes: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.log.append(f"{trio.current_time():.3f} {what}")


class Crowd:
    """Per server one observer who stays in the room, and some people who fight. The first observer has made
    the room."""

    def __init__(self, world: Cluster, seed: int, *, people: int = 2, visitors: tuple[str, ...] = ()) -> None:
        self.world = world
        self.random = random.Random(f"crowd {seed}")
        self.ledger = Ledger()
        self.people_per_server = people
        self.visitors = visitors
        """Servers without an observer: they may be out of the room altogether for a while."""
        self.observers: dict[str, ApiClient] = {}
        self.people: dict[str, ApiClient] = {}
        self.creators: list[str] = []
        """Who made the room, and who counts as if in room version 12: nobody can set their power."""
        self.version = ""
        self.room_id = ""
        self.club_id = ""
        """Another room, whose members a restricted room lets in."""
        self.aliases: list[str] = []

    @property
    def names(self) -> list[str]:
        return list(self.world.servers)

    @property
    def host(self) -> ApiClient:
        """The room's creator."""
        return self.observers[self.names[0]]

    @property
    def home(self) -> str:
        return f"/rooms/{quote(self.room_id, safe='')}"

    @property
    def powerful(self) -> list[ApiClient]:
        """Those of the people who have some power to begin with: the first of each server."""
        return [person for user_id, person in self.people.items() if user_id.startswith("@u1:")]

    def someone_at(self, name: str) -> ApiClient:
        """Who is in the room in the end."""
        return self.observers.get(name) or self.people[f"@u2:{name}"]

    async def gather(self, version: str) -> None:
        """Everybody registers; the room is made, and all join it by its alias."""
        self.version = version
        for name in self.names:
            if name not in self.visitors:
                self.observers[name] = await self.world[name].user("eye")
            for number in range(1, self.people_per_server + 1):
                person = await self.world[name].user(f"u{number}")
                self.people[person.user_id] = person
        self.creators = [self.host.user_id]
        if version == "12":
            self.creators += [person.user_id for person in self.powerful[1:2]]
        self.room_id = await self.host.create_room(
            preset="public_chat",
            room_version=version,
            room_alias_name="sim",
            power_level_content_override=self._levels(),
            creation_content={"additional_creators": self.creators[1:]} if version == "12" else {},
        )
        self.aliases = [f"#sim:{self.names[0]}"]
        for each in [*self.observers.values(), *self.people.values()]:
            if each is not self.host:
                assert await each.join(self.aliases[0]) == self.room_id

    async def found_the_club(self) -> None:
        self.club_id = await self.host.create_room(preset="public_chat")
        for person in self.powerful:
            await person.join(self.club_id, self.names[0])

    def _levels(self) -> dict[str, Any]:
        """Those of level 50 may change levels as well, so that there is something to fight about."""
        users = {person.user_id: self.random.choice(RANKS) for person in self.powerful}
        if self.version != "12":
            users[self.host.user_id] = 100
        return {
            "users": {user_id: level for user_id, level in users.items() if user_id not in self.creators[1:]},
            "events": {"m.room.power_levels": 50, "org.example.own": 0, "org.example.shared": 0},
        }
