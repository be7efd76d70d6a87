# SPDX-License-Identifier: Apache-2.0
"""What was just written is not read again, and nothing is shown as it was before it changed."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from minihs.matrix.event import Event
from minihs.store import events, new_events, timeline
from minihs.store.database import Tx
from minihs.store.reader import ReadConnection
from minihs.store.timeline import EventRow
from minihs.store.writer import Job
from minihs.sync import bodies as bodies_module
from minihs.sync.bodies import CONTENT_FACTOR, OVERHEAD, Bodies
from tests.sync.world import ALICE, BOB, World, bodies


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The events whose JSON was read from the disk."""
    nids: list[int] = []
    original = timeline.bodies

    def noted(db: Any, wanted: Any) -> Any:
        nids.extend(wanted)
        return original(db, wanted)

    monkeypatch.setattr(timeline, "bodies", noted)
    return nids


def row_of(world: World, room: str, event_id: str) -> EventRow:
    row = timeline.by_event_id(world.db.read, world.room_nid(room), event_id)
    assert row is not None
    return row


async def room_with_bob(world: World) -> tuple[str, str]:
    """And where Bob's /sync goes on."""
    room = await world.room(ALICE)
    await world.rooms.join(BOB, room, via=[])
    return room, (await world.sync(BOB))["next_batch"]


@pytest.mark.parametrize("federated", [False, True])
async def test_what_was_just_written_is_told_without_reading_it(
    world: World, read: list[int], federated: bool
) -> None:
    room, since = await room_with_bob(world)
    if federated:
        far = "@far:far.test"
        await world.member(far, room, "join")
        since = (await world.sync(BOB, since))["next_batch"]
        sent = await world.hear(far, room, "news")
    else:
        sent = await world.say(ALICE, room, "news")
    read.clear()
    joined = (await world.sync(BOB, since))["rooms"]["join"][room]
    assert bodies(joined["timeline"]) == ["news"]
    assert row_of(world, room, sent).nid not in read


async def test_a_commit_later_it_is_read_from_the_disk(world: World, read: list[int]) -> None:
    room, since = await room_with_bob(world)
    first = await world.say(ALICE, room, "first")
    second = await world.say(ALICE, room, "second")
    read.clear()
    joined = (await world.sync(BOB, since))["rooms"]["join"][room]
    assert bodies(joined["timeline"]) == ["first", "second"]
    assert row_of(world, room, first).nid in read
    assert row_of(world, room, second).nid not in read


@pytest.mark.parametrize("spare", [0, 1])
async def test_large_events_are_not_handed_over(
    world: World, read: list[int], monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    room, since = await room_with_bob(world)
    told: list[Event | None] = []
    world.db.on_events(lambda written: told.extend(written.values()))
    await world.say(ALICE, room, "as long as the next")
    assert told[-1] is not None
    size = len(new_events.canonical.dumps(told[-1].json))
    monkeypatch.setattr(new_events, "MAX_TOLD_BYTES", size - 1 + spare)
    since = (await world.sync(BOB, since))["next_batch"]
    sent = await world.say(ALICE, room, "as long as the last")
    read.clear()
    joined = (await world.sync(BOB, since))["rooms"]["join"][room]
    assert bodies(joined["timeline"]) == ["as long as the last"]
    assert (row_of(world, room, sent).nid in read) is (spare == 0)


async def test_what_is_not_for_the_timeline_is_not_handed_over(world: World) -> None:
    room, _ = await room_with_bob(world)
    told: list[Event | None] = []
    world.db.on_events(lambda written: told.extend(written.values()))
    levels = await world.receive("@far:far.test", room, "m.room.topic", {"topic": "not a member"}, "")
    assert row_of(world, room, levels).outcome != 0
    assert told == []


async def test_after_a_failed_commit_nothing_is_handed_over(world: World) -> None:
    room, _ = await room_with_bob(world)
    sent = await world.say(ALICE, room, "here")
    nid = row_of(world, room, sent).nid
    event = world.rooms.parts.graph.event(sent)
    assert event is not None
    told: list[Event | None] = []
    world.db.on_events(lambda written: told.extend(written.values()))

    def fail(tx: Tx) -> None:
        tx.events[nid] = event
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await world.db.write(fail)
    assert told == []
    # nor if the closure was carried out and the disk was full at the COMMIT
    job = Job(lambda tx: None)
    job.events = {nid: event}
    job.fail(OSError())
    assert job.events == {}


async def put_redacted(world: World, nid: int, whole: Event) -> None:
    """As if it had come so."""
    packed = events.pack(events.canonical.dumps(whole.redacted().json))
    await world.db.write(
        lambda tx: tx.execute("UPDATE event_json SET json = ? WHERE event_nid = ?", (packed, nid))
    )


async def test_an_event_that_is_completed_is_shown_whole(world: World) -> None:
    room, since = await room_with_bob(world)
    sent = await world.say(ALICE, room, "whole")
    row, whole = row_of(world, room, sent), world.rooms.parts.graph.event(sent)
    assert whole is not None

    await put_redacted(world, row.nid, whole)
    await world.say(ALICE, room, "another")  # so that it is read
    (first, _) = (await world.sync(BOB, since))["rooms"]["join"][room]["timeline"]["events"]
    assert first["content"] == {}
    await world.db.write(lambda tx: events.complete(tx, whole))
    (first, _) = (await world.sync(BOB, since))["rooms"]["join"][room]["timeline"]["events"]
    assert first["content"]["body"] == "whole"


async def test_a_scan_that_began_earlier_does_not_bring_back_what_was(world: World) -> None:
    room, _ = await room_with_bob(world)
    sent = await world.say(ALICE, room, "whole")
    row, whole = row_of(world, room, sent), world.rooms.parts.graph.event(sent)
    assert whole is not None

    await put_redacted(world, row.nid, whole)
    keeping = Bodies()
    world.db.on_events(keeping.take_over)
    path = world.db.path
    with closing(ReadConnection(path, budget=10**9, cache_kib=1024, state_cache=1 << 20)) as scan:
        scan.execute("BEGIN")
        assert timeline.bodies(scan, [row.nid])[row.nid][1]["content"] == {}
        await world.db.write(lambda tx: events.complete(tx, whole))
        assert keeping.get(scan, [row])[row.nid].pdu["content"] == {}
        assert keeping.get(world.db.read, [row])[row.nid].pdu["content"]["body"] == "whole"
        # What the loop read since is for all.
        assert keeping.get(scan, [row])[row.nid].pdu["content"]["body"] == "whole"


def test_so_many_changes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "MAX_CHANGED", 2)
    keeping = Bodies()
    for nid in (1, 2, 1, 3):
        keeping.take_over({nid: None})
    assert list(keeping._changed) == [1, 3]


async def test_a_redacted_event_is_shown_redacted_at_once(world: World) -> None:
    room, since = await room_with_bob(world)
    sent = await world.say(ALICE, room, "secret")
    await world.sync(BOB, since)
    await world.rooms.send(ALICE, room, "m.room.redaction", {"redacts": sent})
    timeline_now = (await world.sync(BOB, since))["rooms"]["join"][room]["timeline"]["events"]
    assert timeline_now[0]["content"] == {}


async def test_an_event_that_was_redacted_by_the_commit_that_wrote_it_is_read(
    world: World, read: list[int]
) -> None:
    room, _ = await room_with_bob(world)
    sent = await world.say(ALICE, room, "secret")
    row, whole = row_of(world, room, sent), world.rooms.parts.graph.event(sent)
    assert whole is not None
    keeping = Bodies()
    keeping.take_over({row.nid: whole})
    read.clear()
    assert keeping.get(world.db.read, [row])[row.nid].pdu["content"]["body"] == "secret"
    assert read == []
    keeping.get(world.db.read, [row._replace(redacted_by=1)])
    assert read == [row.nid]


async def test_only_so_many_bytes_are_kept(
    world: World, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, _ = await room_with_bob(world)
    sent = [await world.say(ALICE, room, f"message {n}") for n in range(4)]
    rows = [row_of(world, room, event_id) for event_id in sent]
    content = bodies_module.canonical.dumps({"msgtype": "m.text", "body": "message 0"})
    one = CONTENT_FACTOR * len(content) + OVERHEAD
    for spare, kept in ((0, True), (-1, False)):
        monkeypatch.setattr(bodies_module, "BODIES_BYTES", 3 * one + spare)
        keeping = Bodies()
        for row in rows[:3]:
            keeping.get(world.db.read, [row])
        read.clear()
        keeping.get(world.db.read, [rows[0]])
        assert (read == []) is kept
