# SPDX-License-Identifier: Apache-2.0
"""Random things done by users of several servers, over a network that loses, repeats and reorders
transactions, on servers that are stopped and started: what tests/rooms/test_simulation.py is made of.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable

from minihs.matrix.errors import MatrixError
from minihs.matrix.federation_errors import Unreachable
from minihs.rooms.service import Rooms
from minihs.store import rooms
from tests.rooms import invariants
from tests.rooms.wires import copied
from tests.rooms.world import World, outbound_rows, state_of

HOSTS = ["a.test", "b.test", "c.test"]
USERS = {host: [f"@{name}:{host}" for name in ("u1", "u2")] for host in HOSTS}
EVERYBODY = [user_id for users in USERS.values() for user_id in users]
OWNER = "@u1:a.test"

type Action = Callable[[Rooms, str, str], Awaitable[None]]


async def _give_nothing(honest: object, *args: object) -> None:
    raise Unreachable("somebody", "is busy")


class Chaos:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.room_id = ""
        self.club = ""
        """The room whose members a restricted room lets in."""
        self.done: dict[str, int] = {}
        self.refused = 0
        self.restarts = 0
        self.compared = 0
        """Pairs of servers that were compared in the end."""
        self.sent: list[tuple[str, str]] = []
        """(server, event id) of what a client was told is sent."""
        self.taken: list[tuple[str, str, int]] = []
        """(server, event id, stay) of what another server was told is taken. The stay is over when the last
        user leaves: then it need not be kept."""
        self.stays: dict[str, int] = dict.fromkeys(HOSTS, 0)
        self.actions: dict[Action, int] = {
            self.message: 30,
            self.name: 8,
            self.levels: 6,
            self.join: 14,
            self.leave: 4,
            self.kick: 3,
            self.ban: 3,
            self.unban: 3,
            self.invite: 8,
            self.knock: 4,
            self.redact: 4,
            self.rules: 4,
            self.acl: 2,
        }

    def server_of(self, user_id: str) -> Rooms:
        return self.world.servers[user_id.partition(":")[2]]

    async def start(self, version: str) -> None:
        a = self.world.servers["a.test"]
        request = {"preset": "public_chat", "room_version": version}
        self.room_id = await a.create(OWNER, request)
        self.club = await a.create(OWNER, request)
        for host in HOSTS:
            for user_id in USERS[host]:
                await self.server_of(user_id).join(user_id, self.room_id, via=["a.test"])
                await self.world.rest()
            if host != "c.test":
                await self.server_of(USERS[host][0]).join(USERS[host][0], self.club, via=["a.test"])
        await self.world.deliver()

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await self.weather()
            await self.step()
        self.world.reunite()
        self.world.hooks.clear()
        await self.deliver_all()

    # -- the network and the servers ---------------------------------------------------------------

    async def weather(self) -> None:
        roll = self.random.random()
        if roll < 0.02:
            self.world.separate(self.random.choice(HOSTS))
        elif roll < 0.05:
            self.world.reunite()
        if self.random.random() < 0.4:
            await self.deliver_some()
        if self.random.random() < 0.03:
            await self.restart(self.random.choice(HOSTS))
        if self.world.partial_joins and self.random.random() < 0.05:
            self.keep_members_back()
        self.world.clock.ms += self.random.randrange(10_000)
        if self.random.random() < 0.1:
            await self.world.wait(60)
        self.note_stays()

    def keep_members_back(self) -> None:
        """Some servers give no state now, so that rooms joined by part of it stay so for a while."""
        for host in HOSTS:
            if self.random.random() < 0.9:
                self.world.hooks[host, "state_at"] = _give_nothing
            else:
                self.world.hooks.pop((host, "state_at"), None)

    async def restart(self, host: str) -> None:
        """With whatever it was about to do; what it had acknowledged must still be there."""
        await self.world.restart(host)
        self.restarts += 1

    async def deliver_some(self) -> None:
        pairs = [(host, target) for host in HOSTS for target in HOSTS if host != target]
        self.random.shuffle(pairs)
        for host, target in pairs:
            if self.random.random() < 0.7 and frozenset((host, target)) not in self.world.cut:
                await self.deliver_between(host, target)

    async def deliver_between(self, host: str, target: str) -> None:
        up_to = self.world.sent_up_to.get((host, target), 0)
        waiting = outbound_rows(self.world.servers[host], target, up_to)
        rows = waiting[: self.random.choice([1, 3, 50])]
        if not rows:
            return
        luck = self.random.random()
        if luck < 0.08:
            return  # the request is lost, and tried again later
        if luck < 0.11 and len(waiting) > len(rows):
            # The sender gave up, so the target must find out by itself: by what follows. (If nothing did, as
            # after a kick, it never could.)
            self.world.sent_up_to[host, target] = rows[-1][0]
            return
        pdus = copied([pdu for _, pdu in rows])
        if luck < 0.25:
            self.random.shuffle(pdus)
        self.world.txn += 1
        body = {"origin": host, "pdus": pdus, "edus": []}
        for _ in range(2 if luck < 0.35 else 1):  # the answer was lost, so it is sent once more
            txn = f"t{self.world.txn}" if luck < 0.3 else f"t{self.world.txn}.{self.random.random()}"
            answer = await self.world.servers[target].transactions.receive(host, txn, body)
            for event_id, result in answer["pdus"].items():
                if not result and invariants.is_resident(self.world.servers[target], self.room_id):
                    self.taken.append((target, event_id, self.stays[target]))
        self.world.sent_up_to[host, target] = rows[-1][0]
        if self.random.random() < 0.8:
            await self.world.rest()

    async def deliver_all(self) -> None:
        await self.world.rest()
        await self.world.deliver()
        await self.world.wait(7 * 3600)
        self.note_stays()

    def note_stays(self) -> None:
        for host in HOSTS:
            if not invariants.is_resident(self.world.servers[host], self.room_id):
                self.stays[host] += 1

    # -- the users ---------------------------------------------------------------------------------

    async def step(self) -> None:
        user_id, target = self.random.choice(EVERYBODY), self.random.choice(EVERYBODY)
        (action,) = self.random.choices(list(self.actions), list(self.actions.values()))
        try:
            await action(self.server_of(user_id), user_id, target)
        except MatrixError:
            self.refused += 1
        else:
            name = action.__name__
            self.done[name] = self.done.get(name, 0) + 1
        self.note_stays()

    async def send(
        self, server: Rooms, user_id: str, type: str, content: dict[str, object], state_key: str | None = None
    ) -> None:
        event_id = await server.send(user_id, self.room_id, type, content, state_key=state_key)
        self.sent.append((server.parts.our_name, event_id))

    async def message(self, server: Rooms, user_id: str, target: str) -> None:
        await self.send(server, user_id, "m.room.message", {"n": self.random.randrange(10**9), "t": target})

    async def name(self, server: Rooms, user_id: str, target: str) -> None:
        kind = self.random.choice(["m.room.name", "m.room.topic", "x.any"])
        await self.send(server, user_id, kind, {"value": str(self.random.random())}, "")

    async def levels(self, server: Rooms, user_id: str, target: str) -> None:
        event = server.parts.graph.event(state_of(server, self.room_id)["m.room.power_levels", ""])
        assert event is not None
        level = 100 if target == OWNER else self.random.choice([0, 50, 50, 60, 100])
        content = {**event.content, "users": {**event.content.get("users", {}), target: level}}
        await self.send(server, user_id, "m.room.power_levels", content, "")

    async def rules(self, server: Rooms, user_id: str, target: str) -> None:
        version = server.parts.head(self.room_id).version
        rules = ["public", "public", "invite"]
        if version.knock:
            rules.append("knock")
        if version.restricted_join:
            rules += ["restricted", "restricted"]
        if version.knock_restricted:
            rules.append("knock_restricted")
        rule = self.random.choice(rules)
        content: dict[str, object] = {"join_rule": rule}
        if "restricted" in rule:
            content["allow"] = [{"type": "m.room_membership", "room_id": self.club}]
        await self.send(server, user_id, "m.room.join_rules", content, "")

    async def acl(self, server: Rooms, user_id: str, target: str) -> None:
        """Mostly of somebody who is not here. Who is denied can still hear, and is let in again later."""
        denied = self.random.choice(["evil.test", "evil.test", "*.evil.test", "c.test"])
        await self.send(server, user_id, "m.room.server_acl", {"allow": ["*"], "deny": [denied]}, "")

    async def join(self, server: Rooms, user_id: str, target: str) -> None:
        via = HOSTS.copy()
        self.random.shuffle(via)
        await server.join(user_id, self.room_id, via=via)

    async def leave(self, server: Rooms, user_id: str, target: str) -> None:
        if user_id != OWNER:
            await server.leave(user_id, self.room_id)

    async def kick(self, server: Rooms, user_id: str, target: str) -> None:
        if target != OWNER:
            await server.kick(user_id, self.room_id, target)

    async def ban(self, server: Rooms, user_id: str, target: str) -> None:
        if target != OWNER:
            await server.ban(user_id, self.room_id, target)

    async def unban(self, server: Rooms, user_id: str, target: str) -> None:
        await server.unban(user_id, self.room_id, target)

    async def invite(self, server: Rooms, user_id: str, target: str) -> None:
        await server.invite(user_id, self.room_id, target)

    async def knock(self, server: Rooms, user_id: str, target: str) -> None:
        via = HOSTS.copy()
        self.random.shuffle(via)
        await server.knock(user_id, self.room_id, via=via)

    async def redact(self, server: Rooms, user_id: str, target: str) -> None:
        rows = server.parts.db.read.execute(
            "SELECT i.event_id FROM events e JOIN event_ids i USING (event_nid) "
            "WHERE e.type = 'm.room.message' ORDER BY e.event_nid DESC LIMIT 20"
        ).fetchall()
        if rows:
            await server.redact(user_id, self.room_id, self.random.choice(rows)[0], {}, None, None)

    # -- the end -----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """The owner ends all denials, and everybody who is in the room says something, so that each server
        hears of the newest events of the others.
        """
        a = self.world.servers["a.test"]
        await a.send(OWNER, self.room_id, "m.room.server_acl", {"allow": ["*"], "deny": []}, state_key="")
        for _ in range(3):
            await self.deliver_all()
            for user_id in EVERYBODY:
                try:
                    await self.message(self.server_of(user_id), user_id, "")
                except MatrixError:
                    continue
        await self.deliver_all()

    def check(self) -> None:
        """Servers that hear each other agree. (Of one that all others believe to have left, say because it
        joined again through somebody who then never told the others, nobody can expect that.)
        """
        states = {}
        for host, server in self.world.servers.items():
            if invariants.is_resident(server, self.room_id):
                if server.parts.whole.is_partial(self.room_id):
                    # The others believe that it left, so nobody tells it anything.
                    assert not any(self.sees(other, host) for other in self.others_in_room(host))
                    continue
                invariants.check(server, self.room_id)
                states[host] = state_of(server, self.room_id)
        for one, other in itertools.combinations(sorted(states), 2):
            if self.sees(one, other) and self.sees(other, one):
                self.compared += 1
                assert states[one] == states[other], f"{one} and {other} disagree"

    def others_in_room(self, host: str) -> list[str]:
        return [
            other
            for other, server in self.world.servers.items()
            if other != host and invariants.is_resident(server, self.room_id)
        ]

    def sees(self, host: str, other: str) -> bool:
        db = self.world.servers[host].parts.db.read
        return rooms.has_host(db, self.world.servers[host].parts.head(self.room_id).room_nid, other)

    def check_nothing_is_lost(self) -> None:
        for host, event_id in self.sent:
            assert self.world.servers[host].parts.graph.has(event_id), f"{host} lost {event_id} of its own"
        for host, event_id, stay in self.taken:
            server = self.world.servers[host]
            if stay == self.stays[host] and not server.parts.graph.has(event_id):
                waits = server.parts.db.read.execute(
                    "SELECT 1 FROM inbox WHERE event_id = ?", (event_id,)
                ).fetchone()
                assert waits, f"{host} lost {event_id}, which it had acknowledged"
