# SPDX-License-Identifier: Apache-2.0
"""Transactions of a peer that lies: what is refused as a whole, what PDU by PDU, what is repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.errors import MatrixError
from minihs.rooms import receive, transactions
from tests.rooms.forge import inbox_of, rows_of
from tests.rooms.hostile_paths import ALICE, EVE, VIC, Scene, scenes
from tests.rooms.world import stored, timeline_of, worlds

type JsonObject = dict[str, Any]


@asynccontextmanager
async def scene_of(tmp_path: Path, version: str = "12") -> AsyncIterator[Scene]:
    async with scenes(tmp_path, version) as scene:
        yield scene


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({"pdus": [{}] * 51}, 400, "M_BAD_JSON"),
        ({"edus": [{}] * 101}, 400, "M_BAD_JSON"),
        ({"pdus": {}}, 400, "M_BAD_JSON"),
        ({"pdus": None}, 400, "M_BAD_JSON"),
        ({"edus": "none"}, 400, "M_BAD_JSON"),
        ({"origin": "h.test", "pdus": []}, 403, "M_FORBIDDEN"),
        ({"origin": 5, "pdus": []}, 403, "M_FORBIDDEN"),
    ],
    ids=[
        "51 PDUs",
        "101 EDUs",
        "pdus no list",
        "pdus null",
        "edus no list",
        "another origin",
        "origin no name",
    ],
)
async def test_a_transaction_that_is_wrong_as_a_whole_is_refused(
    tmp_path: Path, body: JsonObject, status: int, errcode: str
) -> None:
    async with scene_of(tmp_path) as scene:
        before = rows_of(scene.victim)
        with pytest.raises(MatrixError) as refused:
            await scene.victim.transactions.receive("e.test", "t", body)
        assert (refused.value.status, refused.value.errcode) == (status, errcode)
        assert rows_of(scene.victim) == before
        # and it is not remembered: the same transaction, put right, is taken
        pdu, good = scene.good()
        answer = await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]})
        assert answer == {"pdus": {good: {}}}


async def test_fifty_pdus_and_a_hundred_edus_are_taken(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        chain: list[JsonObject] = []
        ids: list[str] = []
        for _ in range(50):
            pdu, event_id = scene.good(prev=ids[-1:] or None)
            chain.append(pdu)
            ids.append(event_id)
        edus = [{"edu_type": "m.presence", "content": {}}] * 100
        answer = await scene.world.send("e.test", "v.test", chain, edus)
        assert answer == {"pdus": {event_id: {} for event_id in ids}}
        assert timeline_of(scene.victim, scene.room_id)[-50:] == ids


@pytest.mark.parametrize("rubbish", [None, 5, "x", [], [1], {}, {"room_id": 5}, {"room_id": "!x"}, True, 1.5])
async def test_pdus_that_name_no_room_are_dropped_and_the_others_taken(
    tmp_path: Path, rubbish: object
) -> None:
    async with scene_of(tmp_path) as scene:
        pdu, good = scene.good()
        answer = await scene.world.send("e.test", "v.test", [rubbish, pdu, rubbish])
        assert answer == {"pdus": {good: {}}}
        assert good in rows_of(scene.victim)


@pytest.mark.parametrize(
    "edu",
    [None, 5, [], {}, {"edu_type": 5}, {"edu_type": "x.kept"}, {"edu_type": "x.kept", "content": []}],
)
async def test_edus_of_the_wrong_shape_are_dropped(tmp_path: Path, edu: object) -> None:
    async with worlds(tmp_path) as world:
        taken: list[JsonObject] = []

        async def handle(origin: str, content: JsonObject) -> None:
            taken.append(content)

        world.durable["x.kept"] = world.fleeting["x.gone"] = handle
        await world.start("v.test")
        right: list[object] = [
            {"edu_type": "x.kept", "content": {"n": 1}},
            {"edu_type": "x.gone", "content": {"n": 2}},
        ]
        assert await world.send("e.test", "v.test", [], [edu, *right]) == {"pdus": {}}
        assert sorted(content["n"] for content in taken) == [1, 2]


async def test_an_edu_whose_handler_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    async with worlds(tmp_path) as world:
        taken: list[int] = []

        async def handle(origin: str, content: JsonObject) -> None:
            taken.append(content["n"])

        world.durable["x.kept"] = handle
        v = await world.start("v.test")
        edus = [{"edu_type": "x.kept", "content": content} for content in ({"n": 1}, {}, {"n": 3})]
        await world.send("e.test", "v.test", [], edus)
        assert taken == [1, 3]
        assert inbox_of(v) == {}


async def test_durable_edus_outlive_a_stop_before_they_are_handled(tmp_path: Path) -> None:
    async with worlds(tmp_path) as world:
        taken: list[int] = []
        hold = True

        async def handle(origin: str, content: JsonObject) -> None:
            if hold:
                await trio.sleep_forever()
            taken.append(content["n"])

        world.durable["x.kept"] = handle
        await world.start("v.test")
        edus = [{"edu_type": "x.kept", "content": {"n": n}} for n in range(3)]
        await world.send("e.test", "v.test", [], edus)
        hold = False
        await world.restart("v.test")
        await world.rest()
        assert taken == [0, 1, 2]


async def test_a_repeated_transaction_gets_the_same_answer_and_does_nothing(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        bad = scene.forger.seal(scene.message()) | {"signatures": {}}
        pdu, good = scene.good()
        body = {"pdus": [bad, pdu]}
        first = await scene.victim.transactions.receive("e.test", "t", body)
        await scene.world.rest()
        before = rows_of(scene.victim)
        other, _ = scene.good()
        again = await scene.victim.transactions.receive("e.test", "t", {"pdus": [other]})
        await scene.world.rest()
        assert again == first
        assert first["pdus"][good] == {}
        assert rows_of(scene.victim) == before
        v = await scene.world.restart("v.test")
        assert await v.transactions.receive("e.test", "t", body) == first
        # another server's transaction of the same name is another one
        answer = await v.transactions.receive("h.test", "t", {"pdus": []})
        assert answer == {"pdus": {}}


async def test_the_same_transaction_twice_at_once_is_done_once(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        pdu, good = scene.good()
        answers: list[JsonObject] = []
        verified = 0
        keys = scene.world

        async def count(events: Any) -> Any:
            nonlocal verified
            verified += len(events)
            await trio.testing.wait_all_tasks_blocked()
            return [None] * len(events)

        keys.verify_events = count  # type: ignore[method-assign]  # to see how often it is asked

        async def ask() -> None:
            answers.append(await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]}))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert answers == [{"pdus": {good: {}}}] * 3
        assert verified == 1


async def test_if_the_first_of_two_is_cancelled_the_second_does_the_work(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        pdu, good = scene.good()
        answers: list[JsonObject] = []
        stuck = trio.Event()
        honest = scene.world.verify_events
        calls = 0

        async def verify(events: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                await stuck.wait()
            return await honest(events)

        scene.world.verify_events = verify  # type: ignore[method-assign]  # the first call never returns

        async def ask() -> None:
            answers.append(await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]}))

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def first() -> None:
                with scope:
                    await ask()

            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        assert answers == [{"pdus": {good: {}}}]
        await scene.world.rest()
        assert good in rows_of(scene.victim)


@pytest.mark.parametrize("checkpoint", range(12))
async def test_what_was_staged_is_dealt_with_whenever_the_peer_hangs_up(
    tmp_path: Path, checkpoint: int
) -> None:
    """The request is cancelled at its n-th checkpoint: either all of it happened or nothing, and what was
    staged does not wait for somebody to come by.
    """
    async with scene_of(tmp_path) as scene:
        pdu, good = scene.good()
        scope = trio.CancelScope()

        class CancelAt(trio.abc.Instrument):
            left = checkpoint

            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if task is me:
                    self.left -= 1
                    if self.left < 0:
                        scope.cancel()

        me = trio.lowlevel.current_task()
        instrument = CancelAt()
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]})
        finally:
            trio.lowlevel.remove_instrument(instrument)
        await scene.world.rest()
        assert inbox_of(scene.victim) == {}
        answer = await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]})
        await scene.world.rest()
        assert answer == {"pdus": {good: {}}}
        assert good in rows_of(scene.victim)


async def test_a_server_that_the_room_denies_gets_nothing_in(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        h = scene.world.servers["h.test"]
        acl = {"allow": ["*"], "deny": ["e.test"]}
        await h.send(ALICE, scene.room_id, "m.room.server_acl", acl, state_key="")
        await scene.world.deliver()
        pdu, event_id = scene.good()
        by_h = scene.forger.seal(
            scene.forger.draft(
                "m.room.message", ALICE, {}, auth=[*scene.forger.auth_events("x", ALICE, None, {})]
            ),
            "h.test",
        )
        answer = await scene.world.send("e.test", "v.test", [pdu, by_h])
        assert set(answer["pdus"]) == {event_id, scene.forger.id_of(by_h)}
        assert all("error" in result for result in answer["pdus"].values())
        assert event_id not in rows_of(scene.victim)
        # Whose event it is does not matter, but who sends it.
        answer = await scene.world.send("h.test", "v.test", [pdu, by_h])
        assert all(result == {} for result in answer["pdus"].values())
        assert event_id in rows_of(scene.victim)
        resident, me = scene.victim.resident, "@new:e.test"
        for call in (
            lambda: resident.make("e.test", scene.room_id, me, "join", ["12"]),
            lambda: resident.send_join("e.test", scene.room_id, event_id, pdu),
            lambda: resident.send_leave("e.test", scene.room_id, event_id, pdu),
            lambda: resident.send_knock("e.test", scene.room_id, event_id, pdu),
            lambda: scene.victim.invites.receive("e.test", scene.room_id, event_id, "12", pdu, []),
            lambda: _later(scene.victim.serving.backfill, "e.test", scene.room_id, [event_id], 10),
            lambda: _later(scene.victim.serving.event, "e.test", event_id),
            lambda: _later(scene.victim.serving.state_ids, "e.test", scene.room_id, event_id),
            lambda: _later(scene.victim.serving.event_auth, "e.test", scene.room_id, event_id),
        ):
            with pytest.raises(MatrixError) as refused:
                await call()
            assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def _later(call: Any, *args: Any) -> None:
    result = call(*args)
    if hasattr(result, "__await__"):
        await result


async def test_pdus_of_rooms_that_we_are_not_in_are_dropped(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "e.test") as world:
        v, e = world.servers["v.test"], world.servers["e.test"]
        room_id = await e.create(EVE, {})
        event = e.parts.graph.event(timeline_of(e, room_id)[-1])
        assert event is not None
        assert await world.send("e.test", "v.test", [event.json]) == {"pdus": {}}
        assert rows_of(v) == {}
        # One that we left is known, so it has an answer; nothing comes of it all the same.
        public = await e.create(EVE, {"preset": "public_chat"})
        await v.join(VIC, public, via=["e.test"])
        await world.deliver()
        await v.leave(VIC, public)
        await world.deliver()
        before = rows_of(v)
        sent = await e.send(EVE, public, "m.room.message", {})
        event = e.parts.graph.event(sent)
        assert event is not None
        assert await world.send("e.test", "v.test", [event.json]) == {"pdus": {sent: {}}}
        assert rows_of(v) == before


async def test_a_full_inbox_refuses_before_anything_is_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene_of(tmp_path) as scene:
        pdu, good = scene.good()
        monkeypatch.setattr(transactions, "MAX_INBOX", 0)
        with pytest.raises(MatrixError) as refused:
            await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]})
        assert (refused.value.status, refused.value.errcode) == (429, "M_LIMIT_EXCEEDED")
        monkeypatch.undo()
        answer = await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]})
        assert answer == {"pdus": {good: {}}}


async def test_one_server_can_not_fill_the_inbox_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MAX_INBOX_OF_SERVER", 5)
    async with scene_of(tmp_path) as scene:
        scene.answer_honestly({})
        orphans = [scene.good(prev=[f"$nowhere{n}"])[0] for n in range(5)]
        await scene.world.send("e.test", "v.test", orphans)
        assert len(inbox_of(scene.victim)) == 5
        pdu, good = scene.good()
        with pytest.raises(MatrixError) as refused:
            await scene.victim.transactions.receive("e.test", "t", {"pdus": [pdu]})
        assert refused.value.status == 429
        assert await scene.world.send("h.test", "v.test", [pdu]) == {"pdus": {good: {}}}


async def test_a_room_keeps_no_more_than_so_many_deferred_pdus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "MAX_DEFERRED", 3)
    async with scene_of(tmp_path) as scene:
        scene.answer_honestly({})
        orphans = [scene.good(prev=[f"$nowhere{n}"])[0] for n in range(5)]
        await scene.world.send("e.test", "v.test", orphans)
        assert len(inbox_of(scene.victim)) == 3
        pdu, good = scene.good()
        await scene.world.send("e.test", "v.test", [pdu])
        found = stored(scene.victim, good)
        assert found is not None
        assert not found.outlier
