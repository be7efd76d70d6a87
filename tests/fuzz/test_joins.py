# SPDX-License-Identifier: Apache-2.0
"""Getting into rooms of the peer's, and out: templates and answers that are almost right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minihs.matrix.event import Event
from minihs.testing.events import RoomFactory
from tests.advisories.kit import ALICE, MALLORY, V1, V2, seg
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.events import signed
from tests.fuzz.strategies import (
    Answered,
    JsonObject,
    Pdu,
    edited,
    mostly_right_answers,
    pdus,
    spoiled,
    versions,
)
from tests.fuzz.target import Target

BOB = "@bob:peer.test"


def peers_room(target: Target, version: str, rule: str = "public") -> RoomFactory:
    """A room that only the peer is in, with some history."""
    room = RoomFactory(version, MALLORY, name=f"r{next(target.numbers)}")
    room.join(BOB)
    room.send(MALLORY, "m.room.name", {"name": "Hall"}, "")
    room.send(MALLORY, "m.room.topic", {"topic": "x"}, "")
    if rule != "public":
        allow = [{"type": "m.room_membership", "room_id": room.room_id}]
        room.send(MALLORY, "m.room.join_rules", {"join_rule": rule, "allow": allow}, "")
    for number in range(3):
        room.send(MALLORY, "m.room.message", {"body": f"{number}", "msgtype": "m.text"})
    return room


def references(room: RoomFactory, event_ids: Sequence[str]) -> list[Any]:
    if room.version.event_format == 1:
        return [[event_id, {"sha256": "x" * 43}] for event_id in event_ids]
    return list(event_ids)


def template(room: RoomFactory, membership: str) -> JsonObject:
    content: JsonObject = {"membership": membership}
    restricted = room.state["m.room.join_rules", ""].content["join_rule"] == "restricted"
    if membership == "join" and restricted:
        content["join_authorised_via_users_server"] = MALLORY
    ours = room.build(ALICE, "m.room.member", content, ALICE)
    event = {
        "type": "m.room.member",
        "room_id": room.room_id,
        "sender": ALICE,
        "state_key": ALICE,
        "content": content,
        "depth": 20,
        "origin_server_ts": 1_700_000_000_000,
        "prev_events": references(room, room.tips),
        "auth_events": references(room, ours.auth_events),
    }
    return {"room_version": room.version.version, "event": event}


def auth_chain(room: RoomFactory) -> list[Event]:
    cited = {auth_id for event in room.state.values() for auth_id in event.auth_events}
    return [room.events[event_id] for event_id in room.events if event_id in cited]


def strewn(target: Target, events: Sequence[Event], cases: Sequence[Pdu]) -> list[Any]:
    """The events, some of them as the cases have them."""
    found: list[Any] = [event.json for event in events]
    for number, case in enumerate(cases):
        place = (len(case.edits) * 7 + number * 3 + len(case.after)) % len(found)
        if found[place] is events[place].json:  # a case is of a good event: no second one on top
            bare = {key: found[place][key] for key in found[place] if key not in ("hashes", "signatures")}
            found[place] = target.pdu(case, bare)
    return found


@fuzz(12)
@given(
    version=versions,
    rule=st.sampled_from(["public", "public", "restricted"]),
    partial=st.booleans(),
    made=mostly_right_answers,
    sent=mostly_right_answers,
    whole=mostly_right_answers,
    state=st.lists(pdus(), max_size=2),
    chain=st.lists(pdus(), max_size=1),
)
def test_a_join(
    arena: Arena,
    version: str,
    rule: str,
    partial: bool,
    made: Answered,
    sent: Answered,
    whole: Answered,
    state: Sequence[Pdu],
    chain: Sequence[Pdu],
) -> None:
    async def attack(target: Target) -> None:
        await target.room(version)
        room = peers_room(target, version, rule if target.version.restricted_join else "public")
        room_id = str(room.room_id)
        members = [event for event in room.state.values() if event.type == "m.room.member"]
        kept = [event for event in room.state.values() if event not in members or event.state_key == MALLORY]
        right = auth_chain(room)
        answer = {
            "origin": "peer.test",
            "state": strewn(target, kept if partial else list(room.state.values()), state),
            "auth_chain": strewn(target, right, chain),
            "members_omitted": partial,
            "servers_in_room": ["peer.test"],
        }

        def let_in(received: Any) -> Any:
            event = received.json
            if "join_authorised_via_users_server" in event["content"]:
                event = signed(target.siege, event, target.peer.key)
            if partial and "omit_members" not in received.uri:
                return {
                    **answer,
                    "members_omitted": False,
                    "state": [each.json for each in room.state.values()],
                }
            return {**answer, "event": event}

        pdus = strewn(target, list(room.state.values()), state)
        target.on("GET", f"{V1}/make_join/", template(room, "join"), made)
        target.on("PUT", f"{V2}/send_join/", let_in, sent)
        target.on("GET", f"{V1}/state/", {"pdus": pdus, "auth_chain": [each.json for each in right]}, whole)
        ids = {"pdu_ids": [each.event_id for each in room.state.values()], "auth_chain_ids": []}
        target.on("GET", f"{V1}/state_ids/", ids, whole)
        target.on(
            "GET", f"{V1}/backfill/", {"pdus": strewn(target, list(room.events.values()), state)}, whole
        )
        status, _ = await target.client("POST", f"/join/{seg(room_id)}?server_name=peer.test", {})
        await target.siege.rest()
        if status == 200:
            target.nothing_is_forged(room_id)
            await target.siege.alice.sync()
            await target.client(
                "POST", f"/rooms/{seg(room_id)}/send/m.room.message/{next(target.numbers)}", {}
            )
            if not partial:  # those wait for what may never come
                await target.client("GET", f"/rooms/{seg(room_id)}/messages?dir=b&limit=20")
                await target.client("GET", f"/rooms/{seg(room_id)}/members")
            await target.siege.rest()
            target.nothing_is_forged(room_id)
            await target.client("POST", f"/rooms/{seg(room_id)}/leave", {})

    arena.run(attack, cases=len(state) + len(chain) + spoiled(made, sent, whole))


@fuzz(5)
@given(version=versions, made=mostly_right_answers, sent=mostly_right_answers)
def test_turning_down_an_invite(arena: Arena, version: str, made: Answered, sent: Answered) -> None:
    async def attack(target: Target) -> None:
        await target.room(version)
        room = peers_room(target, version, "invite")
        room_id = str(room.room_id)
        good = room.invite(MALLORY, ALICE)
        content = {"room_version": version, "event": good.json, "invite_room_state": [room.create.json]}
        await target.ask("PUT", f"{V2}/invite/{seg(room_id)}/{seg(good.event_id)}", content)
        target.on("GET", f"{V1}/make_leave/", template(room, "leave"), made)
        target.on("PUT", f"{V2}/send_leave/", {}, sent)
        await target.client("POST", f"/rooms/{seg(room_id)}/leave", {})
        synced = await target.siege.alice.sync()
        assert room_id not in synced["rooms"].get("invite", {}), target.shown()

    arena.run(attack, cases=spoiled(made, sent))


@fuzz(5)
@given(
    version=st.sampled_from(["7", "10", "12"]),
    made=mostly_right_answers,
    sent=mostly_right_answers,
    edits=st.lists(pdus(), max_size=2),
)
def test_a_knock(arena: Arena, version: str, made: Answered, sent: Answered, edits: Sequence[Pdu]) -> None:
    async def attack(target: Target) -> None:
        await target.room(version)
        room = peers_room(target, version, "knock")
        room_id = str(room.room_id)
        shown: Any = [event.json for event in room.state.values()]
        for case in edits:
            shown = edited(shown, case.edits)
        target.on("GET", f"{V1}/make_knock/", template(room, "knock"), made)
        target.on("PUT", f"{V1}/send_knock/", {"knock_room_state": shown}, sent)
        status, _ = await target.client(
            "POST", f"/knock/{seg(room_id)}?server_name=peer.test", {"reason": "x"}
        )
        await target.siege.alice.sync()
        if status == 200:
            await target.client("POST", f"/rooms/{seg(room_id)}/leave", {})

    arena.run(attack, cases=len(edits) + spoiled(made, sent))
