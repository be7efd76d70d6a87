# SPDX-License-Identifier: Apache-2.0
"""People who do things to one room through the client API of their servers, and a ledger of what they were
told.

A deed may be refused, time out or break off with the connection: that is life. But what was answered with
200 must hold, and no answer may be an internal error.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import trio

from minihs.federation.http import HttpFailure
from minihs.testing.api import ApiClient, ApiError
from minihs.testing.servers import Cluster

PATIENCE = 90.0
"""Seconds (virtual) until a person gives up and hangs up."""

ALIAS = "#sim:"

GATEWAY = (502, 504)
"""Answers that tell of another server's failure; other 5xx are our own."""


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
        self.room_id = ""
        self._count = 0
        self._recent: list[str] = []
        self.deeds: list[tuple[int, Callable[[ApiClient, str], Awaitable[object]]]] = [
            (40, self.message),
            (10, self.topic),
            (5, self.own_state),
            (6, self.levels),
            (3, self.join_rule),
            (12, self.join),
            (4, self.leave),
            (5, self.invite),
            (4, self.kick),
            (3, self.ban),
            (4, self.unban),
            (5, self.redact),
        ]

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

    async def gather(self, version: str) -> None:
        """Everybody registers; the room is made, and all join it by its alias."""
        for name in self.names:
            if name not in self.visitors:
                self.observers[name] = await self.world[name].user("eye")
            for number in range(1, self.people_per_server + 1):
                person = await self.world[name].user(f"u{number}")
                self.people[person.user_id] = person
        creator = self.host
        self.alias = ALIAS + self.names[0]
        # Those of level 50 may change levels as well, so that there is something to fight about.
        levels = {
            "users": {f"@u1:{name}": 50 for name in self.names},
            "events": {"m.room.power_levels": 50, "m.room.join_rules": 50, "org.example.own": 0},
        }
        if version != "12":
            levels["users"][creator.user_id] = 100
        self.room_id = await creator.create_room(
            preset="public_chat",
            room_version=version,
            room_alias_name="sim",
            power_level_content_override=levels,
        )
        for each in [*self.observers.values(), *self.people.values()]:
            if each is not creator:
                assert await each.join(self.alias) == self.room_id

    # -- one deed --

    def choose(self) -> Callable[[], Awaitable[None]]:
        """The next deed, drawn now; call the result to do it."""
        persons = [*self.people.values(), *self.observers.values()]
        person = self.random.choice(persons)
        target = self.random.choice(list(self.people))
        deed = self.random.choices([deed for _, deed in self.deeds], [weight for weight, _ in self.deeds])[0]
        self._count += 1
        number = self._count

        async def attempt() -> None:
            outcome = await self._attempt(deed, person, target)
            self.ledger.outcomes[outcome.partition(" ")[0]] += 1
            self.ledger.note(f"{number} {person.user_id} {deed.__name__} {target}: {outcome}")

        return attempt

    async def _attempt(
        self, deed: Callable[[ApiClient, str], Awaitable[object]], person: ApiClient, target: str
    ) -> str:
        with trio.move_on_after(PATIENCE):
            try:
                return f"done {await deed(person, target)}"
            except ApiError as error:
                if error.status >= 500 and error.status not in GATEWAY:
                    raise
                return f"refused {error.status} {error.errcode}"
            except HttpFailure as error:
                return f"broken {error}"
        return "given-up"

    # -- deeds --

    async def message(self, person: ApiClient, target: str) -> str:
        """Say something new. With a broken connection a client says it again under the same transaction id;
        some do so without reason."""
        self._count += 1
        body = f"message {self._count} of {person.user_id}"
        path = f"{self.home}/send/m.room.message/m{self._count}"
        twice = self.random.random() < 0.1
        event_id = ""
        for attempt in range(3):
            try:
                answer = await person.put(path, {"msgtype": "m.text", "body": body})
            except HttpFailure:
                if attempt == 2:
                    raise
                await trio.sleep(3)
                continue
            assert event_id in ("", answer["event_id"]), "one transaction id made two events"
            event_id = str(answer["event_id"])
            self.ledger.events[event_id] = "message"
            self.ledger.texts[event_id] = body
            if not twice:
                break
        self._recent = [*self._recent[-19:], event_id]
        return event_id

    async def _state(self, person: ApiClient, kind: str, content: Any, key: str = "") -> str:
        event_id = await person.set_state(self.room_id, kind, content, key)
        self.ledger.events[event_id] = kind
        return event_id

    async def topic(self, person: ApiClient, target: str) -> str:
        kind, field_name = self.random.choice([("m.room.topic", "topic"), ("m.room.name", "name")])
        return await self._state(person, kind, {field_name: f"{self._count}"})

    async def own_state(self, person: ApiClient, target: str) -> str:
        self._count += 1
        return await self._state(person, "org.example.own", {"n": self._count}, person.user_id)

    async def levels(self, person: ApiClient, target: str) -> str:
        level = self.random.choice([0, 0, 50, 50, 60])
        content = await person.get(f"{self.home}/state/m.room.power_levels/")
        content |= {"users": {**content.get("users", {}), target: level}, "n": self._count}
        return await self._state(person, "m.room.power_levels", content)

    async def join_rule(self, person: ApiClient, target: str) -> str:
        rule = self.random.choice(["public", "public", "invite"])
        # With a number, for to set the same again makes no new event.
        return await self._state(person, "m.room.join_rules", {"join_rule": rule, "n": self._count})

    async def join(self, person: ApiClient, target: str) -> str:
        """Come (back), or accept an invite."""
        if self.random.random() < 0.5:
            return await person.join(self.alias)
        return await person.join(self.room_id, *self.random.sample(self.names, 2))

    async def leave(self, person: ApiClient, target: str) -> str:
        """Leave, or decline an invite."""
        if person.user_id in self.people:
            await person.leave(self.room_id)
        return ""

    async def _about(self, person: ApiClient, deed: str, target: str) -> str:
        await person.post(f"{self.home}/{deed}", {"user_id": target})
        return ""

    async def invite(self, person: ApiClient, target: str) -> str:
        return await self._about(person, "invite", target)

    async def kick(self, person: ApiClient, target: str) -> str:
        return await self._about(person, "kick", target)

    async def ban(self, person: ApiClient, target: str) -> str:
        return await self._about(person, "ban", target)

    async def unban(self, person: ApiClient, target: str) -> str:
        return await self._about(person, "unban", target)

    async def redact(self, person: ApiClient, target: str) -> str:
        if not self._recent:
            return ""
        self._count += 1
        event_id = self.random.choice(self._recent)
        answer = await person.put(f"{self.home}/redact/{quote(event_id, safe='')}/r{self._count}", {})
        self.ledger.events[answer["event_id"]] = "m.room.redaction"
        return str(answer["event_id"])
