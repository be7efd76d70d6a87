# SPDX-License-Identifier: Apache-2.0
"""What other servers are told of a room's past: only if they are in it, and no more than they may see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError
from minihs.matrix.hashes import event_id_of
from minihs.rooms.service import Rooms
from minihs.store import history
from minihs.store.database import Reader
from minihs.store.events import Outcome
from tests.rooms.forge import Forger, rows_of
from tests.rooms.hostile_paths import EVE, scenes
from tests.rooms.wires import copied
from tests.rooms.world import state_of, timeline_of, worlds

type JsonObject = dict[str, Any]
type Question = Callable[[Rooms, str, str, str], Any]

ALICE, BOB = "@alice:a.test", "@bob:b.test"

QUESTIONS: dict[str, Question] = {
    "event": lambda r, origin, room_id, event_id: r.serving.event(origin, event_id),
    "state": lambda r, origin, room_id, event_id: r.serving.state(origin, room_id, event_id),
    "state_ids": lambda r, origin, room_id, event_id: r.serving.state_ids(origin, room_id, event_id),
    "event_auth": lambda r, origin, room_id, event_id: r.serving.event_auth(origin, room_id, event_id),
    "backfill": lambda r, origin, room_id, event_id: r.serving.backfill(origin, room_id, [event_id], 10),
    "missing_events": lambda r, origin, room_id, event_id: r.serving.missing_events(
        origin, room_id, earliest=[], latest=[event_id], limit=10, min_depth=0
    ),
    "nearest": lambda r, origin, room_id, event_id: r.serving.nearest(origin, room_id, 0, forwards=True),
    "extremities": lambda r, origin, room_id, event_id: r.serving.extremities(origin, room_id),
}


async def ask(question: Question, rooms: Rooms, origin: str, room_id: str, event_id: str) -> Any:
    answer = question(rooms, origin, room_id, event_id)
    return await answer if isinstance(answer, Awaitable) else answer


@pytest.mark.parametrize("name", QUESTIONS)
async def test_who_is_not_in_the_room_is_told_nothing(tmp_path: Path, name: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        event_id = timeline_of(a, room_id)[-1]
        with pytest.raises(MatrixError) as refused:
            await ask(QUESTIONS[name], a, "b.test", room_id, event_id)
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        await ask(QUESTIONS[name], a, "b.test", room_id, event_id)
        await b.leave(BOB, room_id)
        await world.deliver()
        with pytest.raises(MatrixError) as refused:
            await ask(QUESTIONS[name], a, "b.test", room_id, event_id)
        assert refused.value.status == 403
        # and we tell nothing of a room that we left, or never knew
        for unknown in (room_id, "!nowhere:b.test"):
            with pytest.raises(MatrixError) as refused:
                await ask(QUESTIONS[name], b, "a.test", unknown, event_id)
            assert refused.value.status == 404


@pytest.mark.parametrize("name", ["event", "state", "state_ids", "event_auth"])
async def test_rejected_unknown_and_foreign_events_are_not_found(tmp_path: Path, name: str) -> None:
    async with scenes(tmp_path, "12") as scene:
        bad = scene.forger.seal(scene.forger.draft("m.room.topic", EVE, {"topic": "x"}, ""))
        await scene.world.send("e.test", "v.test", [bad])
        ids = [scene.forger.id_of(bad), "$unknown"]
        if name != "event":
            ids += sorted(scene.victim.parts.head(scene.other_room).tips)
        for event_id in ids:
            with pytest.raises(MatrixError) as refused:
                await ask(QUESTIONS[name], scene.victim, "e.test", scene.room_id, event_id)
            assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("name", ["state", "state_ids"])
async def test_the_state_at_an_event_without_a_place_is_not_known(tmp_path: Path, name: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat", "name": "Hall"})
        named = state_of(a, room_id)["m.room.name", ""]
        await b.join(BOB, room_id, via=["a.test"])
        with pytest.raises(MatrixError) as refused:
            await ask(QUESTIONS[name], b, "a.test", room_id, named)
        assert refused.value.status == 404
        assert b.serving.event("a.test", named)["content"] == {"name": "Hall"}


async def test_what_the_asker_may_not_see_is_redacted(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        topic = await a.send(ALICE, room_id, "m.room.topic", {"topic": "secret"}, state_key="")
        levels = state_of(a, room_id)["m.room.power_levels", ""]
        world.clock.ms += 1000
        secret = await a.send(ALICE, room_id, "m.room.message", {"body": "secret"})
        world.clock.ms += 1000
        shown = await a.send(ALICE, room_id, "m.room.message", {"body": "shown"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        hidden = {item.nid for item in map(a.parts.graph.stored, (secret, topic, levels)) if item is not None}
        kept = a.parts.graph.event(secret)
        assert kept is not None
        ts = kept.origin_server_ts
        assert (await a.serving.nearest("b.test", room_id, ts, forwards=True))[0] == secret

        def visible(db: Reader, host: str, nids: Sequence[int]) -> set[int]:
            return set(nids) - hidden

        a.serving._visible_to = visible
        assert a.serving.event("b.test", topic)["content"] == {}
        assert a.serving.event("b.test", secret)["content"] == {}
        assert a.serving.event("b.test", shown)["content"] == {"body": "shown"}
        assert (await a.serving.nearest("b.test", room_id, ts, forwards=True))[0] == shown
        tips = sorted(a.parts.head(room_id).tips)
        for answer in (
            await a.serving.backfill("b.test", room_id, tips, 3),
            await a.serving.missing_events("b.test", room_id, earliest=[], latest=tips, limit=3, min_depth=0),
        ):
            bodies = [canonical.loads(each)["content"].get("body") for each in answer]
            assert "shown" in bodies
            assert "secret" not in bodies
            assert None in bodies
        # State and what it rests on are given whole, or nobody could judge by them.
        whole = {
            name: canonical.loads(b"".join([part async for part in answer.stream()]))
            for name, answer in {
                "state": await a.serving.state("b.test", room_id, shown),
                "ids": await a.serving.state_ids("b.test", room_id, shown),
                "chain": await a.serving.event_auth("b.test", room_id, shown),
            }.items()
        }
        contents = {pdu["type"]: pdu["content"] for pdu in whole["state"]["pdus"]}
        assert contents["m.room.topic"] == {"topic": "secret"}
        assert topic in whole["ids"]["pdu_ids"]
        chain = {pdu["type"]: pdu["content"] for pdu in whole["chain"]["auth_chain"]}
        assert "invite" in chain["m.room.power_levels"]


async def test_missing_events_are_those_between_and_bounded(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        sent = [await a.send(ALICE, room_id, "m.room.message", {"n": n}) for n in range(30)]
        version = a.parts.head(room_id).version

        async def between(earliest: str, latest: str, limit: int, min_depth: int = 0) -> list[str]:
            found = await a.serving.missing_events(
                "b.test", room_id, earliest=[earliest], latest=[latest], limit=limit, min_depth=min_depth
            )
            return [event_id_of(canonical.loads(each), version) for each in found]

        assert await between(sent[3], sent[7], 10) == sent[4:7]
        assert await between(sent[3], sent[7], 2) == sent[5:7]
        assert await between(sent[0], sent[29], 1000) == sent[9:29]
        assert await between(sent[0], sent[29], -5) == []
        assert await between(sent[0], "$unknown", 10) == []
        depth = a.parts.graph.event(sent[26])
        assert depth is not None
        assert await between(sent[0], sent[29], 1000, depth.depth) == sent[26:29]


async def test_of_history_at_most_a_hundred_events_are_given(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        for number in range(105):
            await a.send(ALICE, room_id, "m.room.message", {"n": number})
        tips = sorted(a.parts.head(room_id).tips)
        for limit, given in ((3, 3), (100, 100), (101, 100), (10**6, 100), (0, 0), (-1, 0)):
            assert len(await a.serving.backfill("b.test", room_id, tips, limit)) == given, limit


async def test_of_two_branches_the_later_events_are_given_first(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        start = scene.forger.tips
        ends: list[str] = []
        for branch in ("left", "right"):
            prev = start
            for number in range(3):
                draft = scene.forger.draft("m.room.message", EVE, {"body": f"{branch} {number}"}, prev=prev)
                pdu = scene.forger.seal({**draft, "depth": 1000 + number})
                await scene.world.send("e.test", "v.test", [pdu])
                prev = [scene.forger.id_of(pdu)]
            ends += prev
        found = await scene.victim.serving.backfill("e.test", scene.room_id, ends, 4)
        bodies = [canonical.loads(each)["content"]["body"] for each in found]
        assert {body[-1] for body in bodies[:2]} == {"2"}
        assert {body[-1] for body in bodies[2:]} == {"1"}


async def test_the_nearest_event_in_time(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        world.clock.ms += 10_000
        sent = await a.send(ALICE, room_id, "m.room.message", {})
        event = a.parts.graph.event(sent)
        assert event is not None
        ts = event.origin_server_ts
        assert await a.serving.nearest("b.test", room_id, ts - 5, forwards=True) == (sent, ts)
        assert await a.serving.nearest("b.test", room_id, ts + 5, forwards=False) == (sent, ts)
        with pytest.raises(MatrixError) as refused:
            await a.serving.nearest("b.test", room_id, ts + 5, forwards=True)
        assert refused.value.status == 404


async def test_how_large_a_room_is_strangers_learn_of_open_rooms_only(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        readable = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
        for request, is_open in (
            ({"preset": "public_chat"}, True),
            ({"preset": "private_chat", "initial_state": [readable]}, True),
            ({"preset": "private_chat"}, False),
        ):
            room_id = await a.create(ALICE, dict(request))
            assert a.serving.complexity("a.test", room_id) > 0
            if is_open:
                assert a.serving.complexity("b.test", room_id) > 0
            else:
                with pytest.raises(MatrixError) as refused:
                    a.serving.complexity("b.test", room_id)
                assert refused.value.status == 404
        with pytest.raises(MatrixError):
            a.serving.complexity("b.test", "!unknown:a.test")


async def test_everything_that_is_told_can_be_sent(tmp_path: Path) -> None:
    """What was accepted has a form on the wire, whatever is in it."""
    async with scenes(tmp_path, "2") as scene:
        odd: JsonObject = {"float": 1.5e300, "int": 2**200, "text": "\ud7ff\u2028\0", "deep": [[[[[{}]]]]]}
        pdu = scene.forger.seal(scene.forger.draft("m.room.message", EVE, odd))
        event_id = scene.forger.id_of(pdu)
        await scene.world.send("e.test", "v.test", [pdu])
        told = scene.victim.serving.event("e.test", event_id)
        assert copied(told)["content"]["text"] == odd["text"]
        assert canonical.loads(canonical.dumps(told))["content"] == odd
        for answer in (
            await scene.victim.serving.backfill("e.test", scene.room_id, [event_id], 5),
            [canonical.dumps(told)],
        ):
            assert any(canonical.loads(each)["content"] == odd for each in answer)


async def test_history_goes_on_behind_rejected_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        said = await a.send(ALICE, room_id, "m.room.message", {"body": "before"})
        forger = Forger(world, "b.test", "a.test", room_id)
        chain: list[str] = [said]
        for n in range(3):
            topic = forger.draft("m.room.topic", BOB, {"n": n}, "", prev=chain[-1:])
            await world.send("b.test", "a.test", [forger.seal(topic)])
            chain.append(forger.id_of(forger.seal(topic)))
        after = forger.seal(forger.draft("m.room.message", BOB, {"body": "after"}, prev=chain[-1:]))
        await world.send("b.test", "a.test", [after])
        assert [rows_of(a)[each] for each in chain[1:]] == [Outcome.REJECTED] * 3
        assert set(a.parts.head(room_id).tips) == {forger.id_of(after)}

        async def given() -> tuple[list[str], list[str]]:
            past = await a.serving.backfill("b.test", room_id, [forger.id_of(after)], 2)
            missing = await a.serving.missing_events(
                "b.test", room_id, earliest=[], latest=[forger.id_of(after)], limit=1, min_depth=0
            )
            return [
                [canonical.loads(each)["content"].get("body") for each in answer]
                for answer in (past, missing)
            ]

        assert await given() == [["after", "before"], ["before"]]
        monkeypatch.setattr(history, "MAX_PASSED", 3)
        assert await given() == [["after", "before"], ["before"]]
        monkeypatch.setattr(history, "MAX_PASSED", 2)
        assert await given() == [["after"], []]
