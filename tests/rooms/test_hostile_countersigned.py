# SPDX-License-Identifier: Apache-2.0
"""Our own events, as they come back with another server's signature: nothing but that signature counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.errors import MatrixError
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SigningKey, sign_event
from tests.rooms.forge import Forger, rows_of
from tests.rooms.hostile_paths import ALICE, EVE, VIC, scenes
from tests.rooms.world import World, membership_of, state_of, stored, worlds

GUEST = "@guest:e.test"
type JsonObject = dict[str, Any]


def _bad_answers(version: str, key: SigningKey, pdu: JsonObject) -> dict[str, Any]:
    rules = ROOM_VERSIONS[version]
    signed = sign_event(pdu, rules, "e.test", key)["signatures"]
    other = sign_event({**pdu, "sender": EVE}, rules, "e.test", key)["signatures"]
    return {
        "no signatures": {},
        "signatures that are no object": {"signatures": [signed]},
        "only our own": pdu,
        "a signature of the wrong type": {"signatures": {"e.test": {"ed25519:1": 5}}},
        "signatures of the wrong type": {"signatures": {"e.test": "ed25519:1"}},
        "a signature of another server": {"signatures": {"c.test": signed["e.test"]}},
        "a signature over another event": {"signatures": other},
        "a signature by an unknown key": {"signatures": {"e.test": {"ed25519:2": "x" * 86}}},
        "signatures that make it too large": {
            "signatures": {"e.test": {**signed["e.test"], "ed25519:x": "x" * 66_000}}
        },
    }


@pytest.mark.parametrize("version", ["2", "10", "12"])
async def test_an_invite_that_is_not_rightly_signed_is_not_sent(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        world = scene.world
        names = list(_bad_answers(version, world.keys["e.test"], {"sender": "", "content": {}, "type": ""}))
        for name in names:
            if name in ("a signature over another event", "a signature by an unknown key"):
                continue  # nobody ever asks for that signature: what counts is the inviter's

            async def answer(honest: Any, asker: str, *args: Any, name: str = name) -> Any:
                return _bad_answers(version, world.keys["e.test"], args[3])[name]

            world.hooks["e.test", "invite"] = answer
            before = rows_of(scene.victim)
            with pytest.raises(MatrixError) as refused:
                await scene.victim.invite(VIC, scene.room_id, GUEST)
            assert (refused.value.status, refused.value.errcode) == (502, "M_UNKNOWN"), name
            assert rows_of(scene.victim) == before, name
            assert membership_of(scene.victim, scene.room_id, GUEST) is None


async def test_of_a_signed_invite_nothing_but_the_signature_is_taken(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:

        async def answer(honest: Any, asker: str, *args: Any) -> Any:
            signed = sign_event(args[3], ROOM_VERSIONS["12"], "e.test", scene.world.keys["e.test"])
            more = {"c.test": {"ed25519:1": "x"}, "v.test": {"ed25519:1": "x"}}
            return {
                **signed,
                "content": {"membership": "ban"},
                "signatures": signed["signatures"] | more,
            }

        scene.world.hooks["e.test", "invite"] = answer
        event_id = await scene.victim.invite(VIC, scene.room_id, GUEST)
        found = stored(scene.victim, event_id)
        assert found is not None
        assert found.event.content == {"membership": "invite"}
        assert set(found.event.json["signatures"]) == {"v.test", "e.test"}
        assert membership_of(scene.victim, scene.room_id, GUEST) == "invite"


async def test_an_invite_is_judged_again_when_it_comes_back(tmp_path: Path) -> None:
    """While the other server took its time to sign, the inviter was thrown out."""
    async with scenes(tmp_path, "12") as scene:
        h = scene.world.servers["h.test"]

        async def answer(honest: Any, asker: str, *args: Any) -> Any:
            await h.kick(ALICE, scene.room_id, VIC)
            await scene.victim.join("@second:v.test", scene.room_id)
            await scene.world.deliver_between("h.test", "v.test")
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            return sign_event(args[3], ROOM_VERSIONS["12"], "e.test", scene.world.keys["e.test"])

        scene.world.hooks["e.test", "invite"] = answer
        with pytest.raises(MatrixError) as refused:
            await scene.victim.invite(VIC, scene.room_id, GUEST)
        assert refused.value.errcode == "M_FORBIDDEN"
        assert membership_of(scene.victim, scene.room_id, GUEST) is None


@pytest.mark.parametrize("version", ["8", "10", "12"])
async def test_a_restricted_join_needs_the_signature_of_the_server_that_vouches(
    tmp_path: Path, version: str
) -> None:
    async with worlds(tmp_path, "v.test", "e.test") as world:
        v, e = world.servers["v.test"], world.servers["e.test"]
        club = await e.create(EVE, {"room_version": version, "preset": "public_chat"})
        names = list(_bad_answers(version, world.keys["e.test"], {"sender": "", "content": {}, "type": ""}))
        users = {name: f"@u{n}:v.test" for n, name in enumerate(names)}
        for user_id in (VIC, *users.values()):
            await v.join(user_id, club, via=["e.test"])
        await world.deliver()
        allow = [{"type": "m.room_membership", "room_id": club}]
        rules = {"join_rule": "restricted", "allow": allow}
        room_id = await e.create(
            EVE,
            {
                "room_version": version,
                "initial_state": [{"type": "m.room.join_rules", "content": rules}],
            },
        )
        for name in names:

            async def answer(honest: Any, asker: str, *args: Any, name: str = name) -> Any:
                pdu = args[2]
                return {**await honest(), "event": _bad_answers(version, world.keys["e.test"], pdu)[name]}

            world.hooks["e.test", "send_join"] = answer
            with pytest.raises(MatrixError) as refused:
                await v.join(users[name], room_id, via=["e.test"])
            assert refused.value.status == 502, name
            assert membership_of(v, room_id, users[name]) is None, name
        del world.hooks["e.test", "send_join"]
        await v.join(VIC, room_id, via=["e.test"])
        await world.deliver()
        assert state_of(v, room_id) == state_of(e, room_id)
        member = stored(v, state_of(v, room_id)["m.room.member", VIC])
        assert member is not None
        assert member.event.content["join_authorised_via_users_server"] == EVE
        assert set(member.event.json["signatures"]) == {"v.test", "e.test"}


async def test_nobody_is_vouched_for_who_is_in_none_of_the_allowed_rooms(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "e.test") as world:
        v, e = world.servers["v.test"], world.servers["e.test"]
        club = await v.create(VIC, {"preset": "private_chat"})
        allow = [{"type": "m.room_membership", "room_id": club}]
        rules = {"join_rule": "restricted", "allow": allow}
        room_id = await v.create(VIC, {"initial_state": [{"type": "m.room.join_rules", "content": rules}]})
        with pytest.raises(MatrixError) as refused:
            await e.join(EVE, room_id, via=["v.test"])
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
        # She knows all it takes to build the event without asking for a template.
        forged = await _forged_restricted_join(world, room_id)
        before = rows_of(v)
        with pytest.raises(MatrixError) as refused:
            await v.resident.send_join("e.test", room_id, *forged)
        assert refused.value.status == 403
        assert rows_of(v) == before


async def _forged_restricted_join(world: World, room_id: str) -> tuple[str, JsonObject]:
    forger = Forger(world, "e.test", "v.test", room_id)
    content = {"membership": "join", "join_authorised_via_users_server": VIC}
    pdu = forger.seal(forger.draft("m.room.member", EVE, content, EVE))
    return forger.id_of(pdu), pdu
