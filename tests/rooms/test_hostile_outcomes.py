# SPDX-License-Identifier: Apache-2.0
"""What becomes of events that were not accepted, and of what is built upon them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event, build_event
from minihs.matrix.hashes import event_id_of
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.admission import Source
from minihs.rooms.placement import add_outlier
from minihs.store.events import Outcome
from tests.rooms.forge import inbox_of, rows_of
from tests.rooms.hostile_paths import ALICE, EVE, VIC, Scene, scenes
from tests.rooms.world import World, membership_of, state_of, stored, timeline_of, worlds

type JsonObject = dict[str, Any]
VERSIONS = ["1", "2", "6", "10", "11", "12"]


def topic(scene: Scene, **options: Any) -> tuple[JsonObject, str]:
    """Eve has not the power for that."""
    pdu = scene.forger.seal(scene.forger.draft("m.room.topic", EVE, {"topic": "mine"}, "", **options))
    return pdu, scene.forger.id_of(pdu)


def tips(scene: Scene) -> set[str]:
    return set(scene.victim.parts.head(scene.room_id).tips)


@pytest.mark.parametrize("version", VERSIONS)
async def test_rejected_stays_rejected(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        before = state_of(scene.victim, scene.room_id)
        bad, bad_id = topic(scene)
        assert await scene.world.send("e.test", "v.test", [bad]) == {"pdus": {bad_id: {}}}
        assert rows_of(scene.victim)[bad_id] == Outcome.REJECTED

        # sent again, by others, and after a restart
        for sender in ("e.test", "h.test"):
            await scene.world.send(sender, "v.test", [bad])
        await scene.world.restart("v.test")
        await scene.world.send("e.test", "v.test", [bad])
        assert rows_of(scene.victim)[bad_id] == Outcome.REJECTED

        # as a prev event: what follows is judged without it
        child, child_id = scene.good(prev=[bad_id])
        await scene.world.send("e.test", "v.test", [child])
        assert rows_of(scene.victim)[child_id] == Outcome.ACCEPTED
        assert state_of(scene.victim, scene.room_id) == before
        assert bad_id not in tips(scene)
        assert bad_id not in timeline_of(scene.victim, scene.room_id)

        # as an auth event
        state = scene.forger.state
        auth = [*scene.forger.auth_events("m.room.message", EVE, None, {})]
        member = scene.forger.draft("m.room.member", EVE, {"membership": "join", "x": 1}, EVE, auth=[])
        if scene.forger.version.create_event_in_auth_events:
            member["auth_events"] = scene.forger.references([state["m.room.create", ""]])
        unauthorised = scene.forger.seal(member)
        unauthorised_id = scene.forger.id_of(unauthorised)
        await scene.world.send("e.test", "v.test", [unauthorised])
        assert rows_of(scene.victim)[unauthorised_id] == Outcome.REJECTED
        swapped = [unauthorised_id if each == state["m.room.member", EVE] else each for each in auth]
        assert unauthorised_id in swapped
        citing = scene.forger.seal(scene.forger.draft("m.room.message", EVE, {}, auth=swapped))
        await scene.world.send("e.test", "v.test", [citing])
        assert rows_of(scene.victim)[scene.forger.id_of(citing)] == Outcome.REJECTED
        assert state_of(scene.victim, scene.room_id) == before


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_rejected_event_does_not_come_in_by_state_resolution(tmp_path: Path, version: str) -> None:
    """A fork on top of it, and one beside it, are resolved: it is in neither state."""
    async with scenes(tmp_path, version) as scene:
        start = sorted(tips(scene))
        bad, bad_id = topic(scene, prev=start)
        left, left_id = scene.good(prev=[bad_id])
        right = scene.forger.seal(
            scene.forger.draft("m.room.member", EVE, {"membership": "join", "x": 1}, EVE, prev=start)
        )
        right_id = scene.forger.id_of(right)
        await scene.world.send("e.test", "v.test", [bad, left, right])
        assert tips(scene) == {left_id, right_id}
        merge, merge_id = scene.good(prev=[left_id, right_id])
        await scene.world.send("e.test", "v.test", [merge])
        assert tips(scene) == {merge_id}
        state = state_of(scene.victim, scene.room_id)
        assert ("m.room.topic", "") not in state
        assert state["m.room.member", EVE] == right_id
        assert rows_of(scene.victim)[bad_id] == Outcome.REJECTED


async def test_a_rejected_event_does_not_come_in_by_the_answer_to_a_join(tmp_path: Path) -> None:
    """Its auth events allow it, the state before it did not; by the answer's own rules it would be fine."""
    async with scenes(tmp_path, "12") as scene:
        h = scene.world.servers["h.test"]
        levels = h.parts.graph.event(scene.forger.state["m.room.power_levels", ""])
        assert levels is not None
        mighty = {**levels.content, "users": {EVE: 50}}
        await h.send(ALICE, scene.room_id, "m.room.power_levels", mighty, state_key="")
        await scene.world.deliver()
        auth = scene.forger.auth_events("m.room.topic", EVE, "", {})
        await h.send(ALICE, scene.room_id, "m.room.power_levels", levels.content, state_key="")
        await scene.world.deliver()
        bad, bad_id = topic(scene, auth=auth)
        await scene.world.send("e.test", "v.test", [bad])
        assert rows_of(scene.victim)[bad_id] == Outcome.REJECTED
        _, chain = scene.forger.state_answer()

        async def lie(honest: Any, *args: Any) -> Any:
            answer = await honest()
            return {**answer, "state": [*answer["state"], bad], "auth_chain": chain}

        scene.world.hooks["h.test", "send_join"] = lie
        await scene.victim.leave(VIC, scene.room_id)
        await scene.world.deliver()
        await scene.victim.join(VIC, scene.room_id, via=["h.test"])
        await scene.world.rest()
        assert ("m.room.topic", "") not in state_of(scene.victim, scene.room_id)
        assert rows_of(scene.victim)[bad_id] == Outcome.REJECTED


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("hide_ban", [False, True])
async def test_a_ban_is_not_evaded_by_a_state_of_before_it(
    tmp_path: Path, version: str, hide_ban: bool
) -> None:
    """What lies beyond a gap counts beside what we know, not instead of it."""
    async with scenes(tmp_path, version) as scene:
        h = scene.world.servers["h.test"]
        ghost, ghost_id = scene.good()
        known, auth = {ghost_id: ghost}, scene.forger.auth_events("m.room.message", EVE, None, {})
        scene.answer_honestly(known)
        before = dict(scene.answers)
        await h.ban(ALICE, scene.room_id, EVE)
        await scene.world.deliver()
        banned = state_of(scene.victim, scene.room_id)
        scene.answers = before
        if hide_ban:  # and who had the power to
            keep = [each for each in before["get_state_ids"][0] if each != banned["m.room.power_levels", ""]]
            scene.answers["get_state_ids"] = (keep, before["get_state_ids"][1])
        evading, evading_id = scene.good(prev=[ghost_id], auth=auth)
        await scene.world.send("e.test", "v.test", [evading])
        assert rows_of(scene.victim)[evading_id] == Outcome.SOFT_FAILED
        back = scene.forger.draft("m.room.member", EVE, {"membership": "join"}, EVE, prev=[ghost_id])
        back["auth_events"] = scene.forger.draft(
            "m.room.member", EVE, {"membership": "join"}, EVE, auth=auth
        )["auth_events"]
        sealed = scene.forger.seal(back)
        await scene.world.send("e.test", "v.test", [sealed])
        assert rows_of(scene.victim)[scene.forger.id_of(sealed)] != Outcome.ACCEPTED
        assert state_of(scene.victim, scene.room_id) == banned


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_soft_failed_event_is_neither_shown_nor_built_upon(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        h = scene.world.servers["h.test"]
        old, auth = sorted(tips(scene)), scene.forger.auth_events("m.room.message", EVE, None, {})
        await h.ban(ALICE, scene.room_id, EVE)
        await scene.world.deliver()
        now = tips(scene)
        evading, evading_id = scene.good(prev=old, auth=auth)
        assert await scene.world.send("e.test", "v.test", [evading]) == {"pdus": {evading_id: {}}}
        assert rows_of(scene.victim)[evading_id] == Outcome.SOFT_FAILED
        assert evading_id not in timeline_of(scene.victim, scene.room_id)
        assert tips(scene) == now
        mine = await scene.victim.send(VIC, scene.room_id, "m.room.message", {})
        event = scene.victim.parts.graph.event(mine)
        assert event is not None
        assert evading_id not in event.prev_events
        assert scene.victim.serving.event("h.test", evading_id) == evading
        assert evading_id not in await given(scene, mine)

        # Somebody who did not know of the ban built upon it: that is fine, and the extremities are none the
        # more for it.
        theirs = scene.forger.seal(
            scene.forger.draft("m.room.message", ALICE, {}, prev=[evading_id, mine]), "h.test"
        )
        await scene.world.send("h.test", "v.test", [theirs])
        assert rows_of(scene.victim)[scene.forger.id_of(theirs)] == Outcome.ACCEPTED
        assert tips(scene) == {scene.forger.id_of(theirs)}
        assert evading_id in await given(scene, scene.forger.id_of(theirs))


async def given(scene: Scene, event_id: str) -> set[str]:
    """What h.test gets of the past before an event: by both ways the same."""
    serving, version = scene.victim.serving, scene.victim.parts.head(scene.room_id).version
    past = await serving.backfill("h.test", scene.room_id, [event_id], 15)
    missing = await serving.missing_events(
        "h.test", scene.room_id, earliest=[], latest=[event_id], limit=14, min_depth=0
    )
    by_backfill = {event_id_of(canonical.loads(each), version) for each in past}
    assert by_backfill - {event_id} == {event_id_of(canonical.loads(each), version) for each in missing}
    return by_backfill


async def test_an_event_built_on_a_rejected_one_replaces_what_that_was_built_on(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        h = scene.world.servers["h.test"]
        old, auth = sorted(tips(scene)), scene.forger.auth_events("m.room.message", EVE, None, {})
        await h.ban(ALICE, scene.room_id, EVE)
        await scene.world.deliver()
        (ban,) = tips(scene)
        evading, evading_id = scene.good(prev=[*old, ban], auth=auth)
        await scene.world.send("e.test", "v.test", [evading])
        assert rows_of(scene.victim)[evading_id] == Outcome.REJECTED  # after the ban, so by the state before
        child = scene.forger.seal(
            scene.forger.draft("m.room.message", ALICE, {}, prev=[evading_id]), "h.test"
        )
        await scene.world.send("h.test", "v.test", [child])
        assert tips(scene) == {scene.forger.id_of(child)}


# -- what must not mix -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_event_that_follows_another_rooms_event_is_rejected(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        before = state_of(scene.victim, scene.room_id)
        there = sorted(scene.victim.parts.head(scene.other_room).tips)
        for prev in (there, [*there, *sorted(tips(scene))]):
            pdu, event_id = scene.good(prev=prev)
            await scene.world.send("e.test", "v.test", [pdu])
            assert rows_of(scene.victim)[event_id] == Outcome.REJECTED
        assert state_of(scene.victim, scene.room_id) == before


@pytest.mark.parametrize("version", ["1", "6", "11"])
async def test_a_room_has_one_create_event(tmp_path: Path, version: str) -> None:
    """Rule 1 allows any number of them, by the server that the room is named after."""
    async with scenes(tmp_path, version) as scene:
        before = state_of(scene.victim, scene.room_id)
        for state_key in ("", "x"):
            content = {"room_version": version, "creator": ALICE}
            second = scene.forger.draft("m.room.create", ALICE, content, state_key, prev=[], auth=[])
            if "event_id" in second:
                second["event_id"] = f"$second{state_key}:h.test"
            second = scene.forger.seal(second, "h.test")
            await scene.world.send("h.test", "v.test", [second])
            assert rows_of(scene.victim)[scene.forger.id_of(second)] == Outcome.REJECTED
        assert state_of(scene.victim, scene.room_id) == before


async def test_an_event_without_parents_is_rejected(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        before = tips(scene)
        pdu, event_id = scene.good(prev=[])
        await scene.world.send("e.test", "v.test", [pdu])
        assert rows_of(scene.victim)[event_id] == Outcome.REJECTED
        assert tips(scene) == before


@pytest.mark.parametrize("version", ["1", "2"])
async def test_events_that_name_each_other_in_a_circle_are_dropped(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        one = scene.message(prev=["$two:e.test"]) | {"event_id": "$one:e.test"}
        two = scene.message(prev=["$one:e.test"]) | {"event_id": "$two:e.test"}
        own = scene.message(prev=["$own:e.test"]) | {"event_id": "$own:e.test"}
        pdus = [scene.forger.seal(pdu) for pdu in (one, two, own)]
        scene.answer_honestly({})
        scene.answers["get_missing_events"] = pdus
        await scene.world.send("e.test", "v.test", pdus)
        assert not {"$one:e.test", "$two:e.test", "$own:e.test"} & rows_of(scene.victim).keys()
        assert inbox_of(scene.victim) == {}


@pytest.mark.parametrize("lie", ["1", "6"])
async def test_what_an_invite_claims_of_a_rooms_version_binds_nobody(tmp_path: Path, lie: str) -> None:
    """Anybody can invite a user of ours to any room, and say of its version what they like."""
    async with worlds(tmp_path, "v.test", "h.test", "e.test") as world:
        v, h = world.servers["v.test"], world.servers["h.test"]
        room_id = await h.create(ALICE, {"room_version": "10", "preset": "public_chat"})
        await _invite_as(world, room_id, lie)
        await h.invite(ALICE, room_id, VIC)
        assert membership_of(v, room_id, VIC) == "invite"
        second = "@second:v.test"
        await h.invite(ALICE, room_id, second)
        await h.kick(ALICE, room_id, second)
        await world.deliver()
        assert membership_of(v, room_id, second) == "leave"
        await v.join(VIC, room_id)
        await world.deliver()
        assert state_of(v, room_id) == state_of(h, room_id)
        event_id = await v.send(VIC, room_id, "m.room.message", {})
        await world.deliver()
        assert timeline_of(h, room_id)[-1] == event_id
        found = stored(v, event_id)
        assert found is not None
        assert found.event.version.version == "10"
        # Once we are in it, we know better than to believe such an invite.
        with pytest.raises(MatrixError):
            await _invite_as(world, room_id, "2")


async def _invite_as(world: World, room_id: str, version: str) -> None:
    event = build_event(
        version=ROOM_VERSIONS[version],
        room_id=room_id,
        type="m.room.member",
        sender=EVE,
        content={"membership": "invite"},
        state_key="@first:v.test",
        depth=1,
        prev_events=[],
        auth_events=[],
        origin_server_ts=1,
        server_name="e.test",
        key=world.keys["e.test"],
        random_id="claim" + version,
    )
    v = world.servers["v.test"]
    await v.invites.receive("e.test", room_id, event.event_id, version, event.json, [])


@pytest.mark.parametrize("version", ["6", "12"])
async def test_an_event_that_was_first_shown_redacted_is_kept_whole_when_it_comes_whole(
    tmp_path: Path, version: str
) -> None:
    async with scenes(tmp_path, version) as scene:
        first, later = scene.good(), scene.good()
        head = scene.victim.parts.take_head(scene.room_id)
        batch = scene.victim.parts.batch(head)
        create = head.create_event(scene.victim.parts.graph)
        for pdu, _ in (first, later):
            event = Event.from_wire(pdu, head.version)
            add_outlier(batch, event.redacted(), 1, create, Source.STATE)
        await batch.commit()
        # Of the second there is a redaction meanwhile: that stays.
        await scene.world.servers["h.test"].redact(ALICE, scene.room_id, later[1], {}, None, None)
        await scene.world.deliver()
        for pdu, _ in (first, later):
            await scene.world.send("e.test", "v.test", [pdu])
        for (pdu, event_id), content in ((first, first[0]["content"]), (later, {})):
            found = stored(scene.victim, event_id)
            assert found is not None
            assert (found.outlier, found.event.content) == (False, content), pdu
            assert event_id in timeline_of(scene.victim, scene.room_id)


@pytest.mark.parametrize("version", ["6", "12"])
async def test_who_passes_on_an_event_redacted_does_not_hide_it_for_good(
    tmp_path: Path, version: str
) -> None:
    async with scenes(tmp_path, version) as scene:
        h = scene.world.servers["h.test"]
        said = await h.send(ALICE, scene.room_id, "m.room.message", {"body": "what Alice said"})
        gone = await h.send(ALICE, scene.room_id, "m.room.message", {"body": "what she took back"})
        whole = {each: h.parts.graph.event(each) for each in (said, gone)}
        for event in whole.values():
            assert event is not None
            assert await scene.world.send("e.test", "v.test", [event.redacted().json]) == {
                "pdus": {event.event_id: {}}
            }
            assert scene.victim.serving.event("h.test", event.event_id)["content"] == {}
        shown = timeline_of(scene.victim, scene.room_id)
        redaction = await h.redact(ALICE, scene.room_id, gone, {}, None, None)
        await scene.world.deliver()
        again = [event.json for event in whole.values() if event is not None]
        await scene.world.send("e.test", "v.test", again)
        for event_id, content in ((said, {"body": "what Alice said"}), (gone, {})):
            found = stored(scene.victim, event_id)
            assert found is not None
            assert found.event.content == content
        assert timeline_of(scene.victim, scene.room_id) == [*shown, redaction]
        # Nobody can make it another.
        forged = {**whole[said].json, "content": {"body": "what Eve says"}}  # type: ignore[union-attr]  # it is in the store
        await scene.world.send("e.test", "v.test", [forged])
        assert scene.victim.serving.event("h.test", said)["content"] == {"body": "what Alice said"}


@pytest.mark.parametrize("version", ["2", "6", "12"])
async def test_what_was_allowed_a_moment_ago_is_allowed_to_its_like_only(
    tmp_path: Path, version: str
) -> None:
    """Messages that differ in nothing that the rules look at are judged once, and no others with them."""
    async with scenes(tmp_path, version) as scene:
        forger = scene.forger
        sound = [scene.good() for _ in range(3)]
        auth = scene.message()["auth_events"]
        member = forger.references([forger.state["m.room.member", EVE]])
        wrong = [
            forger.draft(
                "m.room.message", EVE, {}, auth_events=[each for each in auth if each not in member]
            ),
            forger.draft("m.room.message", "@nobody:e.test", {}, auth_events=auth),
            forger.draft("m.room.message", EVE, {}, state_key="@vic:v.test"),
            forger.draft("m.room.member", EVE, {"membership": "ban"}, state_key=ALICE, auth_events=auth),
            forger.draft("m.room.server_acl", EVE, {}, state_key=""),
        ]
        if version == "2":
            wrong.append(forger.draft("m.room.redaction", EVE, {}, redacts="$of:h.test"))
        sealed = [forger.seal(pdu) for pdu in wrong]
        await scene.world.send("e.test", "v.test", [sound[0][0], sound[1][0], *sealed, sound[2][0]])
        outcomes = rows_of(scene.victim)
        assert {outcomes[event_id] for _, event_id in sound} == {Outcome.ACCEPTED}
        assert [outcomes[forger.id_of(pdu)] for pdu in sealed] == [Outcome.REJECTED] * len(sealed)
        # Of a type that is not for everybody any more, there where this is known and only there.
        levels = {"users": {ALICE: 100}, "events": {"m.room.message": 50}}
        if version != "12":
            await scene.world.servers["h.test"].send(
                ALICE, scene.room_id, "m.room.power_levels", levels, state_key=""
            )
            await scene.world.deliver()
            late, late_id = scene.good(auth_events=auth)
            await scene.world.send("e.test", "v.test", [late])
            assert rows_of(scene.victim)[late_id] == Outcome.REJECTED


@pytest.mark.parametrize("version", ["2", "6", "12"])
async def test_what_was_allowed_a_moment_ago_is_not_allowed_by_what_is_rejected_since(
    tmp_path: Path, version: str
) -> None:
    """An auth event that came alone is judged by its own auth events only, and once more at its place."""
    async with scenes(tmp_path, version) as scene:
        forger = scene.forger
        first, first_id = scene.good()
        ban = forger.seal(
            forger.draft("m.room.member", ALICE, {"membership": "ban"}, EVE, prev=[first_id]), "h.test"
        )
        # Allowed by what it cites, as if there were no ban.
        again = forger.seal(
            forger.draft("m.room.member", EVE, {"membership": "join"}, EVE, prev=[forger.id_of(ban)])
        )
        head = scene.victim.parts.take_head(scene.room_id)
        batch = scene.victim.parts.batch(head)
        create = head.create_event(scene.victim.parts.graph)
        add_outlier(batch, Event.from_wire(again, head.version), 1, create, Source.STATE)
        await batch.commit()

        member = forger.references([forger.state["m.room.member", EVE]])
        auth = [each for each in scene.message()["auth_events"] if each not in member]
        auth += forger.references([forger.id_of(again)])
        before, after = (scene.good(prev=[first_id], auth_events=auth) for _ in range(2))
        await scene.world.send("e.test", "v.test", [first, before[0], ban, again, after[0]])
        outcomes = rows_of(scene.victim)
        assert outcomes[before[1]] == Outcome.ACCEPTED
        assert outcomes[forger.id_of(again)] == Outcome.REJECTED
        assert outcomes[after[1]] == Outcome.REJECTED


async def test_an_event_is_judged_by_the_rooms_version_and_not_by_the_one_it_was_read_by(
    tmp_path: Path,
) -> None:
    """Where a join is under way it is what the server says that is asked first. The next may say another."""
    async with scenes(tmp_path, "10") as scene:
        levels = {"users": {ALICE: 100, EVE: "50"}}  # a text: good up to room version 9
        pdu = scene.forger.seal(scene.forger.draft("m.room.power_levels", ALICE, levels, ""), "h.test")
        receiver = scene.victim.receiver
        receiver.joining[scene.room_id] = "9"
        assert await scene.world.send("e.test", "v.test", [pdu]) == {"pdus": {scene.forger.id_of(pdu): {}}}
        del receiver.joining[scene.room_id]
        receiver.look_again()
        await scene.world.deliver()
        assert rows_of(scene.victim)[scene.forger.id_of(pdu)] == Outcome.REJECTED
