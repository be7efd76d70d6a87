# SPDX-License-Identifier: Apache-2.0
"""One whole simulation: a seed in, the final views and a log out."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import trio

from minihs.testing.api import ApiClient, ApiError
from minihs.testing.servers import Cluster
from tests.simulation.book import Book
from tests.simulation.crowd import Crowd, Ledger
from tests.simulation.deeds import Deeds
from tests.simulation.inspection import (
    Holding,
    StateIds,
    check_extremities,
    check_history,
    check_inbox_is_empty,
    check_nothing_lost,
    check_timeline,
)
from tests.simulation.stage import run_seeded, stage
from tests.simulation.troubles import Troubles
from tests.simulation.watcher import Watcher

HOUR = 3600.0


@dataclass(frozen=True)
class Script:
    """What a simulation is made of; all else follows from the seed."""

    seed: int
    deeds: int
    servers: int = 3
    people: int = 2

    @property
    def names(self) -> list[str]:
        return [f"{letter}.test" for letter in "abcdefgh"[: self.servers]]

    @property
    def version(self) -> str:
        return ("12", "11", "12", "10", "12", "8", "11", "6")[self.seed % 8]

    @property
    def visitors(self) -> tuple[str, ...]:
        """With every other seed the last server has nobody who always stays in the room."""
        return tuple(self.names[-1:]) if self.seed % 2 else ()


@dataclass
class Ending:
    """How it ended."""

    states: dict[str, StateIds] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    troubles: set[str] = field(default_factory=set)
    gaps: int = 0
    judged: int = 0
    """Verdicts of servers that were compared with those of the book."""
    soft_failed: int = 0
    redacted: int = 0
    rejected: int = 0
    """Events that are against the rules: lies."""
    moves: Counter[str] = field(default_factory=Counter)
    """Of all memberships that the rules allow, as `Book.moves` tells them apart."""

    def digest(self) -> str:
        """Of all that a second run must repeat."""
        text = repr((self.ledger.log, [(name, sorted(state.items())) for name, state in self.states.items()]))
        return sha256(text.encode()).hexdigest()


def play(folder: Path, script: Script) -> Ending:
    """Run it in a loop of its own and check everything at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    return run_seeded(_play, script.seed, folder, script)


async def _play(folder: Path, script: Script) -> Ending:
    async with stage(script.names, folder, seed=script.seed, skew_ms=30_000) as world:
        crowd = Crowd(world, script.seed, people=script.people, visitors=script.visitors)
        await crowd.gather(script.version)
        await crowd.found_the_club()
        # Small pages with some seeds, so that there are gaps to be filled.
        limit = (3, 20, 100)[script.seed % 3]
        watchers = {
            name: Watcher(observer, crowd.room_id, limit=limit) for name, observer in crowd.observers.items()
        }
        troubles = Troubles(world, script.seed, crowd.ledger)
        async with trio.open_nursery() as nursery:
            for watcher in watchers.values():
                await watcher.step(0)  # the place from which on it must be given everything
                nursery.start_soon(watcher.run)
            nursery.start_soon(troubles.run)
            await _deeds(Deeds(crowd), script)
            await troubles.end()
            last = await _settle(crowd)
            nursery.cancel_scope.cancel()
        ending = Ending(
            {name: await _state(crowd, name) for name in script.names},
            crowd.ledger,
            troubles.seen,
            sum(watcher.gaps for watcher in watchers.values()),
        )
        await _inspect(world, crowd, watchers, ending, last, script)
        return ending


async def _deeds(deeds: Deeds, script: Script) -> None:
    """One after the other begins, mostly before the one before it is done."""
    pace = random.Random(f"pace {script.seed}")
    async with trio.open_nursery() as nursery:
        for _ in range(script.deeds):
            nursery.start_soon(deeds.choose())
            await trio.sleep(pace.choice([0, 0, 0.05, 2, 8]))


async def _settle(crowd: Crowd) -> str:
    """Nothing is in the way any more: no server is denied, time passes, each is brought back into the room
    and says something, so that all hear of what it did while nobody listened to it. All that once more, for
    what it did may have been to deny another. Then the host has the last word, on top of everything."""
    await trio.sleep(HOUR)
    for time in ("first", "second"):
        await crowd.host.set_state(crowd.room_id, "m.room.server_acl", {"allow": ["*"], "deny": []})
        await trio.sleep(HOUR)
        for name in crowd.visitors:
            await _bring_back(crowd, crowd.people[f"@u2:{name}"])
        for name in crowd.names:
            await crowd.someone_at(name).send(crowd.room_id, f"{name} is there for the {time} time")
        await trio.sleep(HOUR)
    event_id = await crowd.host.send(crowd.room_id, "the last word")
    crowd.ledger.events[event_id], crowd.ledger.texts[event_id] = "message", "the last word"
    await trio.sleep(HOUR)
    return event_id


async def _bring_back(crowd: Crowd, person: ApiClient) -> None:
    for deed in ("unban", "invite"):
        try:
            await crowd.host.post(f"{crowd.home}/{deed}", {"user_id": person.user_id})
        except ApiError as error:
            if error.status != 403:  # not banned, or in the room already
                raise
        await trio.sleep(60)  # a server that has not heard of the end of a ban refuses the invite
    await person.join(crowd.room_id, crowd.names[0])


async def _state(crowd: Crowd, name: str) -> StateIds:
    events = await crowd.someone_at(name).state(crowd.room_id)
    return {key: event["event_id"] for key, event in events.items()}


async def _inspect(
    world: Cluster,
    crowd: Crowd,
    watchers: dict[str, Watcher],
    ending: Ending,
    last: str,
    script: Script,
) -> None:
    holdings = [Holding.of(world, name, crowd.room_id) for name in script.names]
    book = Book(holdings)
    ending.moves, ending.rejected = book.moves(), book.rejected
    should_be = book.state_at({last})
    for holding in holdings:
        name = holding.name
        assert ending.states[name] == should_be, f"{name} has another state than the rules lead to"
        check_inbox_is_empty(holding)
        check_extremities(holding, last)
        book.check_own(holding)
        ending.redacted += book.check_redactions(holding)
        ending.judged += book.check_verdicts(holding)
        if name in watchers:  # the others were away for a while
            await check_history(watchers[name], holding, crowd.ledger)
            check_nothing_lost(holding, crowd.ledger)  # with what scrolling back has brought
            check_timeline(watchers[name], holding, crowd.ledger)
            ending.soft_failed += book.check_soft_failures(holding)
