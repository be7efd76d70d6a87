# SPDX-License-Identifier: Apache-2.0
"""Joining through other servers: what may go wrong on the way, what comes meanwhile, and coming back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.errors import MatrixError
from minihs.matrix.signatures import SigningKey, sign_json
from minihs.rooms import adoption
from minihs.store.events import Outcome
from tests.rooms import invariants
from tests.rooms.forge import Forger, inbox_of, rows_of
from tests.rooms.wires import copied
from tests.rooms.world import World, membership_of, state_of, stored, timeline_of, worlds

type JsonObject = dict[str, Any]

ALICE, EVE, VIC, SECOND = "@alice:h.test", "@eve:e.test", "@vic:v.test", "@second:v.test"


async def room_with_eve(world: World, version: str = "12") -> str:
    """Alice's, in which Eve is too. The forger sees it as h.test does."""
    h, e = world.servers["h.test"], world.servers["e.test"]
    room_id = await h.create(ALICE, {"preset": "public_chat", "room_version": version})
    await e.join(EVE, room_id, via=["h.test"])
    await world.deliver()
    return room_id


def answering(**changes: Any) -> Any:
    """send_join as the server would answer, with some fields changed by functions."""

    async def hook(honest: Any, *args: Any) -> Any:
        answer = await honest()
        return answer | {name: change(answer) for name, change in changes.items()}

    return hook


async def test_what_others_send_while_we_join_is_taken_in_after_it(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v, h = world.servers["v.test"], world.servers["h.test"]
        sent: list[str] = []

        async def slowly(honest: Any, *args: Any) -> Any:
            answer = await honest()
            sent.append(await h.send(ALICE, room_id, "m.room.message", {"body": "hello, Vic"}))
            await world.deliver_between("h.test", "v.test")
            assert inbox_of(v).keys() == set(sent)
            return answer

        world.hooks["h.test", "send_join"] = slowly
        await v.join(VIC, room_id, via=["h.test"])
        await world.rest()
        assert inbox_of(v) == {}
        assert timeline_of(v, room_id)[-1] == sent[0]
        assert state_of(v, room_id) == state_of(h, room_id)


async def test_what_others_send_while_a_join_fails_is_dropped(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v, h = world.servers["v.test"], world.servers["h.test"]

        async def fail(honest: Any, *args: Any) -> Any:
            await honest()
            await h.send(ALICE, room_id, "m.room.message", {"body": "hello, Vic"})
            await world.deliver_between("h.test", "v.test")
            return {"state": [], "auth_chain": []}

        world.hooks["h.test", "send_join"] = fail
        with pytest.raises(MatrixError) as refused:
            await v.join(VIC, room_id, via=["h.test"])
        assert refused.value.status == 502
        await world.rest()
        assert inbox_of(v) == {}
        assert rows_of(v) == {}
        assert membership_of(v, room_id, VIC) is None


def _without_create(answer: JsonObject) -> list[JsonObject]:
    return [pdu for pdu in answer["state"] if pdu["type"] != "m.room.create"]


def _private(answer: JsonObject) -> list[JsonObject]:
    return [pdu for pdu in answer["state"] if pdu["type"] != "m.room.join_rules"]


BAD_ANSWERS: dict[str, Any] = {
    "no state": answering(state=lambda answer: []),
    "no create event": answering(state=_without_create, auth_chain=lambda answer: []),
    "a state that does not let us in": answering(state=_private),
    "rubbish": answering(state=lambda answer: [None, 5, [], {}, b"{", b"\xff"]),
    "another room": answering(state=lambda answer: [{**pdu, "depth": 5} for pdu in answer["state"]]),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
@pytest.mark.parametrize("version", ["2", "11", "12"])
async def test_a_bad_answer_is_dropped_whole_and_the_next_server_asked(
    tmp_path: Path, name: str, version: str
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world, version)
        v, h = world.servers["v.test"], world.servers["h.test"]
        for host in ("e.test", "h.test"):
            world.hooks[host, "send_join"] = BAD_ANSWERS[name]
        with pytest.raises(MatrixError) as refused:
            await v.join(VIC, room_id, via=["e.test", "nowhere.test", "h.test"])
        assert refused.value.status == 502
        assert rows_of(v) == {}
        del world.hooks["h.test", "send_join"]
        await v.join(VIC, room_id, via=["e.test", "h.test"])
        await world.deliver()
        # The joins that we gave up are in the room as well; we hear of them with the next event.
        await h.send(ALICE, room_id, "m.room.message", {})
        await world.deliver()
        assert state_of(v, room_id) == state_of(h, room_id)
        invariants.check(v, room_id)


@pytest.mark.parametrize("claimed", ["1", "10", "99", 10, None])
async def test_the_version_that_a_server_claims_must_be_that_of_the_room(
    tmp_path: Path, claimed: object
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world, "11")

        async def lie(honest: Any, *args: Any) -> Any:
            return {**await honest(), "room_version": claimed}

        v = world.servers["v.test"]
        world.hooks["e.test", "make_join"] = lie
        world.hooks["h.test", "make_join"] = lie
        with pytest.raises(MatrixError) as refused:
            await v.join(VIC, room_id, via=["e.test"])
        assert refused.value.status in (400, 403, 502)
        assert rows_of(v) == {}


@pytest.mark.parametrize("version", ["2", "10", "12"])
async def test_a_server_cannot_have_events_rejected_by_keeping_back_others(
    tmp_path: Path, version: str
) -> None:
    """It leaves the power levels out of its answer: what cites them is left out, too, and not remembered as
    bad.
    """
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world, version)
        v, h = world.servers["v.test"], world.servers["h.test"]
        await h.send(ALICE, room_id, "m.room.topic", {"topic": "x"}, state_key="")
        await world.deliver()

        def without(part: str) -> Any:
            return lambda answer: [p for p in answer[part] if p["type"] != "m.room.power_levels"]

        for host in ("e.test", "h.test"):
            world.hooks[host, "send_join"] = answering(
                state=without("state"), auth_chain=without("auth_chain")
            )
        with pytest.raises(MatrixError):
            await v.join(VIC, room_id, via=["e.test"])
        assert Outcome.REJECTED not in rows_of(v).values()
        del world.hooks["h.test", "send_join"]
        await world.deliver()
        await v.join(VIC, room_id, via=["h.test"])
        await world.deliver()
        assert state_of(v, room_id) == state_of(h, room_id)
        assert Outcome.REJECTED not in rows_of(v).values()


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_event_id_that_is_used_in_two_rooms_counts_in_the_first(
    tmp_path: Path, version: str
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        v = world.servers["v.test"]
        first, second = await room_with_eve(world, version), await room_with_eve(world, version)
        await v.join(VIC, first, via=["h.test"])
        await world.deliver()
        made = {}
        for room_id in (first, second):
            forger = Forger(world, "e.test", "h.test", room_id)
            pdu = forger.draft("m.room.member", EVE, {"membership": "join", "in": room_id}, EVE)
            made[room_id] = forger.seal({**pdu, "event_id": "$twice:e.test"})
        await world.send("e.test", "v.test", [made[first]])
        assert state_of(v, first)["m.room.member", EVE] == "$twice:e.test"

        def with_twice(answer: JsonObject) -> list[JsonObject]:
            others = [pdu for pdu in answer["state"] if pdu.get("state_key") != EVE]
            return [*others, made[second]]

        world.hooks["e.test", "send_join"] = answering(state=with_twice)
        await v.join(VIC, second, via=["e.test"])
        found = stored(v, "$twice:e.test")
        assert found is not None
        assert found.event.room_id == first
        assert "$twice:e.test" not in state_of(v, second).values()
        invariants.check(v, first)
        invariants.check(v, second)


async def test_a_room_that_is_too_large_is_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        monkeypatch.setattr(adoption, "MAX_EVENTS", 5)
        with pytest.raises(MatrixError) as refused:
            await world.servers["v.test"].join(VIC, room_id, via=["h.test"])
        assert refused.value.status == 502
        assert rows_of(world.servers["v.test"]) == {}


async def test_the_clearest_refusal_is_passed_on(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        h, v = world.servers["h.test"], world.servers["v.test"]
        room_id = await h.create(ALICE, {})
        with pytest.raises(MatrixError) as refused:
            await v.join(VIC, room_id, via=["nowhere.test", "h.test"])
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
        with pytest.raises(MatrixError) as refused:
            await v.join(VIC, room_id, via=["nowhere.test"])
        assert (refused.value.status, refused.value.errcode) == (502, "M_UNKNOWN")
        with pytest.raises(MatrixError) as refused:
            await v.join(VIC, room_id)
        assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


# -- leaving and coming back -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "6", "12"])
async def test_the_time_of_absence_is_a_gap_that_can_be_paged_into(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world, version)
        v, h = world.servers["v.test"], world.servers["h.test"]
        await v.join(VIC, room_id, via=["h.test"])
        await world.deliver()
        before = [await v.send(VIC, room_id, "m.room.message", {"n": n}) for n in range(3)]
        await v.leave(VIC, room_id)
        await world.deliver()
        away = [await h.send(ALICE, room_id, "m.room.message", {"n": n}) for n in range(5)]
        away.append(await h.send(ALICE, room_id, "m.room.topic", {"topic": "x"}, state_key=""))
        await world.deliver()
        assert not set(away) & rows_of(v).keys()
        await v.join(VIC, room_id, via=["h.test"])
        await world.deliver()
        invariants.check(v, room_id)
        assert state_of(v, room_id) == state_of(h, room_id)
        assert rows_of(v)[away[-1]] == Outcome.ACCEPTED  # the topic came with the state: an outlier
        assert not set(away) & set(timeline_of(v, room_id))
        for _ in range(10):
            if not await v.backfill(room_id, before=(10**9, 0), limit=3):
                break
        shown = timeline_of(v, room_id)
        assert [event_id for event_id in shown if event_id in away] == away
        assert shown.index(before[-1]) < shown.index(away[0])
        invariants.check(v, room_id)
        assert state_of(v, room_id) == state_of(h, room_id)


async def test_whoever_left_is_not_back_when_another_of_us_joins_through_a_server_that_did_not_hear(
    tmp_path: Path,
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v, h, e = (world.servers[name] for name in ("v.test", "h.test", "e.test"))
        await v.join(VIC, room_id, via=["h.test"])
        await world.deliver()
        world.cut.add(frozenset(("v.test", "e.test")))
        await v.leave(VIC, room_id)
        await world.deliver_between("v.test", "h.test")
        assert membership_of(e, room_id, VIC) == "join"
        world.cut.clear()
        await v.join(SECOND, room_id, via=["e.test"])
        assert membership_of(v, room_id, VIC) == "leave"
        await world.deliver()
        for server in (v, h, e):
            assert membership_of(server, room_id, VIC) == "leave"
            assert membership_of(server, room_id, SECOND) == "join"


async def test_an_invite_that_is_over_in_the_room_is_over_when_another_of_us_joins(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v, h = world.servers["v.test"], world.servers["h.test"]
        forger = Forger(world, "e.test", "h.test", room_id)
        invite = forger.seal(forger.draft("m.room.member", EVE, {"membership": "invite"}, SECOND))
        await v.invites.receive("e.test", room_id, forger.id_of(invite), "12", invite, [])
        assert membership_of(v, room_id, SECOND) == "invite"
        await v.join(VIC, room_id, via=["h.test"])
        await world.deliver()
        # Nobody but Eve's server ever heard of that invite.
        assert membership_of(v, room_id, SECOND) == "leave"
        assert state_of(v, room_id) == state_of(h, room_id)


async def test_coming_back_after_a_restart_with_old_extremities(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        await world.servers["v.test"].join(VIC, room_id, via=["h.test"])
        await world.deliver()
        await world.servers["v.test"].leave(VIC, room_id)
        await world.deliver()
        v = await world.restart("v.test")
        h = world.servers["h.test"]
        with pytest.raises(MatrixError) as refused:
            await v.send(VIC, room_id, "m.room.message", {})
        assert refused.value.status == 403
        await h.send(ALICE, room_id, "m.room.message", {})
        await world.deliver()
        await v.join(VIC, room_id, via=["h.test"])
        mine = await v.send(VIC, room_id, "m.room.message", {})
        await world.deliver()
        found = stored(h, mine)
        assert found is not None
        assert found.outcome is Outcome.ACCEPTED
        assert set(v.parts.head(room_id).tips) == {mine}


# -- being the resident ----------------------------------------------------------------------------


async def test_the_newcomer_gets_what_the_room_said_between_make_and_send(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v, h = world.servers["v.test"], world.servers["h.test"]
        meanwhile: list[str] = []

        async def between(honest: Any, *args: Any) -> Any:
            meanwhile.append(await h.send(ALICE, room_id, "m.room.message", {"body": "meanwhile"}))
            return await honest()

        world.hooks["h.test", "send_join"] = between
        await v.join(VIC, room_id, via=["h.test"])
        await world.deliver()
        assert meanwhile[0] in timeline_of(v, room_id)
        assert set(v.parts.head(room_id).tips) == set(h.parts.head(room_id).tips)
        assert len(h.parts.head(room_id).tips) == 1


async def test_a_join_is_sent_on_to_the_other_servers_but_not_back(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v, e = world.servers["v.test"], world.servers["e.test"]
        sent: list[tuple[str, str]] = []
        honest = World.deliver_between

        async def watch(self: World, host: str, target: str) -> bool:
            moved = await honest(self, host, target)
            if moved:
                sent.append((host, target))
            return moved

        await v.join(VIC, room_id, via=["h.test"])
        World.deliver_between = watch  # type: ignore[method-assign]  # put back below
        try:
            await world.deliver()
            await v.leave(VIC, room_id)
            await world.deliver()
        finally:
            World.deliver_between = honest  # type: ignore[method-assign]  # as it was
        assert sent == [("h.test", "e.test"), ("v.test", "h.test"), ("v.test", "e.test")]
        assert membership_of(e, room_id, VIC) == "leave"


async def test_what_a_resident_accepted_it_sends_on(tmp_path: Path) -> None:
    """Knocks, leaves, joins, third-party invites: e.test hears of them from h.test, and only from that."""
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v, h, e = (world.servers[name] for name in ("v.test", "h.test", "e.test"))
        world.cut.add(frozenset(("v.test", "e.test")))
        await h.send(ALICE, room_id, "m.room.join_rules", {"join_rule": "knock"}, state_key="")
        identity = SigningKey.generate(b"i" * 32, "0")
        offer = {
            "display_name": "v",
            "public_key": identity.verify_key_base64,
            "key_validity_url": "https://x",
        }
        await h.send(ALICE, room_id, "m.room.third_party_invite", offer, state_key="token")

        async def heard(user_id: str, membership: str) -> None:
            await world.deliver()
            assert membership_of(e, room_id, user_id) == membership

        await v.knock(VIC, room_id, via=["h.test"], reason=None)
        await heard(VIC, "knock")
        await v.leave(VIC, room_id)
        await heard(VIC, "leave")
        signed = sign_json({"mxid": SECOND, "token": "token"}, "identity.test", identity)
        await v.third_party.bound(
            {"mxid": SECOND, "invites": [{"room_id": room_id, "sender": ALICE, "signed": signed}]}
        )
        await heard(SECOND, "invite")
        await v.join(SECOND, room_id)
        await heard(SECOND, "join")


async def test_the_unsigned_part_of_a_joins_answer_is_not_taken_over(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        v = world.servers["v.test"]

        def talkative(part: str) -> Any:
            return lambda answer: [{**pdu, "unsigned": {"age": 5}} for pdu in answer[part]]

        world.hooks["h.test", "send_join"] = answering(
            state=talkative("state"), auth_chain=talkative("auth_chain")
        )
        await v.join(VIC, room_id, via=["h.test"])
        for event_id in state_of(v, room_id).values():
            assert "unsigned" not in v.serving.event("h.test", event_id)


async def test_the_same_join_handed_in_twice_gets_the_same_answer(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        room_id = await room_with_eve(world)
        h = world.servers["h.test"]
        forger = Forger(world, "e.test", "h.test", room_id)
        join = forger.seal(
            forger.draft("m.room.member", "@new:e.test", {"membership": "join"}, "@new:e.test")
        )
        answers = []
        async with trio.open_nursery() as nursery:

            async def hand_in() -> None:
                answer = await h.resident.send_join("e.test", room_id, forger.id_of(join), join)
                answers.append(await _plain(answer))

            for _ in range(3):
                nursery.start_soon(hand_in)
        assert answers[0] == answers[1] == answers[2]
        assert rows_of(h)[forger.id_of(join)] == Outcome.ACCEPTED


async def _plain(answer: Any) -> Any:
    return copied(answer) if isinstance(answer, dict) else str(type(answer))
