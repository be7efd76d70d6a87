# SPDX-License-Identifier: Apache-2.0
"""Invites to a room that we are in, built upon what we have not heard of: they wait until that is found, and
lead our user into the room if it never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from minihs.matrix.errors import MatrixError
from minihs.matrix.federation_errors import Unreachable
from minihs.rooms import join_by_invite, transactions
from minihs.rooms.service import Rooms
from tests.rooms import invariants
from tests.rooms.forge import Forger, inbox_of, rows_of
from tests.rooms.world import World, membership_of, outbound_rows, state_of, stored, worlds

type JsonObject = dict[str, Any]

ALICE, EVE, VIC, SECOND = "@alice:h.test", "@eve:e.test", "@vic:v.test", "@second:v.test"
GHOST = ["$" + "G" * 43]


async def refuse(honest: Any, *args: Any) -> Any:
    raise Unreachable("somebody", "is busy")


async def the_room(world: World, version: str = "12") -> tuple[Forger, Rooms]:
    """Alice's, with Eve, and with somebody of v.test, which invites come to."""
    e, h, v = (world.servers[name] for name in ("e.test", "h.test", "v.test"))
    room_id = await h.create(ALICE, {"preset": "public_chat", "room_version": version})
    await e.join(EVE, room_id, via=["h.test"])
    await world.deliver()
    await v.join(SECOND, room_id, via=["h.test"])
    await world.deliver()
    return Forger(world, "e.test", "v.test", room_id), v


def keep_silent(world: World, *hosts: str) -> None:
    for host in hosts:
        for verb in ("get_missing_events", "get_state_ids", "get_state", "get_event", "get_event_auth"):
            world.hooks[host, verb] = refuse


def invite(forger: Forger, target: str = VIC, sender: str = EVE, **options: Any) -> JsonObject:
    return forger.seal(forger.draft("m.room.member", sender, {"membership": "invite"}, target, **options))


async def hand_in(world: World, forger: Forger, pdu: JsonObject, origin: str = "e.test") -> JsonObject:
    v = world.servers["v.test"]
    answer: JsonObject = await v.invites.receive(
        origin, forger.room_id, forger.id_of(pdu), forger.version.version, pdu, []
    )
    await world.rest()
    return answer


async def is_refused(world: World, forger: Forger, pdu: JsonObject, status: int = 403) -> None:
    with pytest.raises(MatrixError) as refused:
        await hand_in(world, forger, pdu)
    assert refused.value.status == status


# -- until it is found -----------------------------------------------------------------------------


async def test_an_invite_waits_for_what_it_is_built_upon(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        h, room_id = world.servers["h.test"], forger.room_id
        keep_silent(world, "h.test", "e.test")
        said = await h.send(ALICE, room_id, "m.room.message", {"body": "not delivered yet"})
        await h.invite(ALICE, room_id, VIC)
        await world.wait(10)
        assert membership_of(v, room_id, VIC) is None
        assert list(inbox_of(v).values()) == [1]
        v = await world.restart("v.test")
        world.hooks.clear()
        await world.wait(60)
        assert membership_of(v, room_id, VIC) == "invite"
        assert stored(v, said) is not None
        await world.deliver()
        assert state_of(v, room_id) == state_of(h, room_id)
        unknown = invite(forger, "@third:v.test", auth=["$unknown"])
        await hand_in(world, forger, unknown)
        await world.wait(10)
        assert membership_of(v, room_id, "@third:v.test") is None


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("before", ["ban", "join"])
async def test_an_invite_right_behind_the_end_of_a_ban_or_a_kick_is_taken(
    tmp_path: Path, before: str, delivered: bool
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        h, room_id = world.servers["h.test"], forger.room_id
        if before == "join":
            await v.join(VIC, room_id)
        else:
            await h.ban(ALICE, room_id, VIC)
        await world.deliver()
        assert membership_of(v, room_id, VIC) == before
        await (h.kick if before == "join" else h.unban)(ALICE, room_id, VIC)  # unheard of here
        await h.invite(ALICE, room_id, VIC)
        if delivered:
            await world.deliver()
        else:
            await world.rest()
            assert membership_of(v, room_id, VIC) == before
            await world.wait(10)
        assert membership_of(v, room_id, VIC) == "invite"
        await v.join(VIC, room_id)
        await world.deliver()
        assert membership_of(h, room_id, VIC) == "join"
        assert state_of(v, room_id) == state_of(h, room_id)


@pytest.mark.parametrize("how", ["soft-failed", "rejected", "superseded"])
async def test_an_invite_that_has_been_refused_or_is_over_is_not_signed(tmp_path: Path, how: str) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world, "10")
        h = world.servers["h.test"]
        draft = forger.draft("m.room.member", EVE, {"membership": "invite"}, VIC)
        if how == "rejected":
            draft["auth_events"] = draft["auth_events"][:1]
        pdu = forger.seal(draft)
        if how == "superseded":
            await world.send("e.test", "v.test", [pdu])
            await v.join(VIC, forger.room_id)
            await world.deliver()
            await h.ban(ALICE, forger.room_id, VIC)
            await world.deliver()
        else:
            await h.ban(ALICE, forger.room_id, EVE)
            await world.deliver()
            await world.send("e.test", "v.test", [pdu])
        assert forger.id_of(pdu) in rows_of(v)
        await is_refused(world, forger, pdu)


async def test_an_invite_waits_in_an_inbox_that_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        monkeypatch.setattr(transactions, "MAX_INBOX", 0)
        monkeypatch.setattr(transactions, "MAX_INBOX_OF_SERVER", 0)
        await is_refused(world, forger, invite(forger, prev=GHOST), 429)
        assert not inbox_of(v)


async def test_an_invite_does_not_come_back_to_who_has_left_since(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        keep_silent(world, "e.test", "h.test")
        await hand_in(world, forger, invite(forger, prev=GHOST))
        await v.join(VIC, forger.room_id)
        await v.leave(VIC, forger.room_id)
        await v.leave(SECOND, forger.room_id)
        await world.wait(3600)
        assert not inbox_of(v)
        assert membership_of(v, forger.room_id, VIC) == "leave"


async def test_an_invite_that_waits_is_shown_when_the_last_of_us_has_left(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        h, room_id = world.servers["h.test"], forger.room_id
        keep_silent(world, "h.test", "e.test")
        await h.send(ALICE, room_id, "m.room.message", {"body": "not delivered yet"})
        await h.invite(ALICE, room_id, VIC)
        unsigned = invite(forger, "@third:v.test", prev=GHOST)
        await world.send("e.test", "v.test", [unsigned])
        assert len(inbox_of(v)) == 2
        await v.leave(SECOND, room_id)
        await world.wait(3600)
        assert not inbox_of(v)
        assert membership_of(v, room_id, VIC) == "invite"
        assert membership_of(v, room_id, "@third:v.test") is None
        world.hooks.clear()
        await world.deliver()
        await v.join(VIC, room_id)
        await world.deliver()
        assert state_of(v, room_id) == state_of(h, room_id)


# -- if it never is --------------------------------------------------------------------------------


async def counted_out(world: World, version: str, invited: str = VIC) -> tuple[Forger, Rooms]:
    """Somebody of v.test is in the room as v.test sees it: that he was removed, on top of something that it
    has not got, it was never told. Now there is an invite."""
    forger, v = await the_room(world, version)
    room_id = forger.room_id
    await be_counted_out(world, room_id)
    await world.servers["h.test"].invite(ALICE, room_id, invited)
    await world.wait(10)
    assert membership_of(v, room_id, SECOND) == "join"  # as we see it
    assert membership_of(v, room_id, VIC) is None
    assert list(inbox_of(v).values()) == [1]
    world.asked.clear()
    return forger, v


async def be_counted_out(world: World, room_id: str) -> None:
    h = world.servers["h.test"]
    world.separate("v.test")
    for body in ("one", "two"):
        await h.send(ALICE, room_id, "m.room.message", {"body": body})
    await h.kick(ALICE, room_id, SECOND)
    await h.send(ALICE, room_id, "m.room.message", {"body": "not for v.test"})
    await world.deliver()
    world.sent_up_to["h.test", "v.test"] = outbound_rows(h, "v.test", 0)[-1][0]  # it gave up
    world.reunite()


@pytest.mark.parametrize("version", ["6", "10", "12"])
async def test_who_is_out_of_a_room_unknowingly_is_brought_back(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await counted_out(world, version)
        room_id = forger.room_id
        await v.join(VIC, room_id)
        assert ("v.test", "h.test", "send_join") in world.asked
        await world.deliver()
        said = await v.send(VIC, room_id, "m.room.message", {"body": "here I am"})
        await world.wait(3600)
        await world.deliver()
        assert membership_of(v, room_id, SECOND) == "leave"
        for name in ("h.test", "e.test"):
            other = world.servers[name]
            assert membership_of(other, room_id, VIC) == "join"
            assert stored(other, said) is not None
            assert state_of(v, room_id) == state_of(other, room_id)
        assert not inbox_of(v)
        invariants.check(v, room_id)


async def test_that_a_ban_is_over_is_known_by_the_state_alone(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        h, room_id = world.servers["h.test"], forger.room_id
        await h.ban(ALICE, room_id, VIC)
        await world.deliver()
        await be_counted_out(world, room_id)
        await h.unban(ALICE, room_id, VIC)
        await h.invite(ALICE, room_id, VIC)
        await world.wait(10)
        assert membership_of(v, room_id, VIC) == "ban"
        world.hooks["h.test", "get_missing_events"] = world.hooks["e.test", "get_missing_events"] = refuse
        await v.join(VIC, room_id)
        await world.deliver()
        assert membership_of(v, room_id, VIC) == membership_of(h, room_id, VIC) == "join"


async def test_who_was_removed_unknowingly_is_brought_back_too(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await counted_out(world, "12", SECOND)
        h, room_id = world.servers["h.test"], forger.room_id
        assert (membership_of(v, room_id, SECOND), membership_of(h, room_id, SECOND)) == ("join", "invite")
        await v.join(SECOND, room_id)
        await world.deliver()
        assert membership_of(h, room_id, SECOND) == "join"
        said = await h.send(ALICE, room_id, "m.room.message", {"body": "welcome back"})
        await world.deliver()
        assert stored(v, said) is not None
        assert state_of(v, room_id) == state_of(h, room_id)


@pytest.mark.parametrize("verb", ["make_join", "send_join"])
async def test_if_its_server_lets_nobody_in_the_room_is_joined_as_we_see_it(
    tmp_path: Path, verb: str
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await counted_out(world, "12")
        world.hooks["h.test", verb] = refuse
        await v.join(VIC, forger.room_id)  # anybody may
        assert ("v.test", "h.test", verb) in world.asked
        assert membership_of(v, forger.room_id, VIC) == "join"


async def test_only_who_is_in_the_room_leads_into_it(tmp_path: Path) -> None:
    """And only by an invite of that user, of its own."""
    async with worlds(tmp_path, "v.test", "h.test", "e.test", "x.test") as world:
        forger, v = await the_room(world)
        keep_silent(world, "e.test", "h.test", "x.test")
        of_another = {"membership": "invite", "reason": VIC}
        await world.send(
            "e.test",
            "v.test",
            [
                forger.seal(forger.draft("m.room.member", EVE, of_another, "@third:v.test", prev=GHOST)),
                forger.seal(forger.draft("m.room.member", EVE, {"membership": "ban"}, VIC, prev=GHOST)),
                forger.seal(forger.draft("m.room.message", EVE, {"body": VIC}, prev=GHOST)),
            ],
        )
        outsider = Forger(world, "x.test", "v.test", forger.room_id)
        await hand_in(world, outsider, invite(outsider, sender="@x:x.test", prev=GHOST), "x.test")
        assert len(inbox_of(v)) == 4
        world.asked.clear()
        await v.join(VIC, forger.room_id)
        assert not world.asked
        assert membership_of(v, forger.room_id, VIC) == "join"


async def test_so_many_servers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in the room whose invites came last, however many others come after them."""
    async with worlds(tmp_path, "v.test", "h.test", "e.test", "x.test") as world:
        forger, v = await the_room(world)
        keep_silent(world, "e.test", "h.test", "x.test")
        alices = Forger(world, "h.test", "v.test", forger.room_id)
        await hand_in(world, alices, invite(alices, sender=ALICE, prev=GHOST), "h.test")
        for n in range(3):
            await hand_in(world, forger, invite(forger, prev=GHOST, origin_server_ts=1000 + n))
        outsider = Forger(world, "x.test", "v.test", forger.room_id)
        for n in range(3):
            pdu = invite(outsider, sender=f"@x{n}:x.test", prev=GHOST)
            await hand_in(world, outsider, pdu, "x.test")
        world.hooks["h.test", "make_join"] = world.hooks["e.test", "make_join"] = refuse
        for limit, asked in ((2, ["e.test", "h.test"]), (1, ["e.test"])):
            monkeypatch.setattr(join_by_invite, "MAX_ASKED", limit)
            world.asked.clear()
            await v.join(VIC, forger.room_id)
            assert [host for _, host, verb in world.asked if verb == "make_join"] == asked


@pytest.mark.parametrize("built_on", ["a ghost", "what we rejected", "the newest event", "nobody's word"])
async def test_who_leads_nowhere_does_not_keep_our_user_out(tmp_path: Path, built_on: str) -> None:
    """A server in the room that tells nobody of the join, shows nobody what it is built upon, or has us make
    one that is against the rules. We are out of the room as others see it, and Alice has invited our user."""
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world, "10")
        h, room_id = world.servers["h.test"], forger.room_id
        bad = forger.seal(forger.draft("m.room.power_levels", EVE, {"users": {EVE: 100}}, ""))
        await world.send("e.test", "v.test", [bad])
        prev = {"a ghost": GHOST, "what we rejected": [forger.id_of(bad)]}.get(built_on, forger.tips)
        auth = forger.auth_events("m.room.member", VIC, VIC, {"membership": "join"})
        await h.send(ALICE, room_id, "m.room.join_rules", {"join_rule": "invite"}, state_key="")
        await world.deliver()
        await be_counted_out(world, room_id)
        await h.invite(ALICE, room_id, VIC)
        keep_silent(world, "e.test")
        await hand_in(world, forger, invite(forger, prev=GHOST))  # newer than Alice's

        async def make(honest: Any, asker: str, room_id: str, user_id: str) -> Any:
            event = {
                "type": "m.room.member",
                "room_id": room_id,
                "sender": user_id,
                "state_key": user_id,
                "content": {"membership": "join"},
                "depth": 1000,
                "prev_events": forger.references(prev),
                "auth_events": forger.references([] if built_on == "nobody's word" else auth),
            }
            return {"event": event, "room_version": "10"}

        async def send(honest: Any, asker: str, room_id: str, event_id: str, pdu: Any) -> Any:
            return {"state": [], "auth_chain": [], "event": pdu}

        world.hooks["e.test", "make_join"], world.hooks["e.test", "send_join"] = make, send
        await v.join(VIC, room_id)
        await world.deliver()
        assert membership_of(v, room_id, VIC) == "join"
        await v.send(VIC, room_id, "m.room.message", {"body": "here I am"})
        await world.deliver()
        assert membership_of(h, room_id, VIC) == "join"
        assert not inbox_of(h)


async def test_two_servers_lead_each_others_users_into_a_room_at_the_same_time(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        h, room_id, bob = world.servers["h.test"], forger.room_id, "@bob:h.test"
        keep_silent(world, "h.test", "v.test", "e.test")
        await h.send(ALICE, room_id, "m.room.message", {"body": "not delivered yet"})
        await v.send(SECOND, room_id, "m.room.message", {"body": "not delivered yet"})
        await h.invite(ALICE, room_id, VIC)
        await v.invite(SECOND, room_id, bob)
        await world.wait(10)
        assert (len(inbox_of(v)), len(inbox_of(h))) == (1, 1)
        world.hooks.clear()
        both, asked = trio.Event(), []

        async def meet(honest: Any, *args: Any) -> Any:
            asked.append(args[0])
            if len(asked) == 2:
                both.set()
            await both.wait()
            return await honest()

        world.hooks["h.test", "send_join"] = world.hooks["v.test", "send_join"] = meet
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(v.join, VIC, room_id)
                nursery.start_soon(h.join, bob, room_id)
        assert sorted(asked) == ["h.test", "v.test"]
        await world.deliver()
        assert state_of(v, room_id) == state_of(h, room_id)
        assert {membership_of(v, room_id, user) for user in (VIC, bob)} == {"join"}


async def test_the_room_goes_on_while_the_inviting_server_takes_its_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        forger, v = await the_room(world)
        h, room_id = world.servers["h.test"], forger.room_id
        keep_silent(world, "e.test")
        await hand_in(world, forger, invite(forger, prev=GHOST))

        async def never(honest: Any, *args: Any) -> Any:
            await trio.sleep_forever()

        world.hooks["e.test", "make_join"] = never
        async with trio.open_nursery() as nursery:
            nursery.start_soon(v.join, VIC, room_id)
            nursery.start_soon(v.join, VIC, room_id)  # its client tries again
            await trio.sleep(1)
            theirs = await h.send(ALICE, room_id, "m.room.message", {"body": "hello"})
            await world.deliver_between("h.test", "v.test")
            ours = await v.send(SECOND, room_id, "m.room.message", {"body": "hello"})
            await trio.sleep(1)
            assert stored(v, theirs) is not None
            assert stored(v, ours) is not None
            assert membership_of(v, room_id, VIC) is None
        assert membership_of(v, room_id, VIC) == "join"
        assert trio.current_time() < 2 * join_by_invite.PATIENCE
        assert world.asked.count(("v.test", "e.test", "make_join")) == 1
