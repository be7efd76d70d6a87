# SPDX-License-Identifier: Apache-2.0
"""Deeply nested JSON, which parsers that call themselves don't survive (a weakness of many, without a
number)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.canonical import MAX_CARRIED_DEPTH, MAX_DEPTH
from minihs.store.events import Outcome
from minihs.testing.hostile import Reply
from tests.advisories.kit import V1, cpu_budget, seg, siege

DEEP = {
    "lists": b"[" * 10_000_000,
    "closed lists": b"[" * 1_000_000 + b"]" * 1_000_000,
    "objects": b'{"a":' * 1_000_000,
    "both": b'[{"a":' * 1_000_000,
    "just too deep": b'{"pdus":[],"x":' + b"[" * MAX_CARRIED_DEPTH + b"]" * MAX_CARRIED_DEPTH + b"}",
}


@pytest.mark.parametrize("name", DEEP)
async def test_a_request_of_brackets_is_refused(tmp_path: Path, name: str) -> None:
    async with siege(tmp_path) as at:
        with cpu_budget(3):
            status, answer = await at.send_body({"pdus": []}, body=DEEP[name])
        assert (status, answer["errcode"]) == (400, "M_NOT_JSON")
        await at.unharmed()


async def test_an_answer_of_brackets_is_none(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for verb in ("make_join", "query/directory", "query/profile", "publicRooms", "hierarchy"):
            at.peer.on("GET", f"{V1}/{verb}", Reply(body=DEEP["closed lists"]))
        asked: list[tuple[str, str, Any]] = [
            ("POST", "/join/!x:peer.test?server_name=peer.test", {}),
            ("GET", f"/directory/room/{seg('#x:peer.test')}", None),
            ("GET", "/profile/@x:peer.test", None),
            ("GET", "/publicRooms?server=peer.test", None),
        ]
        with cpu_budget(10):
            for method, path, body in asked:
                status, answer = await at.alice.ask(method, path, body)
                assert status in (404, 502), (path, answer)
        await at.unharmed()


@pytest.mark.parametrize("way", ["a transaction", "an answer"])
async def test_an_event_that_is_as_deep_as_it_may_be_keeps_no_other_out(tmp_path: Path, way: str) -> None:
    """A valid event can be carried in everything, and one that is too deep is refused alone."""
    async with siege(tmp_path) as at:
        for levels in (MAX_DEPTH - 2, MAX_DEPTH - 1, MAX_DEPTH + 2):
            deep: Any = []
            for _ in range(levels - 1):
                deep = [deep]
            pdu, sibling = at.event(content={"body": "x", "deep": deep}), at.event()
            if way == "a transaction":
                await at.send(pdu, sibling)
            else:
                at.answer_gaps(get_missing_events={"events": [pdu, sibling]})
                at.serve_events({at.id_of(pdu): pdu, at.id_of(sibling): sibling})
                await at.send(at.event(prev=[at.id_of(pdu), at.id_of(sibling)]))
            is_right = levels + 2 <= MAX_DEPTH
            assert at.outcome(at.id_of(pdu)) is (Outcome.ACCEPTED if is_right else None), levels
            assert at.outcome(at.id_of(sibling)) is Outcome.ACCEPTED, levels
        await at.unharmed()


async def test_what_a_client_nests_too_deeply_is_refused(tmp_path: Path) -> None:
    """It would be refused by others together with all that it is sent along with."""
    async with siege(tmp_path) as at:
        deep: Any = {}
        for _ in range(MAX_DEPTH):
            deep = {"x": deep}
        for path, body in [
            (f"/rooms/{at.room}/send/m.room.message/1", deep),
            ("/sendToDevice/x.y/1", {"messages": {"@mallory:peer.test": {"*": deep}}}),
        ]:
            status, answer = await at.alice.ask("PUT", path, body)
            assert (status, answer["errcode"]) == (400, "M_BAD_JSON"), path
        await at.unharmed()


async def test_an_event_may_not_be_deeper_than_what_is_written_again(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        deep: Any = []
        for _ in range(MAX_DEPTH - 10):
            deep = [deep]
        pdu = at.event(content={"body": "x", "deep": deep})
        await at.send(pdu)
        await at.alice.sync()
        assert at.id_of(pdu) in str(await at.alice.messages(at.room))
        await at.unharmed()
