# SPDX-License-Identifier: Apache-2.0
"""What has its place at once is judged as by the inbox, whatever the events before it do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import POLICY_KEY_ID, SigningKey, sign_event
from minihs.rooms import at_once, ties
from minihs.rooms.batch import Batch
from minihs.rooms.entry import Entry
from minihs.rooms.turns import Turns
from minihs.store import inbox
from minihs.store.events import Outcome
from tests.rooms.forge import Forger, inbox_of, rows_of
from tests.rooms.hostile_paths import ALICE, EVE, VIC, Scene, scenes
from tests.rooms.world import membership_of

KEY = SigningKey.generate(b"p" * 32, "policy_server")


def designation(scene: Scene, **options: Any) -> Any:
    """e.test is to be the room's policy server, says Alice."""
    content = {"via": "e.test", "public_keys": {"ed25519": KEY.verify_key_base64}}
    forger = Forger(scene.world, "h.test", "v.test", scene.room_id)
    return forger.seal(forger.draft("m.room.policy", ALICE, content, "", **options))


async def test_a_policy_server_that_the_transaction_designates_is_asked(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        asked: list[Any] = []

        async def sign(honest: Any, asker: str, pdu: Any) -> Any:
            asked.append(pdu)
            return sign_event({**pdu, "signatures": {}}, ROOM_VERSIONS["12"], "e.test", KEY)["signatures"]

        scene.world.hooks["e.test", "policy_sign"] = sign
        policy = designation(scene)
        said, said_id = scene.good(prev=[scene.forger.id_of(policy)])
        await scene.world.send("h.test", "v.test", [policy, said])
        assert rows_of(scene.victim)[scene.forger.id_of(policy)] == Outcome.ACCEPTED
        assert rows_of(scene.victim)[said_id] == Outcome.ACCEPTED
        found = scene.victim.parts.graph.event(said_id)
        assert found is not None
        assert POLICY_KEY_ID in found.json["signatures"]["e.test"]
        assert len(asked) == 1


async def test_no_answer_waits_for_one_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """We tie the ends, and that has to be signed as well."""
    monkeypatch.setattr(ties, "MAX_ENDS", 1)
    async with scenes(tmp_path, "12") as scene:
        free, asked = trio.Event(), trio.Event()

        async def sign(honest: Any, asker: str, pdu: Any) -> Any:
            asked.set()
            await free.wait()
            return sign_event({**pdu, "signatures": {}}, ROOM_VERSIONS["12"], "e.test", KEY)["signatures"]

        scene.world.hooks["e.test", "policy_sign"] = sign
        tips = scene.forger.tips
        ends = [scene.good(prev=tips)[0] for _ in range(3)]
        pdus = [*ends, designation(scene, prev=tips)]
        answers: list[Any] = []

        async def receive() -> None:
            answers.append(await scene.victim.transactions.receive("h.test", "t", {"pdus": pdus}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            answered = len(answers)
            free.set()
        assert answered == 1
        await scene.world.rest()
        assert len(scene.victim.parts.head(scene.room_id).tips) == 1


async def test_nothing_is_placed_in_a_room_that_we_have_left(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        v, world = scene.victim, scene.world
        await v.leave(VIC, scene.room_id)
        await world.rest()
        prev = [
            row[0]
            for row in v.parts.db.read.execute(
                "SELECT event_id FROM forward_extremities JOIN event_ids USING (event_nid) "
                "JOIN rooms USING (room_nid) WHERE room_id = ?",
                (scene.room_id,),
            )
        ]
        await world.deliver()
        await world.servers["h.test"].invite(ALICE, scene.room_id, VIC)
        await world.rest()
        assert membership_of(v, scene.room_id, VIC) == "invite"
        forger = Forger(world, "h.test", "h.test", scene.room_id)
        kick = forger.seal(forger.draft("m.room.member", ALICE, {"membership": "leave"}, VIC, prev=prev))
        kick_id = forger.id_of(kick)
        await world.send("h.test", "v.test", [kick])
        assert membership_of(v, scene.room_id, VIC) == "leave"
        stored = v.parts.graph.stored(kick_id)
        assert stored is not None
        assert stored.outlier


def in_room(scene: Scene, room_id: str) -> Forger:
    return Forger(scene.world, "e.test", "v.test", room_id)


async def test_an_id_is_that_of_one_event_though_two_rooms_get_one_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, "1") as scene:
        here, there = in_room(scene, scene.room_id), in_room(scene, scene.other_room)
        one, other = (
            forger.seal(forger.draft("m.room.message", EVE, {"body": "x"}, event_id="$same:e.test"))
            for forger in (here, there)
        )
        after_step = Turns.after_step
        nested: list[Any] = []

        async def then_comes(self: Turns, account: str, started: float, room_id: str | None = None) -> None:
            await after_step(self, account, started, room_id)
            if room_id == scene.room_id and not nested:
                nested.append(1)
                await scene.victim.transactions.receive("e.test", "t2", {"pdus": [other]})
                await trio.testing.wait_all_tasks_blocked()

        monkeypatch.setattr(Turns, "after_step", then_comes)
        await scene.world.send("e.test", "v.test", [one])
        assert nested
        of_rooms = scene.victim.parts.db.read.execute(
            "SELECT r.room_id, e.room_nid = f.room_nid FROM forward_extremities f "
            "JOIN events e USING (event_nid) JOIN rooms r ON r.room_nid = f.room_nid"
        ).fetchall()
        assert all(same for _, same in of_rooms), of_rooms
        assert {"$same:e.test"} in (
            set(scene.victim.parts.head(room).tips) for room in (scene.room_id, scene.other_room)
        )


async def test_one_that_made_its_step_fail_is_not_tried_whenever_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.world.loud = True
        poison, poison_id = scene.good()
        good, good_id = scene.good()
        accept = Batch.accept
        tried: list[str] = []

        def crash(self: Batch, entry: Entry) -> None:
            tried.append(entry.event.event_id)
            if entry.event.event_id == poison_id:
                raise RuntimeError("poison")
            accept(self, entry)

        monkeypatch.setattr(Batch, "accept", crash)
        await scene.world.send("e.test", "v.test", [poison])
        assert inbox_of(scene.victim) == {poison_id: 1}
        tried.clear()
        await scene.world.send("e.test", "v.test", [good, poison])
        assert tried == [good_id]
        assert inbox_of(scene.victim) == {poison_id: 1}


async def test_what_is_left_has_precedence_as_by_the_inbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "MAX_SECONDS", 0)
    async with scenes(tmp_path, "12") as scene:
        first, first_id = scene.good()
        second, _ = scene.good(prev=[first_id])
        handed: list[tuple[str, str, bool]] = []
        hand_to = Turns.hand_to

        def note(self: Turns, room_id: str, account: str, since: int) -> None:
            hand_to(self, room_id, account, since)
            handed.append((room_id, account, (room_id, account) in self._in_rooms))

        monkeypatch.setattr(Turns, "hand_to", note)
        await scene.world.send("e.test", "v.test", [first, second])
        assert handed == [(scene.room_id, "e.test", True)]
        assert not scene.victim.parts.turns._in_rooms


async def test_who_looks_for_an_id_in_the_inbox_reads_no_other_rows(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        read = scene.victim.parts.db.read
        seen: list[str] = []

        class Explained:
            def execute(self, statement: str, parameters: Any) -> Any:
                plan = read.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
                seen.extend(row[-1] for row in plan)
                return read.execute(statement, parameters)

        explained: Any = Explained()
        assert inbox.held_among(explained, ["$a", "$b"]) == set()
        assert not inbox.is_waiting(explained, "$a")
        assert len(seen) == 2
        assert all("USING" in step and "inbox_by_event" in step for step in seen), seen
