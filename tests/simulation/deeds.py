# SPDX-License-Identifier: Apache-2.0
"""What the people of a simulation do to their room, through the client API of their servers.

A deed may be refused, time out or break off with the connection: that is life. But what was answered with
200 must hold, and no answer may be an internal error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import trio

from minihs.federation.http import HttpFailure
from minihs.matrix.ids import domain_of
from minihs.matrix.signatures import SigningKey, sign_json
from minihs.testing.api import ApiClient, ApiError
from tests.simulation.crowd import RANKS, Crowd
from tests.simulation.forgery import forge

PATIENCE = 90.0
"""Seconds (virtual) until a person gives up and hangs up."""

GATEWAY = (502, 504)
"""Answers that tell of another server's failure; other 5xx are our own."""

IDENTITY = SigningKey.generate(b"i" * 32, "0")
"""Of the identity server that signs for whoever is invited by an address."""

FIRST_VERSION_WITH = {"knock": 7, "restricted": 8, "knock_restricted": 10}
"""Join rules that not every room version knows."""

UNFIT_FOR_REDACTION = ("m.room.power_levels", "m.room.third_party_invite", "m.room.server_acl")
"""Without what redaction takes from the first two, some room versions judge others differently: those who had
the redaction first and those who had it last would not agree. An ACL without content denies everybody, and so
whoever would undo that."""

type Deed = Callable[[ApiClient, str], Awaitable[str]]
"""Done by a person, maybe to a user; returns what came of it, for the log."""


class Deeds:
    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.random = crowd.random
        self.ledger = crowd.ledger
        self._count = 0
        self._recent: list[str] = []
        """Events that somebody might redact."""
        self.weights: dict[Deed, int] = {
            self.message: 36,
            self.topic: 8,
            self.own_state: 4,
            self.shared_state: 4,
            self.levels: 6,
            self.thresholds: 2,
            self.join_rule: 6,
            self.acl: 3,
            self.visibility: 2,
            self.alias: 1,
            self.join: 14,
            self.leave: 5,
            self.rename: 2,
            self.knock: 8,
            self.answer_a_knock: 6,
            self.invite: 5,
            self.invite_by_mail: 3,
            self.kick: 4,
            self.ban: 3,
            self.unban: 4,
            self.redact: 5,
            self.forge: 6,
        }
        self.of_power: set[Deed] = {
            self.topic,
            self.levels,
            self.thresholds,
            self.join_rule,
            self.acl,
            self.visibility,
            self.alias,
            self.answer_a_knock,
            self.kick,
            self.ban,
            self.unban,
        }
        """Mostly done by those who have some to begin with; to others they are refused."""

    def choose(self) -> Callable[[], Awaitable[None]]:
        """The next deed, drawn now; call the result to do it."""
        crowd = self.crowd
        (deed,) = self.random.choices(list(self.weights), list(self.weights.values()))
        persons = [*crowd.people.values(), *crowd.observers.values()]
        if deed in self.of_power and self.random.random() < 0.7:
            persons = [crowd.host, *crowd.powerful]
        person, target = self.random.choice(persons), self.random.choice(list(crowd.people))
        number = self._number()

        async def attempt() -> None:
            outcome = await self._attempt(deed, person, target)
            self.ledger.outcomes[outcome.partition(" ")[0]] += 1
            self.ledger.note(f"{number} {person.user_id} {deed.__name__} {target}: {outcome}")

        return attempt

    async def _attempt(self, deed: Deed, person: ApiClient, target: str) -> str:
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

    def _number(self) -> int:
        self._count += 1
        return self._count

    # -- saying something --

    async def message(self, person: ApiClient, target: str) -> str:
        """Say something new. With a broken connection a client says it again under the same transaction id;
        some do so without reason."""
        number = self._number()
        body = f"message {number} of {person.user_id}"
        path = f"{self.crowd.home}/send/m.room.message/m{number}"
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
            event_id = self._note(answer["event_id"], "message")
            self.ledger.texts[event_id] = body
            if not twice:
                break
        return event_id

    async def redact(self, person: ApiClient, target: str) -> str:
        if not self._recent:
            return ""
        event_id = quote(self.random.choice(self._recent), safe="")
        answer = await person.put(f"{self.crowd.home}/redact/{event_id}/r{self._number()}", {})
        self.ledger.events[answer["event_id"]] = "m.room.redaction"
        return str(answer["event_id"])

    def _note(self, event_id: str, kind: str) -> str:
        self.ledger.events[event_id] = kind
        if kind not in UNFIT_FOR_REDACTION:
            self._recent = [*self._recent[-19:], event_id]
        return event_id

    async def forge(self, person: ApiClient, target: str) -> str:
        """Not by the client API: the target's server lies in the target's name. None that may be out of the
        room: what it said and does not know itself nobody would tell it then, and if a ban is built on that,
        it would never know that it is out."""
        name = domain_of(target)
        if self.crowd.world[name].is_running and name not in self.crowd.visitors:
            return await forge(self.crowd, self.random, target, self._recent)
        return ""

    # -- what the room is like --

    async def _set(self, person: ApiClient, kind: str, content: dict[str, Any], key: str = "") -> str:
        # With a number, for to set the same again makes no new event.
        content = {**content, "n": self._number()}
        return self._note(await person.set_state(self.crowd.room_id, kind, content, key), kind)

    async def topic(self, person: ApiClient, target: str) -> str:
        kind, field_name = self.random.choice([("m.room.topic", "topic"), ("m.room.name", "name")])
        return await self._set(person, kind, {field_name: f"of {person.user_id}"})

    async def own_state(self, person: ApiClient, target: str) -> str:
        return await self._set(person, "org.example.own", {}, person.user_id)

    async def shared_state(self, person: ApiClient, target: str) -> str:
        """What everybody may write, so that the same key is often written on both sides of a cut."""
        return await self._set(person, "org.example.shared", {}, self.random.choice(["", "a", "b"]))

    async def levels(self, person: ApiClient, target: str) -> str:
        level = self.random.choice([0, 25, *RANKS])
        content = await person.get(f"{self.crowd.home}/state/m.room.power_levels/")
        content |= {"users": {**content.get("users", {}), target: level}}
        return await self._set(person, "m.room.power_levels", content)

    async def thresholds(self, person: ApiClient, target: str) -> str:
        """How much power it takes to do something."""
        content = await person.get(f"{self.crowd.home}/state/m.room.power_levels/")
        name, level = self.random.choice(["ban", "kick", "invite", "redact"]), self.random.choice([0, 50, 75])
        if self.random.random() < 0.5:
            content |= {name: level}
        else:
            content |= {"events": {**content.get("events", {}), "m.room.topic": level}}
        return await self._set(person, "m.room.power_levels", content)

    async def join_rule(self, person: ApiClient, target: str) -> str:
        known = [rule for rule, since in FIRST_VERSION_WITH.items() if int(self.crowd.version) >= since]
        rule = self.random.choice(["public", "invite", *known])
        content: dict[str, Any] = {"join_rule": rule}
        if "restricted" in rule:
            content["allow"] = [{"type": "m.room_membership", "room_id": self.crowd.club_id}]
        return await self._set(person, "m.room.join_rules", content)

    async def acl(self, person: ApiClient, target: str) -> str:
        """Deny a server, or none any more. It may be the person's own. Never the host's, and none that may be
        out of the room before it is heard again: what it said meanwhile nobody would ever ask for."""
        stays = [name for name in self.crowd.observers if name != self.crowd.names[0]]
        denied = self.random.choice([[], [], [self.random.choice(stays)]])
        return await self._set(person, "m.room.server_acl", {"allow": ["*"], "deny": denied})

    async def visibility(self, person: ApiClient, target: str) -> str:
        value = self.random.choice(["shared", "invited", "joined", "world_readable"])
        return await self._set(person, "m.room.history_visibility", {"history_visibility": value})

    async def alias(self, person: ApiClient, target: str) -> str:
        """One more, on the person's own server."""
        alias = f"#a{self._number()}:{domain_of(person.user_id)}"
        await person.put(f"/directory/room/{quote(alias, safe='')}", {"room_id": self.crowd.room_id})
        self.crowd.aliases.append(alias)
        return await self._set(person, "m.room.canonical_alias", {"alias": alias})

    # -- coming and going --

    async def join(self, person: ApiClient, target: str) -> str:
        """Come (back), or accept an invite."""
        if self.random.random() < 0.3:
            return await person.join(self.random.choice(self.crowd.aliases))
        return await person.join(self.crowd.room_id, *self._some_servers())

    def _some_servers(self) -> list[str]:
        return self.random.sample(self.crowd.names, 2)

    async def leave(self, person: ApiClient, target: str) -> str:
        """Leave, decline an invite or take back a knock."""
        if person.user_id in self.crowd.people:
            await person.leave(self.crowd.room_id)
        return ""

    async def rename(self, person: ApiClient, target: str) -> str:
        """Another name for oneself: who is in the room joins it once more."""
        name = {"displayname": f"number {self._number()}"}
        await person.put(f"/profile/{quote(person.user_id, safe='')}/displayname", name)
        return ""

    async def knock(self, person: ApiClient, target: str) -> str:
        await person.post(
            f"/knock/{quote(self.crowd.room_id, safe='')}", {}, server_name=self._some_servers()
        )
        return ""

    async def answer_a_knock(self, person: ApiClient, target: str) -> str:
        """Let somebody in who knocked, or send them away."""
        members = await person.get(f"{self.crowd.home}/members", membership="knock")
        if not members["chunk"]:
            return ""
        knocker = self.random.choice(members["chunk"])["state_key"]
        return await self._about(person, self.random.choice(["invite", "kick"]), knocker)

    async def _about(self, person: ApiClient, deed: str, target: str) -> str:
        await person.post(f"{self.crowd.home}/{deed}", {"user_id": target})
        return f"{deed} {target}"

    async def invite(self, person: ApiClient, target: str) -> str:
        return await self._about(person, "invite", target)

    async def invite_by_mail(self, person: ApiClient, target: str) -> str:
        """Invite an address, of which the identity server tells the target's server a while later that it is
        the target's."""
        token = f"token{self._number()}"
        offer = {"display_name": "t...@mail", "public_key": IDENTITY.verify_key_base64}
        await self._set(
            person, "m.room.third_party_invite", {**offer, "key_validity_url": "https://id.test"}, token
        )
        await trio.sleep(self.random.uniform(0, 20))
        signed = sign_json({"mxid": target, "token": token}, "id.test", IDENTITY)
        invite = {"mxid": target, "room_id": self.crowd.room_id, "sender": person.user_id, "signed": signed}
        about = {"medium": "email", "address": "t@mail.test", "mxid": target, "invites": [invite]}
        await self.crowd.people[target].put("/_matrix/federation/v1/3pid/onbind", about)
        return target

    async def kick(self, person: ApiClient, target: str) -> str:
        return await self._about(person, "kick", target)

    async def ban(self, person: ApiClient, target: str) -> str:
        return await self._about(person, "ban", target)

    async def unban(self, person: ApiClient, target: str) -> str:
        """Of somebody who is banned, where that is to be seen."""
        members = await person.get(f"{self.crowd.home}/members", membership="ban")
        banned = [event["state_key"] for event in members["chunk"]] or [target]
        return await self._about(person, "unban", self.random.choice(banned))
