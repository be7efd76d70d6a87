# SPDX-License-Identifier: Apache-2.0
"""Synapse 1.2.1 (#5767, #5744, #5743, #5701): redactions of others' events, redactions that go round in
circles, users joined and parted by others, receipts in others' names, and a room downgraded by redacting its
create event."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from minihs.testing.hostile import ScriptedPeer
from tests.advisories.kit import ALICE, MALLORY, JsonObject, Siege, cpu_budget, siege

VERSIONS = ["1", "2", "6", "11", "12"]


def redaction(at: Siege, target_id: str, **fields: object) -> JsonObject:
    if at.forger.version.redacts_in_content:
        return at.event("m.room.redaction", {"redacts": target_id}, **fields)
    return at.event("m.room.redaction", {}, redacts=target_id, **fields)


def text_of(at: Siege, event_id: str) -> object:
    found = at.rooms.parts.graph.stored(event_id)
    assert found is not None
    return found.event.content.get("body")


@pytest.mark.parametrize("version", VERSIONS)
async def test_nobody_redacts_what_is_anothers(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        hers = await at.alice.send(at.room, "hers")
        evil = redaction(at, hers)
        await at.send(evil)
        assert text_of(at, hers) == "hers"
        mine = at.event(content={"body": "mine"})
        await at.send(mine, redaction(at, at.id_of(mine)))
        assert text_of(at, at.id_of(mine)) is None
        await at.unharmed()


@pytest.mark.parametrize("version", ["1", "2"])
async def test_redactions_in_a_circle_come_to_an_end(tmp_path: Path, version: str) -> None:
    """Only where a sender chooses the event ids can they name each other."""
    async with siege(tmp_path, version=version) as at:
        names = [f"$round{number}:peer.test" for number in range(20)]
        circle = [
            redaction(at, names[(number + 1) % len(names)], event_id=name)
            for number, name in enumerate(names)
        ]
        itself = redaction(at, "$self:peer.test", event_id="$self:peer.test")
        with cpu_budget(10):
            await at.send(*circle, itself)
        assert {at.outcome(name) for name in names} <= {Outcome.ACCEPTED, Outcome.REJECTED}
        await at.unharmed()


@pytest.mark.parametrize("version", VERSIONS)
async def test_nobody_is_joined_or_parted_by_others(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        before = at.state()
        forged = [
            at.event("m.room.member", {"membership": membership}, target)
            for membership in ("join", "leave", "ban")
            for target in (ALICE, "@bob:one.test")
            if (membership, target) != ("leave", "@bob:one.test")
        ]
        await at.send(*forged)
        assert {at.outcome(at.id_of(pdu)) for pdu in forged} == {Outcome.REJECTED}
        assert at.state() == before
        await at.unharmed()


async def test_nobody_reads_in_anothers_name(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        event = await at.alice.send(at.room, "read me")
        third = ScriptedPeer(at.world.internet, "third.test", clock=at.world.clock)

        def receipt(user: str) -> JsonObject:
            return {at.room: {"m.read": {user: {"data": {"ts": 1}, "event_ids": [event]}}}}

        for user in (ALICE, "@x:third.test"):
            await at.tell("m.receipt", receipt(user))
        edu = {"edu_type": "m.receipt", "content": receipt(MALLORY)}
        body = {"origin": "third.test", "pdus": [], "edus": [edu]}
        await third.request("PUT", "one.test", "/_matrix/federation/v1/send/1", body)
        answer = await at.alice.sync()
        assert "m.receipt" not in str(answer["rooms"]["join"][at.room]["ephemeral"])
        await at.tell("m.receipt", receipt(MALLORY))  # her own counts
        answer = await at.alice.sync()
        assert MALLORY in str(answer["rooms"]["join"][at.room]["ephemeral"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_keeps_its_create_event_and_with_it_its_version(tmp_path: Path, version: str) -> None:
    levels = {"users": {MALLORY: 100}} if version == "12" else {"users": {MALLORY: 100, ALICE: 100}}
    async with siege(tmp_path, version=version, room={"power_level_content_override": levels}) as at:
        create = at.state()["m.room.create", ""]
        await at.send(redaction(at, create))
        found = at.rooms.parts.graph.stored(create)
        assert found is not None
        assert found.redacted_by is None
        assert found.event.content["room_version"] == version
        status, _ = await at.alice.ask("PUT", f"/rooms/{at.room}/redact/{create}/t", {})
        assert status in (200, 400, 403)
        assert at.rooms.parts.head(at.room).version.version == version
        event = await at.alice.get(f"/rooms/{at.room}/state/m.room.create/")
        assert event["room_version"] == version
