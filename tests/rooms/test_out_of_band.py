# SPDX-License-Identifier: Apache-2.0
"""Invites and knocks of our users in rooms that we are not in: how they come, what is shown, what ends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.matrix.signatures import sign_event
from minihs.rooms.stripped import MAX_STRIPPED_EVENTS
from minihs.store import memberships, rooms
from tests.rooms.forge import Forger, rows_of
from tests.rooms.world import World, membership_of, state_of, worlds

type JsonObject = dict[str, Any]

ALICE, EVE, VIC, SECOND = "@alice:h.test", "@eve:e.test", "@vic:v.test", "@second:v.test"


async def eves_room(world: World, version: str = "12") -> Forger:
    e, h = world.servers["e.test"], world.servers["h.test"]
    room_id = await e.create(EVE, {"preset": "public_chat", "room_version": version})
    await h.join(ALICE, room_id, via=["e.test"])
    await world.deliver()
    return Forger(world, "e.test", "e.test", room_id)


def invite_by(forger: Forger, sender: str = EVE, target: str = VIC, **options: Any) -> JsonObject:
    return forger.draft("m.room.member", sender, {"membership": "invite"}, target, **options)


def shown_to(world: World, room_id: str, user_id: str) -> list[JsonObject]:
    db = world.servers["v.test"].parts.db.read
    nid = rooms.room_nid(db, room_id)
    held = None if nid is None else memberships.get(db, nid, user_id)
    assert held is not None
    assert held.stripped is not None
    found: list[JsonObject] = json.loads(held.stripped)
    return found


async def hand_in(
    world: World,
    forger: Forger,
    pdu: JsonObject,
    shown: object = (),
    *,
    room_id: str | None = None,
    **by: str,
) -> Any:
    sealed = forger.seal(pdu)
    v = world.servers["v.test"]
    return await v.invites.receive(
        by.get("origin", "e.test"),
        room_id or forger.room_id,
        by.get("event_id", forger.id_of(sealed)),
        by.get("version", forger.version.version),
        sealed,
        list(shown) if isinstance(shown, tuple) else shown,
    )


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_an_invite_is_signed_and_kept(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world, version)
        pdu = invite_by(forger)
        signed = await hand_in(world, forger, pdu)
        assert set(signed["signatures"]) == {"e.test", "v.test"}
        assert {k: x for k, x in signed.items() if k not in ("signatures", "hashes")} == pdu
        assert membership_of(world.servers["v.test"], forger.room_id, VIC) == "invite"


@pytest.mark.parametrize(
    ("what", "status", "errcode"),
    [
        ({"origin": "h.test"}, 400, "M_INVALID_PARAM"),
        ({"event_id": "$another"}, 400, "M_INVALID_PARAM"),
        ({"version": "99"}, 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ({"version": None}, 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ({"room_id": "!" + "x" * 43}, 400, "M_INVALID_PARAM"),
        ({"type": "m.room.name"}, 400, "M_INVALID_PARAM"),
        ({"membership": "join"}, 400, "M_INVALID_PARAM"),
        ({"membership": ["invite"]}, 400, "M_INVALID_PARAM"),
        ({"target": ALICE}, 400, "M_INVALID_PARAM"),
        ({"target": "vic"}, 400, "M_INVALID_PARAM"),
        ({"target": "@nobody:v.test"}, 404, "M_NOT_FOUND"),
    ],
    ids=str,
)
async def test_nothing_is_signed_but_an_invite_of_a_user_of_ours_by_a_user_of_theirs(
    tmp_path: Path, what: JsonObject, status: int, errcode: str
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world)
        pdu = invite_by(forger, target=what.get("target", VIC))
        pdu["type"] = what.get("type", pdu["type"])
        pdu["content"] = {"membership": what.get("membership", "invite")}
        by = {key: what[key] for key in ("origin", "event_id", "version", "room_id") if key in what}
        with pytest.raises(MatrixError) as refused:
            await hand_in(world, forger, pdu, **by)
        assert (refused.value.status, refused.value.errcode) == (status, errcode)
        assert rows_of(world.servers["v.test"]) == {}


HOSTILE_STATE: list[object] = [
    None,
    "x",
    {"a": 1},
    [None, 5, "x", [], {}, {"type": 5, "state_key": "", "sender": EVE, "content": {}}],
    [{"type": "m.room.name", "state_key": "", "sender": EVE, "content": []}],
    [{"type": "m.room.name", "state_key": 5, "sender": EVE, "content": {}}],
    [{"type": "m.room.name", "state_key": "", "sender": EVE, "content": {"x": "y" * 200_000}}],
    [{"type": "x", "state_key": str(n), "sender": EVE, "content": {}} for n in range(500)],
]


@pytest.mark.parametrize("shown", HOSTILE_STATE, ids=range(len(HOSTILE_STATE)))
async def test_hostile_invite_state_is_cut_down_to_what_is_well_formed(tmp_path: Path, shown: object) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world)
        await hand_in(world, forger, invite_by(forger), shown)
        kept = shown_to(world, forger.room_id, VIC)
        assert len(kept) <= MAX_STRIPPED_EVENTS
        assert len(str(kept)) < 200_000
        for event in kept:
            assert set(event) == {"type", "state_key", "sender", "content"}
            assert isinstance(event["content"], dict)


def badly_shown(world: World, forger: Forger, other_room: str, type: str) -> dict[str, JsonObject]:
    """A state event of the room in forms in which it may not be shown, by what is wrong."""
    graph = forger.server.parts.graph
    event = graph.event(forger.state[type, ""])
    foreign = graph.event(state_of(forger.server, other_room)[type, ""])
    assert event is not None
    assert foreign is not None
    forged = {**event.json, "content": {**event.content, "x": 1}, "signatures": {}}
    key = world.keys["h.test"]
    return {
        "of another room": foreign.json,
        "unsigned": {**event.json, "signatures": {}},
        "signed by another": sign_event(forged, forger.version, "h.test", key),
        "malformed": {**event.json, "depth": "x"},
    }


def as_whole_events(forger: Forger) -> list[JsonObject]:
    graph = forger.server.parts.graph
    found = [graph.event(forger.state[type, ""]) for type in ("m.room.create", "m.room.join_rules")]
    return [event.json for event in found if event is not None]


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("type", ["m.room.create", "m.room.join_rules"])
async def test_what_an_invite_shows_must_be_the_rooms(tmp_path: Path, version: str, type: str) -> None:
    """From version 12 on: else anybody could say of a room what they like. Before, it is but logged."""
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world, version)
        other = await forger.server.create(EVE, {"preset": "public_chat", "room_version": version})
        good = as_whole_events(forger)
        for name, bad in badly_shown(world, forger, other, type).items():
            shown = [event for event in good if event["type"] != type] + [bad]
            if version == "11":
                await hand_in(world, forger, invite_by(forger), shown)
                assert len(shown_to(world, forger.room_id, VIC)) == 2
                assert any(FLAWED in entry["event"] for entry in world.logs) == (name in NOTICED), name
                world.logs.clear()
                continue
            with pytest.raises(MatrixError) as refused:
                await hand_in(world, forger, invite_by(forger), shown)
            assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM"), name
            assert rows_of(world.servers["v.test"]) == {}
        world.logs.clear()
        await hand_in(world, forger, invite_by(forger), good)
        assert not [entry for entry in world.logs if FLAWED in entry["event"]]
        assert shown_to(world, forger.room_id, VIC) == [
            {key: event[key] for key in ("type", "sender", "state_key", "content")} for event in good
        ]


FLAWED = "not as it should be"
NOTICED = ("of another room", "malformed")
"""Without asking for keys."""


@pytest.mark.parametrize("version", ["11", "12"])
async def test_an_invite_that_shows_stripped_events_or_no_create_event_is_taken(
    tmp_path: Path, version: str
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world, version)
        create, rules = as_whole_events(forger)
        stripped = {key: create[key] for key in ("type", "sender", "state_key", "content")}
        for shown in ([stripped], [rules], []):
            world.logs.clear()
            await hand_in(world, forger, invite_by(forger), shown)
            assert [event["type"] for event in shown_to(world, forger.room_id, VIC)] == [
                event["type"] for event in shown
            ]
            assert [entry for entry in world.logs if FLAWED in entry["event"]]


@pytest.mark.parametrize("version", ["7", "11", "12"])
async def test_what_we_show_of_a_room_are_whole_events(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "v.test", "e.test") as world:
        e, v = world.servers["e.test"], world.servers["v.test"]
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        room_id = await e.create(
            EVE, {"room_version": version, "initial_state": [rules], "name": "Hall", "topic": "x"}
        )
        shown: dict[str, list[JsonObject]] = {}

        async def see_invite(honest: Any, *args: Any) -> Any:
            shown["invite"] = args[-1]
            return await honest()

        async def see_knock(honest: Any, *args: Any) -> Any:
            answer = await honest()
            shown["knock"] = answer["knock_room_state"]
            return answer

        world.hooks["v.test", "invite"], world.hooks["e.test", "send_knock"] = see_invite, see_knock
        await e.invite(EVE, room_id, VIC)
        await v.knock(SECOND, room_id, via=["e.test"], reason=None)
        types = {"m.room.create", "m.room.name", "m.room.topic", "m.room.join_rules"}
        assert {event["type"] for event in shown["knock"]} == types
        assert {event["type"] for event in shown["invite"]} == {*types, "m.room.member"}
        for event in shown["invite"] + shown["knock"]:
            assert set(event["signatures"]) == {"e.test"}
        assert not [entry for entry in world.logs if FLAWED in entry["event"]]


async def test_of_the_answer_to_a_knock_only_what_is_the_rooms_is_shown(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        e, v = world.servers["e.test"], world.servers["v.test"]
        made = []
        for name in ("Hall", "Cellar"):
            rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
            made.append(await e.create(EVE, {"initial_state": [rules], "name": name}))
        room_id, other = made
        forger = Forger(world, "e.test", "e.test", room_id)
        wrong = badly_shown(world, forger, other, "m.room.name")
        good = as_whole_events(forger)

        async def show(honest: Any, *args: Any) -> Any:
            return {**await honest(), "knock_room_state": [*wrong.values(), *good]}

        world.hooks["e.test", "send_knock"] = show
        await v.knock(VIC, room_id, via=["e.test"])
        assert [event["type"] for event in shown_to(world, room_id, VIC)] == [event["type"] for event in good]


@pytest.mark.parametrize("version", ["2", "12"])
async def test_only_the_inviters_side_ends_an_invite(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world, version)
        v = world.servers["v.test"]
        await hand_in(world, forger, invite_by(forger))

        async def sent(sender: str, membership: str, by: str, **changes: Any) -> None:
            pdu = forger.draft("m.room.member", sender, {"membership": membership}, VIC) | changes
            await world.send(by, "v.test", [forger.seal(pdu, by)])

        for sender, membership, by in (
            (ALICE, "leave", "h.test"),
            (ALICE, "ban", "h.test"),
            (EVE, "join", "e.test"),
            (EVE, "invite", "e.test"),
        ):
            await sent(sender, membership, by)
            assert membership_of(v, forger.room_id, VIC) == "invite", (sender, membership)
        for other in (SECOND, ALICE, "@other:v.test"):
            await sent(EVE, "leave", "e.test", state_key=other)
        await sent(EVE, "leave", "e.test", type="m.room.name")
        assert membership_of(v, forger.room_id, VIC) == "invite"
        await sent(EVE, "ban", "e.test")
        assert membership_of(v, forger.room_id, VIC) == "ban"


async def test_a_second_invite_takes_the_place_of_the_first(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world)
        v = world.servers["v.test"]
        await hand_in(world, forger, invite_by(forger))
        await v.leave(VIC, forger.room_id)
        assert membership_of(v, forger.room_id, VIC) == "leave"
        await world.deliver()
        await hand_in(world, forger, invite_by(forger))
        assert membership_of(v, forger.room_id, VIC) == "invite"
        await v.join(VIC, forger.room_id)
        await world.deliver()
        assert state_of(v, forger.room_id) == state_of(forger.server, forger.room_id)


# -- where others of us are in the room ------------------------------------------------------------


async def test_an_invite_to_a_room_that_we_are_in_becomes_part_of_it_at_once(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world)
        v = world.servers["v.test"]
        await v.join(SECOND, forger.room_id, via=["e.test"])
        await world.deliver()
        await forger.server.invite(EVE, forger.room_id, VIC)
        assert membership_of(v, forger.room_id, VIC) == "invite"
        await world.deliver()
        assert state_of(v, forger.room_id) == state_of(forger.server, forger.room_id)
        with pytest.raises(MatrixError) as refused:
            await hand_in(world, forger, invite_by(forger, target=SECOND))
        assert refused.value.status == 403


async def test_an_invite_that_the_room_does_not_allow_is_not_signed(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger = await eves_room(world)
        v = world.servers["v.test"]
        await v.join(SECOND, forger.room_id, via=["e.test"])
        await world.deliver()
        await forger.server.ban(EVE, forger.room_id, VIC)
        await world.deliver()
        before = rows_of(v)
        for pdu in (
            invite_by(forger),  # banned
            invite_by(forger, sender="@stranger:e.test", target="@third:v.test"),
            invite_by(forger, target="@third:v.test", auth=[]),
        ):
            with pytest.raises(MatrixError) as refused:
                await hand_in(world, forger, pdu)
            assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
            assert {k: x for k, x in rows_of(v).items() if x == 0} == before


# -- knocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["7", "10", "12"])
async def test_a_knock_is_answered(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        h, v, e = (world.servers[name] for name in ("h.test", "v.test", "e.test"))
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        room_id = await h.create(
            ALICE, {"room_version": version, "initial_state": [rules], "name": "Hall", "invite": [EVE]}
        )
        await e.join(EVE, room_id)
        await world.deliver()
        for user_id in (VIC, SECOND, "@third:v.test"):
            await v.knock(user_id, room_id, via=["h.test"], reason="please")
            assert membership_of(v, room_id, user_id) == "knock"
            shown = {event["type"] for event in shown_to(world, room_id, user_id)}
            assert {"m.room.create", "m.room.name", "m.room.join_rules"} <= shown
        await world.deliver()
        assert membership_of(e, room_id, VIC) == "knock"

        await h.kick(ALICE, room_id, VIC)  # refused
        await v.leave("@third:v.test", room_id)  # taken back
        await h.invite(ALICE, room_id, SECOND)  # let in
        await world.deliver()
        for server in (v, h, e):
            assert membership_of(server, room_id, VIC) == "leave"
            assert membership_of(server, room_id, "@third:v.test") == "leave"
            assert membership_of(server, room_id, SECOND) == "invite"
        await v.join(SECOND, room_id)
        await world.deliver()
        assert state_of(v, room_id) == state_of(h, room_id)


async def test_a_knock_where_none_is_allowed_is_refused(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test") as world:
        h, v = world.servers["h.test"], world.servers["v.test"]
        for version, status in (("6", 400), ("12", 403)):
            room_id = await h.create(ALICE, {"room_version": version})
            with pytest.raises(MatrixError) as refused:
                await v.knock(VIC, room_id, via=["h.test"])
            assert refused.value.status == status, version
            assert membership_of(v, room_id, VIC) is None
        with pytest.raises(MatrixError) as refused:
            await v.knock(VIC, room_id)
        assert refused.value.status == 404
