# SPDX-License-Identifier: Apache-2.0
"""Walks along random DAGs find what a walk that reads nothing ahead finds."""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pytest

from minihs.store import history, ids, rooms
from minihs.store.database import Database, Tx
from minihs.store.events import Outcome

HELD = Outcome.ACCEPTED
EVENTS = 120


@dataclass
class Node:
    nid: int
    outcome: Outcome
    topo: int | None
    arrival: int | None
    depth: int
    parents: list[int]


class Counting:
    """A reader that knows how often it was asked."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self.statements = 0

    def execute(self, *args: Any) -> Any:
        self.statements += 1
        return self._db.execute(*args)


def random_room(chance: random.Random, tx: Tx, name: str) -> dict[int, Node]:
    """Branches, rejected events, events without a place, parents that are not held or of another room."""
    room_nid = rooms.intern(tx, name, "11")
    nodes: dict[int, Node] = {}
    recent: list[int] = []
    width = chance.choice((1, 1, 3, 12))
    elsewhere = ids.intern_event(tx, "$elsewhere")
    for number in range(EVENTS):
        nid = ids.intern_event(tx, f"${name}{number}")
        outcome = chance.choices((HELD, Outcome.SOFT_FAILED, Outcome.REJECTED), (16, 1, 2))[0]
        has_place = outcome is not Outcome.REJECTED and chance.random() < 0.97
        parents = chance.sample(recent[-width:], min(len(recent), width, chance.randrange(1, 4)))
        if chance.random() < 0.05:
            parents.append(chance.choice((elsewhere, ids.intern_event(tx, f"$lacking {name}{number}"))))
        topo = number // width if has_place else None
        arrival = (
            chance.choice((number + 1, number - EVENTS)) if has_place and chance.random() < 0.95 else None
        )
        nodes[nid] = Node(nid, outcome, topo, arrival, number // 2, parents)
        recent.append(nid)
        tx.execute(
            "INSERT INTO events (event_nid, room_nid, type, sender, depth, ts, received_ts, outcome, "
            "outlier, topo, arrival, auth_nids) VALUES (?, ?, 't', '@u:s', ?, 0, 0, ?, 0, ?, ?, '')",
            (nid, room_nid, number // 2, int(outcome), topo, arrival),
        )
        tx.executemany("INSERT INTO edges VALUES (?, ?)", [(nid, parent) for parent in parents])
    return nodes


def walked(
    nodes: dict[int, Node], start: Collection[int], stop: Collection[int], limit: int, min_depth: int
) -> list[int]:
    found: list[int] = []
    seen = set(stop)
    heap: list[tuple[int, int, int]] = []
    waiting = list(start)
    while True:
        while waiting:
            node = nodes.get(waiting.pop())
            if node is None or node.nid in seen:
                continue
            seen.add(node.nid)
            if node.outcome is Outcome.REJECTED:
                waiting += node.parents
            elif node.topo is not None and node.depth >= min_depth:
                heapq.heappush(heap, (-node.topo, -(node.arrival or 0), node.nid))
        if not heap or len(found) == limit:
            return found
        found.append(heapq.heappop(heap)[2])
        waiting = list(nodes[found[-1]].parents)


@pytest.mark.parametrize("ahead", [0, 7, history.MAX_AHEAD])
async def test_walks(db: Database, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    monkeypatch.setattr(history, "MAX_AHEAD", ahead)
    for seed in range(8):
        chance = random.Random(seed)
        name = f"!{seed}:s"
        nodes = await db.write(lambda tx, chance=chance, name=name: random_room(chance, tx, name))
        room_nid = rooms.room_nid(db.read, name)
        assert room_nid is not None
        names = ids.event_ids(db.read, nodes)
        for _ in range(8):
            limit = chance.choice((0, 1, 5, 20, 100))
            start = chance.sample(list(nodes), chance.randrange(1, 4))
            given = [names[nid] for nid in start]
            assert history.walk_back(db.read, room_nid, given, limit) == walked(nodes, start, (), limit, 0)

            latest, earliest = sorted(start, reverse=True), chance.sample(list(nodes), 2)
            min_depth = chance.choice((0, 0, 20))
            parents = [parent for nid in latest for parent in nodes[nid].parents if parent not in earliest]
            between = history.between(
                db.read,
                room_nid,
                earliest=[names[nid] for nid in earliest],
                latest=given,
                limit=limit,
                min_depth=min_depth,
            )
            assert between == walked(nodes, parents, {*earliest, *latest}, limit, min_depth)


async def test_a_line_of_events_takes_few_statements(db: Database) -> None:
    def line(tx: Tx) -> int:
        room_nid = rooms.intern(tx, "!r:s", "11")
        for number in range(300):
            nid = ids.intern_event(tx, f"${number}")
            tx.execute(
                "INSERT INTO events (event_nid, room_nid, type, sender, depth, ts, received_ts, outcome, "
                "outlier, topo, arrival, auth_nids) VALUES (?, ?, 't', '@u:s', 0, 0, 0, 0, 0, ?, ?, '')",
                (nid, room_nid, number, number),
            )
            if number:
                tx.execute("INSERT INTO edges VALUES (?, ?)", (nid, nid - 1))
        return room_nid

    room_nid = await db.write(line)
    counting = Counting(db.read)
    assert len(history.walk_back(counting, room_nid, ["$299"], 100)) == 100
    assert counting.statements < 8
