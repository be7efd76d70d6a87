# SPDX-License-Identifier: Apache-2.0
"""CVE-2025-54315 (Hydra, MSC4291 and MSC4289): rooms with two create events, room ids that others could take,
creators who were out-ranked."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, MALLORY, V1, V2, seg, siege


@pytest.mark.parametrize("version", ["6", "11", "12"])
async def test_a_room_has_one_create_event(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        before = at.state()
        for state_key in ("", "x"):
            second = at.draft("m.room.create", {"room_version": version, "creator": MALLORY}, state_key)
            for pdu in (second, {**second, "prev_events": [], "auth_events": []}):
                pdu = at.seal(pdu)
                await at.send(pdu)
                assert at.outcome(at.id_of(pdu)) in (None, Outcome.REJECTED)
        bare = at.draft("m.room.create", {"room_version": "12"}, "", prev=[], auth=[])
        del bare["room_id"]
        await at.send(at.seal(bare))
        assert at.state() == before
        await at.unharmed()


async def test_the_create_event_of_version_12_names_no_room(tmp_path: Path) -> None:
    """Or it could be the create event of any."""
    async with siege(tmp_path) as at:
        create = at.draft("m.room.create", {"room_version": "12"}, "", prev=[], auth=[])
        own_hash = {key: value for key, value in create.items() if key != "room_id"}
        room = "!" + at.id_of(at.seal(own_hash))[1:]
        template = {
            "type": "m.room.member",
            "room_id": room,
            "sender": ALICE,
            "state_key": ALICE,
            "content": {"membership": "join"},
            "prev_events": [],
            "auth_events": [],
            "depth": 5,
        }
        at.peer.on("GET", f"{V1}/make_join/", {"room_version": "12", "event": template})
        for naming in (room, at.room):
            bad = at.seal({**own_hash, "room_id": naming})
            at.peer.on("PUT", f"{V2}/send_join/", {"state": [bad], "auth_chain": [bad], "event": {}})
            status, _ = await at.alice.ask("POST", f"/join/{seg(room)}?server_name=peer.test", {})
            assert status in (400, 403, 502)
            assert at.outcome(at.id_of(bad)) is None
        await at.unharmed()


async def test_creators_are_not_in_the_levels_and_above_them(tmp_path: Path) -> None:
    async with siege(tmp_path, room={"power_level_content_override": {"users": {MALLORY: 2**53 - 1}}}) as at:
        levels = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels/")
        with_creator = {**levels, "users": {**levels["users"], ALICE: 0}}
        pdu = at.event("m.room.power_levels", with_creator, "")
        ban = at.event("m.room.member", {"membership": "ban"}, ALICE)
        kick = at.event("m.room.member", {"membership": "leave"}, ALICE)
        await at.send(pdu, ban, kick)
        for each in (pdu, ban, kick):
            assert at.outcome(at.id_of(each)) is Outcome.REJECTED
        status, answer = await at.alice.ask(
            "PUT", f"/rooms/{at.room}/state/m.room.power_levels/", with_creator
        )
        assert status in (400, 403), answer
        await at.unharmed()


@pytest.mark.parametrize(
    "creators", ["@x:one.test", [5], ["x"], [None], {"a": 1}, ["@" + "x" * 300 + ":a"], 5]
)
async def test_additional_creators_are_user_ids(tmp_path: Path, creators: object) -> None:
    async with siege(tmp_path) as at:
        status, answer = await at.alice.ask(
            "POST", "/createRoom", {"creation_content": {"additional_creators": creators}}
        )
        assert status == 400, answer
        await at.unharmed()
