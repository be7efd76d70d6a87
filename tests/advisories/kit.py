# SPDX-License-Identifier: Apache-2.0
"""A running server under attack: one.test with alice, and peer.test, a server that signs and says anything.

Mallory of peer.test is in alice's room like any other member; what she sends is what the test makes her send.
Nothing may be logged above a warning unless the test says so (`Siege.loud`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import structlog
import trio

from minihs.matrix.signatures import SigningKey
from minihs.rooms.service import Rooms
from minihs.runtime import Clock
from minihs.store.events import Outcome
from minihs.testing.api import ApiClient
from minihs.testing.hostile import Received, ScriptedPeer
from minihs.testing.servers import Cluster, cluster
from tests.rooms.forge import Forger, rows_of
from tests.rooms.world import World
from tests.web.kit import Visitor

type JsonObject = dict[str, Any]

ALICE, MALLORY = "@alice:one.test", "@mallory:peer.test"
V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"


def seg(text: str) -> str:
    return quote(text, safe="")


@dataclass
class _Outlook:
    """What a `Forger` needs of the world: the servers whose rooms it looks into, and keys."""

    siege: Siege
    keys: dict[str, SigningKey]

    @property
    def clock(self) -> Clock:
        return self.siege.world.clock

    @property
    def servers(self) -> dict[str, Rooms]:
        return {"one.test": self.siege.rooms}


@dataclass
class Siege:
    world: Cluster
    alice: ApiClient
    peer: ScriptedPeer
    room: str = ""
    forger: Forger = field(init=False)
    loud: bool = False
    """Errors may be logged."""
    logs: list[Any] = field(default_factory=list)
    _txns: Iterator[int] = field(default_factory=count)

    @property
    def rooms(self) -> Rooms:
        """The rooms of the server under attack, to look at."""
        return self.world["one.test"].server.services.rooms

    async def ask(self, method: str, uri: str, content: Any = None, **options: Any) -> tuple[int, Any]:
        """As the peer, signed."""
        return await self.peer.request(method, "one.test", uri, content, **options)

    @property
    def user(self) -> str:
        return f"@mallory:{self.peer.name}"

    def another(self, name: str) -> Siege:
        """The same server, seen by another peer."""
        return Siege(self.world, self.alice, ScriptedPeer(self.world.internet, name, clock=self.world.clock))

    async def visit(self) -> Visitor:
        """A connection of the peer's, to send bytes on."""
        stream: trio.abc.Stream = await self.peer.host.network.connect(
            self.world["one.test"].host.address, 8448
        )
        context = self.world.internet.client_tls()
        tls = trio.SSLStream(stream, context, server_hostname="one.test", https_compatible=True)
        return Visitor(tls)

    async def enter(self, room: str) -> None:
        """Mallory joins a room of alice's, and what she forges from now on is for it."""
        self.room = room
        outlook = cast("World", _Outlook(self, {self.peer.name: self.peer.key}))
        made = self.forger.made if hasattr(self, "forger") else 0  # no event id is used in two rooms
        self.forger = Forger(outlook, self.peer.name, "one.test", room, made)
        join = self.member({"membership": "join"})
        uri = f"{V2}/send_join/{seg(room)}/{seg(self.id_of(join))}"
        status, answer = await self.ask("PUT", uri, join)
        assert status == 200, answer

    # -- making events --

    def draft(
        self,
        type: str = "m.room.message",
        content: JsonObject | None = None,
        state_key: str | None = None,
        *,
        sender: str | None = None,
        **options: Any,
    ) -> JsonObject:
        """Right in all but hash and signature, unless told otherwise."""
        content = {"msgtype": "m.text", "body": "hello"} if content is None else content
        return self.forger.draft(type, sender or self.user, content, state_key, **options)

    def event(self, *args: Any, **options: Any) -> JsonObject:
        """The same, hashed and signed."""
        return self.seal(self.draft(*args, **options))

    def member(self, content: JsonObject, user: str | None = None, **options: Any) -> JsonObject:
        user = user or self.user
        return self.event("m.room.member", content, user, sender=user, **options)

    def seal(self, pdu: JsonObject) -> JsonObject:
        return self.forger.seal(pdu)

    def id_of(self, pdu: JsonObject) -> str:
        return self.forger.id_of(pdu)

    # -- sending them --

    async def send(self, *pdus: Any, edus: Sequence[Any] = ()) -> JsonObject:
        """One transaction, and wait until it is dealt with. Returns what was said of each PDU."""
        status, answer = await self.send_body({"pdus": list(pdus), "edus": list(edus)})
        assert status == 200, answer
        results: JsonObject = answer["pdus"]
        return results

    async def send_body(self, fields: Mapping[str, Any], **options: Any) -> tuple[int, Any]:
        uri = f"{V1}/send/t{next(self._txns)}"
        content = {"origin": self.peer.name, "origin_server_ts": self.world.clock.now_ms(), **fields}
        answer = await self.ask("PUT", uri, content, **options)
        await self.rest()
        return answer

    async def tell(self, kind: str, content: Any) -> None:
        """One EDU."""
        await self.send(edus=[{"edu_type": kind, "content": content}])

    async def rest(self) -> None:
        """Wait until no room has work."""
        for _ in range(10_000):
            await trio.sleep(0.01)
            if not self.rooms.parts.tasks.any_busy():
                return
        raise AssertionError("rooms stay busy")

    # -- looking at what came of it --

    def outcome(self, event_id: str) -> Outcome | None:
        """None: it is not stored."""
        found = rows_of(self.rooms).get(event_id)
        return None if found is None else Outcome(found)

    def state(self) -> dict[tuple[str, str], str]:
        """(type, state key) → event id, now."""
        return self.forger.state

    async def unharmed(self) -> None:
        """The room still works, both ways."""
        pdu = self.event()
        assert await self.send(pdu) == {self.id_of(pdu): {}}
        assert self.outcome(self.id_of(pdu)) is Outcome.ACCEPTED
        sent = await self.alice.send(self.room, "still here")
        assert self.outcome(sent) is Outcome.ACCEPTED

    # -- answering --

    def answer_gaps(self, **changes: Any) -> None:
        """The peer answers questions about the room as it is, or with `changes` (verb → answer)."""
        state, chain = self.forger.state_answer()
        state_ids, chain_ids = self.forger.state_ids_answer()
        answers: JsonObject = {
            "get_missing_events": {"events": []},
            "state_ids": {"pdu_ids": state_ids, "auth_chain_ids": chain_ids},
            "state": {"pdus": state, "auth_chain": chain},
            "event_auth": {"auth_chain": chain},
            "backfill": {"pdus": []},
            **changes,
        }
        for verb, answer in answers.items():
            self.peer.on("POST" if verb == "get_missing_events" else "GET", f"{V1}/{verb}/", answer)

    def serve_events(self, events: Mapping[str, JsonObject]) -> None:
        """GET /event gives these."""

        def script(received: Received) -> JsonObject:
            wanted = [pdu for event_id, pdu in events.items() if received.path.endswith(seg(event_id))]
            return {"origin": "peer.test", "origin_server_ts": 0, "pdus": wanted[:1]}

        self.peer.on("GET", f"{V1}/event/", script)

    # -- measuring --

    def bytes_on_disk(self) -> int:
        """Of the database: pages in use."""
        read = self.rooms.parts.db.read
        (pages,) = read.execute("PRAGMA page_count").fetchone()
        (free,) = read.execute("PRAGMA freelist_count").fetchone()
        (size,) = read.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)


@contextmanager
def cpu_budget(seconds: float) -> Iterator[None]:
    """The block may use so much CPU time of this process: servers, peer and test together. Budgets are many
    times what was measured: they tell linear from quadratic, not fast from slow. Where coverage is measured,
    all takes longer."""
    if "coverage" in sys.modules:
        seconds *= 3
    started = time.process_time()
    yield
    used = time.process_time() - started
    assert used < seconds, f"used {used:.2f} s of CPU, budget {seconds} s"


@asynccontextmanager
async def siege(
    folder: Path, *names: str, version: str = "12", room: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Siege]:
    """`room`: more for createRoom; `settings`: for the configuration."""
    with structlog.testing.capture_logs() as logs:
        async with cluster("one.test", *names, folder=folder, **settings) as world:
            peer = ScriptedPeer(world.internet, "peer.test", clock=world.clock)
            at = Siege(world, await world["one.test"].user("alice"), peer, logs=logs)
            request = {"preset": "public_chat", "room_version": version, **(room or {})}
            await at.enter(await at.alice.create_room(**request))
            yield at
    if not at.loud:
        bad = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
        assert not bad, bad
