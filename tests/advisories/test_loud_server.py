# SPDX-License-Identifier: Apache-2.0
"""A server that sends without end (many have been slowed down by one, without a number): the others hardly
notice.

Counted, not timed: how much of the loud one's is done between the sending of a quiet one's and its being
done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.event import Event
from minihs.rooms import at_once, receive, transactions, turns
from minihs.rooms.batch import Batch
from minihs.rooms.entry import Entry
from minihs.rooms.gaps import Defer, Gaps
from minihs.rooms.receive import Receiver
from minihs.rooms.turns import Turns
from minihs.store.events import Outcome
from minihs.store.inbox import Staged
from minihs.testing.clock import run_virtual
from tests.advisories.kit import V1, JsonObject, Siege, siege
from tests.rooms.world import by_the_inbox

QUIET = "quiet.test"


def transactions_full(at: Siege, count: int) -> list[JsonObject]:
    """Messages for so many transactions; of one each follows the one before, whichever comes first."""
    made: list[JsonObject] = []
    start = at.forger.tips
    for _ in range(count):
        last = start
        for _ in range(50):
            made.append(at.event(prev=last))
            last = [at.id_of(made[-1])]
    return made


def arrivals(at: Siege) -> list[str]:
    """Ids of timeline events of all rooms, in the order in which they were taken in."""
    rows = at.rooms.parts.db.read.execute(
        "SELECT i.event_id FROM events e JOIN event_ids i USING (event_nid) "
        "WHERE e.arrival IS NOT NULL AND e.arrival > 0 ORDER BY e.arrival"
    )
    return [row[0] for row in rows.fetchall()]


async def flood(loud: Siege, pdus: list[JsonObject]) -> None:
    """All at once, in transactions."""

    async def send(number: int, part: list[JsonObject]) -> None:
        status, _ = await loud.ask("PUT", f"{V1}/send/loud{number}", {"pdus": part})
        assert status == 200

    async with trio.open_nursery() as nursery:
        for start in range(0, len(pdus), 50):
            nursery.start_soon(send, start, pdus[start : start + 50])


async def overtaken(loud: Siege, quiet: Siege, pdus: list[JsonObject]) -> int:
    """How many of the loud one's PDUs, of which all are under way, come in before the quiet one's."""
    wanted = quiet.event()
    wanted_id, ids, before = quiet.id_of(wanted), {loud.id_of(pdu) for pdu in pdus}, 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, loud, pdus)
        while not ids & set(arrivals(loud)):
            await trio.lowlevel.checkpoint()
        before = len(ids & set(arrivals(loud)))
        status, answer = await quiet.ask("PUT", f"{V1}/send/quiet", {"pdus": [wanted]})
        assert (status, answer) == (200, {"pdus": {wanted_id: {}}})
    await loud.rest()
    assert loud.outcome(wanted_id) is Outcome.ACCEPTED
    order = arrivals(loud)
    assert set(order) >= ids
    return len(ids & set(order[: order.index(wanted_id)])) - before


async def test_in_another_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    take_one = Receiver._take_one

    async def take(self: Receiver, batch: Batch, item: Staged, *, gaps: bool) -> bool:
        taken.append(item.origin)
        return await take_one(self, batch, item, gaps=gaps)

    place_one = at_once._place_one

    def place(batch: Batch, event: Event, received_ts: int) -> bool:
        placed = place_one(batch, event, received_ts)
        if placed:
            taken.append(event.origin)
        return placed

    monkeypatch.setattr(Receiver, "_take_one", take)
    monkeypatch.setattr(at_once, "_place_one", place)
    async with siege(tmp_path) as loud:
        quiet = loud.another(QUIET)
        await quiet.enter(await loud.alice.create_room(preset="public_chat"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, loud, transactions_full(loud, 12))
            while len(taken) < 20:
                await trio.lowlevel.checkpoint()
            began = len(taken)
            for number in range(10):
                # Not by the network: nothing else happens while virtual time is waited for there.
                await loud.rooms.transactions.receive(QUIET, f"{number}", {"pdus": [quiet.event()]})
                while taken.count(QUIET) <= number:
                    await trio.lowlevel.checkpoint()
            assert taken[began:].count(loud.peer.name) <= 10  # of each time what was begun already
        await loud.rest()
        assert taken.count(loud.peer.name) == 600


async def test_in_the_same_room(tmp_path: Path) -> None:
    async with siege(tmp_path) as loud:
        quiet = loud.another(QUIET)
        await quiet.enter(loud.room)
        assert await overtaken(loud, quiet, transactions_full(loud, 12)) <= receive.BATCH_SIZE


async def test_what_comes_while_a_commit_gives_way_shares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with siege(tmp_path) as loud:
        quiet = loud.another(QUIET)
        await quiet.enter(loud.room)
        wanted = quiet.event()
        wanted_id = quiet.id_of(wanted)
        by_the_inbox(monkeypatch)
        commit, give_way = Batch.commit, Turns.give_way
        commits: list[list[str]] = []
        said: list[str] = []

        async def note(self: Batch) -> dict[str, int]:
            commits.append([entry.event.event_id for entry in self.entries])
            return await commit(self)

        async def say_something(
            self: Turns, account: str, started: float, room_id: str | None = None
        ) -> None:
            """When all of a batch have their places, and before its commit, the quiet one's comes."""
            if room_id is not None and not said:
                said.append(wanted_id)
                await loud.rooms.transactions.receive(QUIET, "quiet", {"pdus": [wanted]})
            await give_way(self, account, started, room_id)

        monkeypatch.setattr(Batch, "commit", note)
        monkeypatch.setattr(Turns, "give_way", say_something)
        await flood(loud, transactions_full(loud, 1))
        await loud.rest()
        (together,) = commits
        assert len(together) == receive.BATCH_SIZE + 1
        assert together[-1] == wanted_id
        assert loud.outcome(wanted_id) is Outcome.ACCEPTED
        assert loud.rooms.parts.db.read.execute("SELECT count(*) FROM inbox").fetchall() == [(0,)]


async def test_what_is_deferred_is_tried_once_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with siege(tmp_path) as loud:
        quiet = loud.another(QUIET)
        await quiet.enter(loud.room)
        wanted = quiet.event()
        wanted_id = quiet.id_of(wanted)
        by_the_inbox(monkeypatch)
        take, take_one = Gaps.take_new, Receiver._take_one
        tried: list[str] = []

        async def unsure(self: Gaps, batch: Batch, event: Event, *args: Any) -> None:
            """As in a room that is joined by a part of its state."""
            if event.event_id == wanted_id:
                tried.append(wanted_id)
                raise Defer("the members of the room")
            await take(self, batch, event, *args)

        async def then_comes(self: Receiver, batch: Batch, item: Staged, *, gaps: bool) -> bool:
            taken = await take_one(self, batch, item, gaps=gaps)
            if item.origin == loud.peer.name and wanted:
                await loud.rooms.transactions.receive(QUIET, "quiet", {"pdus": [wanted]})
                wanted.clear()
            return taken

        async def no_haste(*_args: object) -> None:
            """Nor is it tried again before that has come."""

        monkeypatch.setattr(Receiver, "_hasten", no_haste)
        monkeypatch.setattr(Gaps, "take_new", unsure)
        monkeypatch.setattr(Receiver, "_take_one", then_comes)
        await flood(loud, transactions_full(loud, 1))
        await trio.sleep(1)
        assert tried == [wanted_id]
        rows = loud.rooms.parts.db.read.execute("SELECT event_id, attempts FROM inbox").fetchall()
        assert rows == [(wanted_id, 1)]


async def test_a_poison_that_goes_first_is_nobody_elses_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with siege(tmp_path) as loud:
        loud.loud = True
        quiet = loud.another(QUIET)
        await quiet.enter(loud.room)
        poison, pdus = quiet.event(), transactions_full(loud, 3)
        poison_id, ids = quiet.id_of(poison), {loud.id_of(pdu) for pdu in pdus}
        accept = Batch.accept
        blamed: list[str] = []

        def crash(self: Batch, entry: Entry) -> None:
            if entry.event.event_id == poison_id:
                blamed.append(poison_id)
                raise RuntimeError("poison")
            accept(self, entry)

        monkeypatch.setattr(Batch, "accept", crash)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, loud, pdus)
            while not ids & set(arrivals(loud)):
                await trio.lowlevel.checkpoint()
            await loud.rooms.transactions.receive(QUIET, "1", {"pdus": [poison]})
        await trio.sleep(600)
        assert set(arrivals(loud)) >= ids
        assert len(blamed) <= 2 + receive.MAX_CRASHES  # twice among others, then by itself until set aside
        rows = loud.rooms.parts.db.read.execute("SELECT event_id, kind FROM inbox").fetchall()
        assert rows == [(poison_id, 2)]


async def test_messages_to_devices(tmp_path: Path) -> None:
    async with siege(tmp_path) as loud:
        quiet = loud.another(QUIET)
        await quiet.enter(loud.room)
        device = loud.alice.device_id

        def edu(at: Siege, number: int) -> JsonObject:
            messages = {loud.alice.user_id: {device: {"n": number}}}
            content = {"sender": at.user, "type": "x.y", "message_id": f"m{number}", "messages": messages}
            return {"edu_type": "m.direct_to_device", "content": content}

        async def flood(start: int) -> None:
            edus = [edu(loud, number) for number in range(start, start + 100)]
            status, _ = await loud.ask("PUT", f"{V1}/send/loud{start}", {"pdus": [], "edus": edus})
            assert status == 200

        async with trio.open_nursery() as nursery:
            for start in range(0, 2000, 100):
                nursery.start_soon(flood, start)
            await trio.lowlevel.checkpoint()
            await quiet.ask("PUT", f"{V1}/send/quiet", {"pdus": [], "edus": [edu(quiet, 9999)]})
        await trio.sleep(10)
        senders: list[str] = []
        while len(senders) < 2001:
            events = (await loud.alice.sync())["to_device"]["events"]
            assert events
            senders += [event["sender"] for event in events]
        # Its turn comes with the next hundred after those that were being dealt with.
        assert senders.index(quiet.user) < 1000
        numbers = [sender for sender in senders if sender == loud.user]
        assert len(numbers) == 2000


async def test_it_has_no_more_than_its_share_of_the_inbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MAX_INBOX_OF_SERVER", 60)
    async with siege(tmp_path) as loud:
        quiet = loud.another(QUIET)
        await quiet.enter(loud.room)
        orphans = [loud.event(prev=["$" + f"{n}".rjust(43, "x")]) for n in range(100)]
        for verb in ("state_ids", "event"):
            loud.peer.on("GET", f"{V1}/{verb}/", {"errcode": "M_NOT_FOUND"})
        statuses = [(await loud.send_body({"pdus": orphans[start : start + 30]}))[0] for start in (0, 30, 60)]
        assert statuses == [200, 200, 429]
        status, answer = await loud.send_body({"pdus": orphans[60:61]})
        assert (status, answer["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        assert answer["retry_after_ms"] > 0
        pdu = quiet.event()
        assert await quiet.send(pdu) == {quiet.id_of(pdu): {}}


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.0), (0.004, 0.0), (0.2, 0.2), (30.0, turns.MAX_REST)])
def test_a_room_that_is_dear_to_work_on_rests_as_long_as_it_worked(took: float, rest: float) -> None:
    async def work() -> Any:
        started = trio.current_time()
        await trio.sleep(took)
        ended = trio.current_time()
        await turns.Turns().give_way("loud.test", started)
        return trio.current_time() - ended

    assert run_virtual(work) == pytest.approx(rest, abs=1e-6)
