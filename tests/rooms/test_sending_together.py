# SPDX-License-Identifier: Apache-2.0
"""Messages that wait for the same room are written by one commit, and each is what it would be alone."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from minihs.matrix.auth_rules import check_auth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event
from minihs.rooms import compose
from minihs.rooms.batch import Batch
from minihs.rooms.entry import ClientTxn, Entry
from minihs.rooms.service import Rooms
from minihs.rooms.tasks import MAX_TOGETHER
from minihs.store.writer import Tx
from tests.rooms.world import World, state_of, timeline_of, worlds

ALICE, ADA, STRANGER = "@alice:a.test", "@ada:a.test", "@stranger:a.test"


@dataclass
class Hall:
    """A room of two on one server, and what becomes of the requests that were made."""

    world: World
    room_id: str
    outcomes: dict[object, object] = field(default_factory=dict)
    commits: int = 0

    @property
    def a(self) -> Rooms:
        return self.world.servers["a.test"]

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[trio.Nursery]:
        """Requests are made in here, in the order of their start; they are dealt with after it."""
        release = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.a.parts.tasks.run, self.room_id, release.wait)
            await trio.testing.wait_all_tasks_blocked()
            yield nursery
            self.commits = 0
            release.set()

    async def ask(self, nursery: trio.Nursery, name: object, call: Callable[[], Awaitable[object]]) -> None:
        async def request() -> None:
            try:
                self.outcomes[name] = await call()
            except (MatrixError, sqlite3.Error) as error:
                self.outcomes[name] = error

        nursery.start_soon(request)
        await trio.testing.wait_all_tasks_blocked()

    async def say(
        self,
        nursery: trio.Nursery,
        name: object,
        sender: str = ALICE,
        *,
        txn: str | None = None,
        **content: Any,
    ) -> None:
        body: JsonObject = {"body": str(name), **content}
        made_by = None if txn is None else ClientTxn(sender, "D", "send", txn)
        await self.ask(
            nursery,
            name,
            lambda: self.a.sending.send(sender, self.room_id, "m.room.message", body, txn=made_by),
        )

    def event(self, name: object) -> Event:
        event = self.a.parts.graph.event(str(self.outcomes[name]))
        assert event is not None
        return event

    def error(self, name: object) -> MatrixError:
        error = self.outcomes[name]
        assert isinstance(error, MatrixError)
        return error

    def errcode(self, name: object) -> str:
        return self.error(name).errcode

    def bodies(self) -> list[object]:
        """Of all messages, in the order of the timeline."""
        events = [self.a.parts.graph.event(event_id) for event_id in timeline_of(self.a, self.room_id)]
        return [event.content["body"] for event in events if event and event.type == "m.room.message"]


@asynccontextmanager
async def halls(tmp_path: Path, version: str = "12") -> AsyncIterator[Hall]:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat", "room_version": version})
        await a.join(ADA, room_id)
        hall = Hall(world, room_id)

        def count() -> None:
            hall.commits += 1

        a.parts.db.on_every_commit(count)
        yield hall


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_they_share_a_commit_and_follow_each_other_in_the_order_of_asking(
    tmp_path: Path, version: str
) -> None:
    async with halls(tmp_path, version) as hall:
        tips = set(hall.a.parts.head(hall.room_id).tips)
        async with hall.busy() as nursery:
            for number in range(5):
                await hall.say(nursery, number, [ALICE, ADA][number % 2])
        assert hall.commits == 1
        for number in range(5):
            event = hall.event(number)
            assert set(event.prev_events) == tips
            assert event.sender == [ALICE, ADA][number % 2]
            tips = {event.event_id}
        assert hall.bodies() == ["0", "1", "2", "3", "4"]
        assert set(hall.a.parts.head(hall.room_id).tips) == tips
        # The next is built upon them, whether the head is the one in memory or that on disk.
        for _ in range(2):
            last = await hall.a.send(ALICE, hall.room_id, "m.room.message", {})
            following = hall.a.parts.graph.event(last)
            assert following is not None
            assert set(following.prev_events) == tips
            tips = {last}
            await hall.world.restart("a.test")


async def test_so_many_at_a_time(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        async with hall.busy() as nursery:
            for number in range(MAX_TOGETHER + 1):
                await hall.say(nursery, number)
        assert hall.commits == 2
        assert hall.bodies() == [str(number) for number in range(MAX_TOGETHER + 1)]


async def test_what_is_wrong_with_one_is_its_senders_to_hear_and_nobody_elses(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        levels = hall.a.parts.graph.event(state_of(hall.a, hall.room_id)["m.room.power_levels", ""])
        assert levels is not None
        events = {**levels.content["events"], "m.loud": 50}
        await hall.a.send(
            ALICE, hall.room_id, "m.room.power_levels", {**levels.content, "events": events}, state_key=""
        )
        send, room_id = hall.a.sending.send, hall.room_id
        async with hall.busy() as nursery:
            await hall.say(nursery, "first")
            await hall.say(nursery, "not joined", STRANGER)
            await hall.say(nursery, "too large", more="x" * 70_000)
            await hall.ask(nursery, "not allowed", lambda: send(ADA, room_id, "m.loud", {}))
            await hall.ask(nursery, "allowed", lambda: send(ALICE, room_id, "m.loud", {}))
            await hall.say(nursery, "last", ADA)
        assert hall.commits == 1
        with pytest.raises(MatrixError) as alone:
            await send(STRANGER, room_id, "m.room.message", {})
        assert alone.value.errcode == hall.errcode("not joined") == "M_FORBIDDEN"
        assert alone.value.message == hall.error("not joined").message
        assert hall.errcode("too large") == "M_TOO_LARGE"
        assert hall.errcode("not allowed") == "M_FORBIDDEN"
        assert hall.bodies() == ["first", "last"]
        assert set(hall.event("allowed").prev_events) == {hall.event("first").event_id}
        assert set(hall.event("last").prev_events) == {hall.event("allowed").event_id}


async def test_a_request_that_is_repeated_while_the_first_waits_makes_no_second_event(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        async with hall.busy() as nursery:
            await hall.say(nursery, "once", txn="t")
            await hall.say(nursery, "of another", ADA, txn="t")
            await hall.say(nursery, "again", txn="t")
        async with hall.busy() as nursery:
            await hall.say(nursery, "later")
            await hall.say(nursery, "much later", txn="t")
        assert hall.outcomes["once"] == hall.outcomes["again"] == hall.outcomes["much later"]
        assert hall.bodies() == ["once", "of another", "later"]


async def test_a_failed_request_may_be_repeated(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        async with hall.busy() as nursery:
            await hall.say(nursery, "stranger", STRANGER, txn="t")
            await hall.say(nursery, "other")
            await hall.say(nursery, "stranger again", STRANGER, txn="t")
        assert hall.errcode("stranger") == hall.errcode("stranger again") == "M_FORBIDDEN"
        await hall.a.join(STRANGER, hall.room_id)
        async with hall.busy() as nursery:
            await hall.say(nursery, "now", STRANGER, txn="t")
            await hall.say(nursery, "another")
        assert hall.bodies() == ["other", "now", "another"]


async def test_of_two_equal_reactions_one_is_refused(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        target = await hall.a.send(ALICE, hall.room_id, "m.room.message", {})
        relation = {"m.relates_to": {"rel_type": "m.annotation", "event_id": target, "key": "+1"}}
        async with hall.busy() as nursery:
            for number in range(2):
                await hall.ask(
                    nursery,
                    number,
                    lambda: hall.a.send(ADA, hall.room_id, "m.reaction", relation),
                )
        assert isinstance(hall.outcomes[0], str)
        assert hall.errcode(1) == "M_DUPLICATE_ANNOTATION"


async def test_nothing_overtakes_what_changes_the_room(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        async with hall.busy() as nursery:
            await hall.say(nursery, "before", ADA)
            await hall.say(nursery, "and")
            await hall.ask(nursery, "kick", lambda: hall.a.kick(ALICE, hall.room_id, ADA))
            await hall.say(nursery, "after", ADA)
            await hall.say(nursery, "then")
        assert hall.bodies() == ["before", "and", "then"]
        assert hall.errcode("after") == "M_FORBIDDEN"
        assert hall.commits == 3


async def test_the_first_after_a_start_need_no_head_in_memory(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        await hall.world.restart("a.test")
        async with hall.busy() as nursery:
            await hall.say(nursery, "not joined", STRANGER)
            await hall.say(nursery, "one")
            await hall.say(nursery, "two", ADA)
        assert hall.errcode("not joined") == "M_FORBIDDEN"
        assert hall.bodies() == ["one", "two"]


async def test_a_commit_that_fails_leaves_nothing_of_any_and_the_room_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with halls(tmp_path) as hall:

        def full(*_args: object, **_more: object) -> object:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Batch, "_write", full)
            async with hall.busy() as nursery:
                await hall.say(nursery, "one", txn="t")
                await hall.say(nursery, "two", ADA)
        failures = [hall.outcomes[name] for name in ("one", "two")]
        assert all(isinstance(failure, sqlite3.OperationalError) for failure in failures)
        assert failures[0] is not failures[1]  # raised in two tasks, one would mix up their tracebacks
        assert hall.bodies() == []
        async with hall.busy() as nursery:
            await hall.say(nursery, "one again", txn="t")
            await hall.say(nursery, "two again", ADA)
        assert hall.bodies() == ["one again", "two again"]


async def test_who_hangs_up_meanwhile_has_said_it_all_the_same(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        async with hall.busy() as nursery:
            await hall.say(nursery, "one")
            with trio.move_on_after(0) as scope:
                await hall.a.send(ADA, hall.room_id, "m.room.message", {"body": "never asked"})
            assert scope.cancelled_caught
            async with trio.open_nursery() as inner:
                await hall.say(inner, "gone", ADA)
                inner.cancel_scope.cancel()
            await hall.say(nursery, "three")
        assert hall.bodies() == ["one", "gone", "three"]


async def test_the_first_is_written_at_once_and_those_that_come_meanwhile_after_it(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(hall.say, nursery, number)
        assert hall.commits == 2
        assert sorted(hall.bodies()) == ["0", "1", "2", "3", "4"]
        assert not hall.a.parts.tasks.is_busy(hall.room_id)


async def test_what_a_state_allows_is_found_out_once_for_all_messages_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def check(event: Event, state: Any) -> None:
        checked.append(event.type)
        check_auth(event, state)

    monkeypatch.setattr(compose, "check_auth", check)
    async with halls(tmp_path) as hall:

        async def say(sender: str, type: str = "m.room.message") -> None:
            await hall.a.send(sender, hall.room_id, type, {"body": "x"})

        checked.clear()
        for _ in range(3):
            await say(ALICE)
        assert checked == ["m.room.message"]
        await say(ADA)
        await say(ALICE, "m.sticker")
        assert checked == ["m.room.message", "m.room.message", "m.sticker"]
        levels = {"events": {"m.room.message": 50}}
        await hall.a.send(ALICE, hall.room_id, "m.room.power_levels", levels, state_key="")
        with pytest.raises(MatrixError, match="M_FORBIDDEN"):
            await say(ADA)
        await say(ALICE)


async def test_what_was_begun_is_done_to_its_end_whoever_hangs_up(tmp_path: Path) -> None:
    async with halls(tmp_path) as hall:
        done: list[object] = []

        async def note(wishes: Sequence[str]) -> list[str | Exception]:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            done.extend(wishes)
            return list(wishes)

        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                await hall.a.parts.tasks.run_together(hall.room_id, note, "said")

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                scope.cancel()
                await hall.a.parts.tasks.run_together(hall.room_id, note, "after")
        assert done == ["said", "after"]


async def test_a_message_that_makes_the_commit_fail_is_its_senders_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with halls(tmp_path) as hall:
        write = Batch._write_rest

        def choke(self: Batch, tx: Tx, entry: Entry, *args: Any) -> None:
            if entry.event.content["body"] == "poison":
                raise sqlite3.InterfaceError("that can't be stored")
            write(self, tx, entry, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Batch, "_write_rest", choke)
            async with hall.busy() as nursery:
                await hall.say(nursery, "one", txn="t")
                await hall.say(nursery, "poison", ADA)
                await hall.say(nursery, "two", ADA)
                await hall.say(nursery, "one again", txn="t")
        assert isinstance(hall.outcomes["poison"], sqlite3.InterfaceError)
        assert hall.bodies() == ["one", "two"]
        assert hall.outcomes["one"] == hall.outcomes["one again"]
        assert hall.event("two").prev_events == (hall.outcomes["one"],)


@pytest.mark.parametrize("version", ["10", "11"])
async def test_what_is_sent_after_a_redaction_is_judged_after_it(tmp_path: Path, version: str) -> None:
    """Redactions have a field of their own only before room version 11."""
    async with halls(tmp_path, version) as hall:
        root = await hall.a.send(ALICE, hall.room_id, "m.room.message", {"body": "root"})
        in_thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
        reply = await hall.a.send(ALICE, hall.room_id, "m.room.message", {"body": "reply", **in_thread})
        on_reply = {"rel_type": "m.thread", "event_id": reply}
        async with hall.busy() as nursery:
            await hall.say(nursery, "too early", **{"m.relates_to": on_reply})
            await hall.ask(
                nursery, "redaction", lambda: hall.a.redact(ALICE, hall.room_id, reply, {}, None, None)
            )
            await hall.say(nursery, "late", **{"m.relates_to": on_reply})
        assert hall.errcode("too early") == "M_UNKNOWN"
        assert isinstance(hall.outcomes["late"], str)
