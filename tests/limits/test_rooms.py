# SPDX-License-Identifier: Apache-2.0
"""The bounds of events and rooms, each with one more than is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix import ids
from minihs.matrix.event import Event
from minihs.matrix.event_format import MAX_AUTH_EVENTS, MAX_PREV_EVENTS
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms import backfill, catch_up, graph, handshake, receive, serving, state, stripped, third_party
from minihs.rooms import by_time as rooms_by_time
from minihs.store import inbox
from minihs.store.events import Outcome
from minihs.testing.hostile import Reply, ScriptedPeer
from tests.advisories.kit import ALICE, V1, seg, siege
from tests.rooms.forge import inbox_of


async def test_references_have_a_number(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        auth = at.forger.auth_events("x", at.user, None, {})
        for field, most in (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)):
            for more in (0, 1):
                known = at.forger.tips if field == "prev_events" else auth
                references = [*known, *("$" + f"{n}".rjust(43, "x") for n in range(most))][: most + more]
                pdu = at.seal(at.draft() | {field: references})
                assert ("error" in (await at.send(pdu))[at.id_of(pdu)]) == bool(more), field


def test_identifiers_have_a_length() -> None:
    for make, check in (
        (lambda n: "@" + "a" * (n - 3) + ":b", ids.is_user_id),
        (lambda n: "!" + "a" * (n - 3) + ":b", ids.is_room_id),
        (lambda n: "$" + "a" * (n - 1), ids.is_event_id),
        (lambda n: "#" + "a" * (n - 3) + ":b", ids.is_room_alias),
    ):
        assert check(make(ids.MAX_LENGTH))
        assert not check(make(ids.MAX_LENGTH + 1))


async def test_so_many_servers_are_tried_to_get_into_a_room(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        peers = [ScriptedPeer(at.world.internet, f"p{n}.test", clock=at.world.clock) for n in range(8)]
        query = "&".join(f"server_name={peer.name}" for peer in peers)
        status, _ = await at.alice.ask("POST", f"/join/{seg('!x:nowhere.test')}?{query}", {})
        assert status in (403, 404, 502)
        assert len([peer for peer in peers if peer.received(f"{V1}/make_join")]) <= handshake.MAX_CANDIDATES


async def test_answers_with_events_have_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_BACKFILL", 5)
    monkeypatch.setattr(serving, "MAX_MISSING", 3)
    async with siege(tmp_path) as at:
        sent = [await at.alice.send(at.room, f"{n}") for n in range(8)]
        status, answer = await at.ask("GET", f"{V1}/backfill/{seg(at.room)}?v={seg(sent[-1])}&limit=100")
        assert (status, len(answer["pdus"])) == (200, 5)
        body = {"earliest_events": [], "latest_events": [sent[-1]], "limit": 100}
        status, answer = await at.ask("POST", f"{V1}/get_missing_events/{seg(at.room)}", body)
        assert (status, len(answer["events"])) == (200, 3)


async def test_one_binding_brings_so_many_invites(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for more, expected in ((0, 200), (1, 400)):
            invites: list[Any] = [{}] * (third_party.MAX_BOUND + more)
            body = {"medium": "email", "address": "a@b", "mxid": ALICE, "invites": invites}
            status, answer = await at.ask("PUT", f"{V1}/3pid/onbind", body)
            assert status == expected, answer


async def test_after_an_absence_so_many_rooms_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "MAX_ROOMS", 1)
    async with siege(tmp_path) as at:
        await at.enter(await at.alice.create_room(preset="public_chat"))
        await at.alice.send(at.room, "the newest")
        await at.world.stop("one.test")
        await trio.sleep(3600)
        at.peer.requests.clear()
        await at.world.start("one.test")
        await trio.sleep(600)
        asked = {request.path for request in at.peer.received(V1) if "send" not in request.path}
        assert len({path for path in asked if "!" in path or "%21" in path}) <= 1


async def test_stripped_state_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    await trio.lowlevel.checkpoint()
    event = {"type": "x", "state_key": "", "sender": ALICE, "content": {"a": "y" * 100}}
    each = len(str(event["content"]))
    monkeypatch.setattr(stripped, "MAX_STRIPPED_BYTES", 3 * each)
    assert len(stripped.stripped_state([event] * 4)) == 3
    monkeypatch.setattr(stripped, "MAX_STRIPPED_EVENTS", 2)
    assert len(stripped.stripped_state([event] * 4)) == 2


async def test_a_server_is_asked_by_time_only_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms_by_time, "MAX_SERVERS", 1)
    async with siege(tmp_path) as at:
        second = at.another("second.test")
        await second.enter(at.room)
        for each in (at, second):
            each.peer.on("GET", f"{V1}/timestamp_to_event/", Reply(404, {"errcode": "M_NOT_FOUND"}))
        path = f"/_matrix/client/v1/rooms/{seg(at.room)}/timestamp_to_event?ts=1&dir=b"
        await at.alice.ask("GET", path)
        asked = [each.peer.received(f"{V1}/timestamp_to_event/") for each in (at, second)]
        assert sum(map(len, asked)) <= 1
        assert backfill.EVENTS_AROUND == 20


async def test_a_servers_answers_are_remembered_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_ANSWERS", 3)
    async with siege(tmp_path) as at:
        quiet = at.another("quiet.test")
        await quiet.enter(at.room)
        first = quiet.event()
        await quiet.ask("PUT", f"{V1}/send/first", {"pdus": [first]})
        for number in range(6):
            await trio.sleep(1)
            await at.ask("PUT", f"{V1}/send/n{number}", {"pdus": []})
        await trio.sleep(3700)
        rows = at.rooms.parts.db.read.execute("SELECT origin, txn_id FROM inbound_txns").fetchall()
        assert sorted(rows) == [("peer.test", f"n{n}") for n in (3, 4, 5)] + [("quiet.test", "first")]


async def test_pdus_set_aside_and_deferred_have_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "MAX_DEFERRED", 3)
    async with siege(tmp_path) as at:
        at.peer.on("GET", f"{V1}/", Reply(404, {"errcode": "M_NOT_FOUND"}))
        await at.send(*(at.event(prev=["$" + f"{n}".rjust(43, "x")]) for n in range(5)))
        assert len(inbox_of(at.rooms)) == 3
        seqs = [row[0] for row in at.rooms.parts.db.read.execute("SELECT seq FROM inbox").fetchall()]
        for seq in seqs:
            await at.rooms.parts.db.write(lambda tx, seq=seq: inbox.set_aside(tx, seq, keep=2))
        assert receive.MAX_SET_ASIDE == 100
        (count,) = at.rooms.parts.db.read.execute("SELECT COUNT(*) FROM inbox").fetchone()
        assert count == 2


async def test_what_rooms_remember_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_KNOWN", 2)
    ref = state.StateRef(1)
    for number in range(4):
        ref.allow(("m.room.message", f"@user{number}:a.test", ()))
        assert 0 < len(ref.allowed) <= state.MAX_KNOWN
    async with siege(tmp_path) as at:
        receiver = at.rooms.receiver
        row = b"x" * (receive.PARSED_BYTES // receive.PARSED_FACTOR // 2)
        event = Event.from_store(at.event(), ROOM_VERSIONS["11"], "")
        event.text = row
        for number in range(4):
            event.event_id = f"${number}"
            receiver.have_parsed([event])
            assert 0 < receiver._parsed.size <= receive.PARSED_BYTES
        assert len(receiver._parsed) == 2


async def test_what_rooms_keep_at_hand_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVENTS_BYTES", "KEYS_BYTES", "RESOLVED_BYTES", "NUMBERS_BYTES"):
        monkeypatch.setattr(graph, name, getattr(graph, name) // 256)
    async with siege(tmp_path) as at:
        small = graph.Graph(at.rooms.parts.db.read)
        head = at.rooms.parts.head(at.room)
        whole = small.full(head.current)
        small.learn_numbers({f"${number}": number for number in range(1000)})
        assert 0 < small._numbers.size <= graph.NUMBERS_BYTES
        assert len(whole) > 5
        for _ in range(100):
            pdu = at.event()
            await at.send(pdu)
            assert small.stored(at.id_of(pdu)) is not None
            assert 0 < small._cache.size <= graph.EVENTS_BYTES
        for type, state_key in whole:
            small.key_nid((type, state_key))
            for cache, limit in (
                (small._key_nids, graph.KEYS_BYTES),
                (small._resolved, graph.RESOLVED_BYTES),
            ):
                assert cache.limit == limit


def test_server_names_that_are_remembered_have_an_end() -> None:
    for number in range(ids.NAMES_REMEMBERED + 1):
        assert ids.parse_server_name(f"s{number}.test") == (f"s{number}.test", None)
    assert ids._parts_of.cache_info().currsize == ids.NAMES_REMEMBERED


async def test_no_more_than_some_pdus_of_others_go_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that is for: tests/advisories/test_loud_server.py."""
    monkeypatch.setattr(receive, "MAX_AHEAD", 2)
    monkeypatch.setattr(receive, "BATCH_SIZE", 5)
    async with siege(tmp_path) as at:
        quiet = at.another("quiet.test")
        await quiet.enter(at.room)
        await at.send(*(at.event() for _ in range(30)))
        pdus = [quiet.event() for _ in range(9)]
        await quiet.send(*pdus)
        assert inbox_of(at.rooms) == {}
        assert {at.outcome(at.id_of(pdu)) for pdu in pdus} == {Outcome.ACCEPTED}
