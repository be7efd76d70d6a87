# SPDX-License-Identifier: Apache-2.0
"""Joining by partial state: in the room at once, whole later, and then as if it had always been whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.cli.explain import room_text
from minihs.matrix.errors import MatrixError
from minihs.rooms import partial_replay, whole
from minihs.rooms.explain import explain_room
from minihs.rooms.service import Rooms
from minihs.store import rooms as room_store
from minihs.store import state, timeline
from minihs.store.events import Outcome
from tests.rooms import invariants
from tests.rooms.forge import Forger, inbox_of, rows_of
from tests.rooms.partial_kit import ALICE, BOB, EVE, SECOND, VIC, scenes
from tests.rooms.world import membership_of, state_of, stored, timeline_of

type JsonObject = dict[str, Any]


@pytest.mark.parametrize("version", ["1", "6", "10", "12"])
async def test_we_are_in_at_once_and_whole_later(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        await scene.join()
        assert scene.is_partial
        assert membership_of(scene.v, scene.room_id, VIC) == "join"
        assert ("m.room.name", "") in state_of(scene.v, scene.room_id)
        assert ("m.room.power_levels", "") in state_of(scene.v, scene.room_id)
        await scene.complete()
        scene.check_like_others()
        for user_id in (ALICE, BOB, EVE, VIC):
            assert membership_of(scene.v, scene.room_id, user_id) == "join"


async def test_what_is_said_meanwhile_goes_both_ways(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        theirs = await scene.say(scene.h, BOB, "hello")
        ours = await scene.say(scene.v, VIC, "hello, all of you")
        await scene.world.deliver()
        assert scene.is_partial
        assert [theirs, ours] == timeline_of(scene.v, scene.room_id)[-2:]
        # Everybody whom the resident named got it, though we know nobody there.
        assert timeline_of(scene.e, scene.room_id)[-1] == ours
        await scene.complete()
        assert [theirs, ours] == timeline_of(scene.v, scene.room_id)[-2:]
        scene.check_like_others()


async def test_it_ends_as_a_join_of_the_whole_ends(tmp_path: Path) -> None:
    """The same things happen to two servers that joined at the same time, one by part of the state."""
    async with scenes(tmp_path) as scene:
        world = scene.world
        world.partial_joins = False
        w = await world.start("w.test")
        await w.join("@will:w.test", scene.room_id, via=["h.test"])
        await scene.join()
        await world.deliver()
        await scene.say(scene.h, BOB, "one")
        await scene.h.send(ALICE, scene.room_id, "m.room.topic", {"topic": "T"}, state_key="")
        await scene.h.ban(ALICE, scene.room_id, EVE)
        await world.deliver()
        await scene.h.leave(BOB, scene.room_id)
        await scene.say(scene.v, VIC, "two")
        await scene.say(w, "@will:w.test", "three")
        assert scene.is_partial
        await scene.complete()
        scene.check_like_others()
        assert state_of(scene.v, scene.room_id) == state_of(w, scene.room_id)
        after_join = timeline_of(scene.v, scene.room_id)
        assert after_join == timeline_of(w, scene.room_id)[-len(after_join) :]
        for event_id in after_join:
            mine, theirs = stored(scene.v, event_id), stored(w, event_id)
            assert mine is not None
            assert theirs is not None
            for ours, others in (
                (mine.before_group, theirs.before_group),
                (mine.after_group, theirs.after_group),
            ):
                assert ours is not None
                assert others is not None
                assert scene.v.parts.graph.full_group(ours) == w.parts.graph.full_group(others)
        assert table(scene.v, "memberships", scene.room_id) == table(w, "memberships", scene.room_id)
        assert table(scene.v, "room_hosts", scene.room_id) == table(w, "room_hosts", scene.room_id)


def table(server: Rooms, name: str, room_id: str) -> dict[str, Any]:
    columns = {
        "memberships": "user_id, membership FROM memberships",
        "room_hosts": "host, joined FROM room_hosts JOIN hosts USING (host_nid)",
    }
    rows = server.parts.db.read.execute(
        f"SELECT {columns[name]} WHERE room_nid = (SELECT room_nid FROM rooms WHERE room_id = ?)", (room_id,)
    ).fetchall()
    return dict(rows)


@pytest.mark.parametrize("version", ["2", "10", "12"])
async def test_what_somebody_says_who_is_banned_is_taken_back(tmp_path: Path, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        forger = Forger(scene.world, "e.test", "h.test", scene.room_id)
        joined = state_of(scene.h, scene.room_id)["m.room.member", EVE]
        auth = forger.auth_events("m.room.message", EVE, None, {})
        assert joined in auth
        await scene.h.ban(ALICE, scene.room_id, EVE)
        await scene.world.deliver()
        await scene.join()
        # She cites the membership that she had, and builds on what came after the ban.
        said = forger.seal(forger.draft("m.room.message", EVE, {"body": "I am still here"}, auth=auth))
        topped = forger.seal(
            forger.draft("m.room.message", EVE, {"body": "and again"}, auth=auth, prev=[forger.id_of(said)])
        )
        await scene.world.send("e.test", "v.test", [said, topped])
        bad = [forger.id_of(said), forger.id_of(topped)]
        assert timeline_of(scene.v, scene.room_id)[-2:] == bad
        ours = await scene.v.send(VIC, scene.room_id, "m.room.message", {"body": "who are you?"})
        await scene.complete()
        assert [rows_of(scene.v)[event_id] for event_id in bad] == [Outcome.REJECTED, Outcome.REJECTED]
        assert not set(bad) & set(timeline_of(scene.v, scene.room_id))
        assert set(scene.v.parts.head(scene.room_id).tips) == {ours}
        assert rows_of(scene.v)[ours] == Outcome.ACCEPTED
        after = await scene.say(scene.v, VIC, "gone")
        assert timeline_of(scene.v, scene.room_id)[-1] == after


async def test_state_that_somebody_sets_who_is_banned_is_taken_back(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        levels = scene.h.parts.graph.event(state_of(scene.h, scene.room_id)["m.room.power_levels", ""])
        assert levels is not None
        users = {**levels.content.get("users", {}), EVE: 50}
        await scene.h.send(
            ALICE, scene.room_id, "m.room.power_levels", {**levels.content, "users": users}, state_key=""
        )
        forger = Forger(scene.world, "e.test", "h.test", scene.room_id)
        auth = forger.auth_events("m.room.topic", EVE, "", {})
        await scene.h.ban(ALICE, scene.room_id, EVE)
        await scene.world.deliver()
        await scene.join()
        topic = forger.seal(forger.draft("m.room.topic", EVE, {"topic": "mine"}, "", auth=auth))
        await scene.world.send("e.test", "v.test", [topic])
        assert state_of(scene.v, scene.room_id)["m.room.topic", ""] == forger.id_of(topic)
        told = position(scene.v)
        await scene.complete()
        assert ("m.room.topic", "") not in state_of(scene.v, scene.room_id)
        # A client that was told the topic is told that it is gone; not that all the members are new.
        changed = changes_since(scene.v, scene.room_id, told)
        assert ("m.room.topic", "") in changed
        assert not [key for key in changed if key[0] == "m.room.member" and key[1] in (ALICE, BOB)]


def position(server: Rooms) -> int:
    row = server.parts.db.read.execute("SELECT pos FROM stream").fetchone()
    return int(row[0])


def changes_since(server: Rooms, room_id: str, pos: int) -> set[tuple[str, str]]:
    db = server.parts.db.read
    room = room_store.get(db, room_id)
    assert room is not None
    known, now = timeline.state_at_pos(db, room.room_nid, pos), room.state_group
    assert known is not None
    assert now is not None
    keys = list(state.diff(db, known, now))
    return {
        tuple(row)
        for key in keys
        for row in db.execute("SELECT type, state_key FROM state_keys WHERE key_nid = ?", (key,)).fetchall()
    }


async def test_what_is_not_allowed_by_what_we_know_waits_and_is_judged_later(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        await scene.h.ban(ALICE, scene.room_id, BOB)
        await scene.world.deliver()
        forger = Forger(scene.world, "h.test", "h.test", scene.room_id)
        joined = [
            event_id
            for event_id in rows_of(scene.h)
            if (event := scene.h.parts.graph.event(event_id)) is not None
            and event.state_key == BOB
            and event.membership == "join"
        ]
        auth = [*forger.auth_events("m.room.message", ALICE, None, {}), *joined]
        auth.remove(state_of(scene.h, scene.room_id)["m.room.member", ALICE])
        said = forger.seal(forger.draft("m.room.message", BOB, {"body": "banned"}, auth=auth))
        await scene.world.send("h.test", "v.test", [said])
        assert forger.id_of(said) not in rows_of(scene.v)
        assert inbox_of(scene.v).keys() == {forger.id_of(said)}
        await scene.complete()
        await scene.world.rest()
        assert inbox_of(scene.v) == {}
        assert rows_of(scene.v)[forger.id_of(said)] == Outcome.REJECTED


async def test_what_was_said_while_we_joined_is_not_kept_waiting(tmp_path: Path) -> None:
    """It is built on what our join is built on, which we don't have."""
    async with scenes(tmp_path) as scene:
        world = scene.world

        async def meanwhile(honest: Any, *args: Any) -> Any:
            world.separate("e.test")
            await scene.e.send(EVE, scene.room_id, "m.room.message", {"body": "crossing"})
            answer = await honest()
            world.reunite()
            return answer

        world.hooks["h.test", "send_join"] = meanwhile
        await scene.join()
        await world.deliver()
        merged = await scene.say(scene.h, BOB, "I saw both")
        assert scene.is_partial
        assert timeline_of(scene.v, scene.room_id)[-1] == merged
        assert len(timeline_of(scene.v, scene.room_id)) >= 3
        await scene.complete()
        scene.check_like_others()


@pytest.mark.parametrize("step", ["joined", "fetching", "kept", "noted"])
async def test_it_goes_on_after_being_killed(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path) as scene:
        world, reached = scene.world, trio.Event()

        async def stop_here(*args: Any, **kwargs: Any) -> Any:
            reached.set()
            await trio.sleep_forever()

        await scene.join()
        await scene.say(scene.h, BOB, "hello")
        if step != "joined":
            with monkeypatch.context() as patch:
                if step == "fetching":
                    world.hooks["h.test", "state_at"] = stop_here
                elif step == "kept":
                    world.hooks.pop(("h.test", "state_at"))
                    patch.setattr("minihs.rooms.partial_resync.Resync._note", stop_here)
                else:
                    world.hooks.pop(("h.test", "state_at"))
                    patch.setattr(partial_replay.Replay, "run", stop_here)
                world.clock.ms += 100_000
                scene.v.resync.look_again()
                with trio.fail_after(5):
                    await reached.wait()
                await world.stop("v.test")
            await world.start("v.test")
        else:
            await world.restart("v.test")
        assert scene.is_partial
        if step == "noted":
            scene.keep_back()  # it is not asked for again
            await world.wait(7200)
            assert not scene.is_partial
        await scene.complete()
        scene.check_like_others()


async def test_what_goes_wrong_here_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path) as scene:
        scene.world.loud = True
        await scene.join()

        async def fail(*args: Any) -> None:
            raise OSError("the disk is full")

        for broken in ("minihs.rooms.adoption.Adoption.keep", "minihs.rooms.partial_replay.Replay.run"):
            with monkeypatch.context() as patch:
                patch.setattr(broken, fail)
                patch.setattr("minihs.rooms.partial_resync.Resync._try_later", fail)
                for host in ("h.test", "e.test"):
                    scene.world.hooks.pop((host, "state_at"), None)
                await scene.world.wait(7200)
                assert scene.is_partial
        await scene.complete()
        scene.check_like_others()


async def test_a_clock_that_is_set_back_does_not_stop_it(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        assert scene.is_partial
        scene.world.clock.ms -= 400 * 24 * 3600_000
        await scene.complete()
        scene.check_like_others()


async def test_other_servers_cannot_come_in_or_ask_through_us_meanwhile(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        ours = await scene.say(scene.v, VIC, "hello")
        w = await scene.world.start("w.test")
        with pytest.raises(MatrixError):
            await w.join("@will:w.test", scene.room_id, via=["v.test"])
        v = scene.v
        for membership in ("join", "leave", "knock"):
            with pytest.raises(MatrixError) as refused:
                await v.resident.make("e.test", scene.room_id, EVE, membership, ["12"])
            assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")
        with pytest.raises(MatrixError) as refused:
            await v.resident.send_join("e.test", scene.room_id, "$x", {})
        assert refused.value.status == 404
        for ask in (v.serving.state, v.serving.state_ids, v.serving.event_auth):
            with pytest.raises(MatrixError) as refused:
                await ask("h.test", scene.room_id, ours)
            assert refused.value.status == 403
            assert refused.value.errcode.endswith("UNABLE_DUE_TO_PARTIAL_STATE")
        await scene.complete()
        assert v.serving.event("h.test", ours)["type"] == "m.room.message"
        await w.join("@will:w.test", scene.room_id, via=["v.test"])


async def test_what_needs_all_members_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "MAX_WAIT", 0.05)
    async with scenes(tmp_path) as scene:
        await scene.join()
        v, room_id = scene.v, scene.room_id
        for call in (
            lambda: v.join(SECOND, room_id),
            lambda: v.invite(VIC, room_id, EVE),
            lambda: v.invite(VIC, room_id, SECOND),
            lambda: v.ban(VIC, room_id, EVE),
            lambda: v.knock(SECOND, room_id),
        ):
            with pytest.raises(MatrixError) as refused:
                await call()
            assert refused.value.status == 504
        monkeypatch.setattr(whole, "MAX_WAIT", 30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(v.join, SECOND, room_id)
            await trio.testing.wait_all_tasks_blocked()
            assert membership_of(v, room_id, SECOND) is None
            await scene.complete()
        assert membership_of(v, room_id, SECOND) == "join"


async def test_only_so_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "MAX_WAITING", 2)
    async with scenes(tmp_path) as scene:
        await scene.join()
        wait = scene.v.parts.whole.wait
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(wait, scene.room_id)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(MatrixError) as refused:
                await wait(scene.room_id)
            assert refused.value.status == 504
            await scene.complete()


async def test_leaving_ends_the_attempt_and_coming_back_begins_another(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        theirs = await scene.say(scene.h, BOB, "hello")
        await scene.v.leave(VIC, scene.room_id)
        await scene.world.deliver()
        assert not scene.is_partial
        assert not invariants.is_resident(scene.v, scene.room_id)
        scene.world.asked.clear()
        await scene.world.wait(7200)
        assert ("v.test", "h.test", "state_at") not in scene.world.asked
        # What is built on events of that stay must not get the state that they had here.
        forger = Forger(scene.world, "h.test", "h.test", scene.room_id)
        await scene.join()
        assert scene.is_partial
        late = forger.seal(forger.draft("m.room.message", ALICE, {"body": "late"}, prev=[theirs]))
        await scene.world.send("h.test", "v.test", [late])
        assert forger.id_of(late) not in rows_of(scene.v)
        await scene.complete()
        await scene.world.rest()
        assert rows_of(scene.v)[forger.id_of(late)] == Outcome.ACCEPTED
        kept = stored(scene.v, forger.id_of(late))
        assert kept is not None
        assert kept.before_group is not None
        assert ("m.room.member", BOB) in scene.v.parts.graph.full_group(kept.before_group)
        with pytest.raises(MatrixError) as refused:
            await scene.v.serving.state_ids("h.test", scene.room_id, theirs)
        assert refused.value.status == 404
        await scene.world.send("v.test", "h.test", [])
        after = await scene.say(scene.v, VIC, "back")
        assert timeline_of(scene.h, scene.room_id)[-1] == after


async def test_a_ban_meanwhile_puts_us_out(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        await scene.h.ban(ALICE, scene.room_id, VIC)
        await scene.world.deliver()
        assert membership_of(scene.v, scene.room_id, VIC) == "ban"
        assert not scene.is_partial
        await scene.v.forget(VIC, scene.room_id)
        await scene.world.wait(7200)
        assert not invariants.is_resident(scene.v, scene.room_id)


async def test_it_can_be_seen_how_far_it_has_come(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        await scene.say(scene.h, BOB, "hello")
        db = scene.v.parts.db.read
        text = room_text(explain_room(db, scene.room_id, 0))
        assert "joined through h.test, 1 events since, 1 attempts to fetch them" in text
        assert [log["host"] for log in scene.world.logs if log["event"].startswith("fetching the members")]
        await scene.complete()
        assert "joined through" not in room_text(explain_room(db, scene.room_id, 0))


async def test_purging_the_room_ends_it(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        room_nid = scene.v.parts.head(scene.room_id).room_nid
        await scene.v.parts.db.write(lambda tx: room_store.purge(tx, room_nid))
        scene.v.parts.heads.pop(scene.room_id)
        await scene.world.wait(7200)
        for name in ("partial_joins", "partial_events"):
            assert scene.v.parts.db.read.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] == 0


async def test_an_invited_user_joins_a_private_room(tmp_path: Path) -> None:
    """The invite is a membership: it is left out of the state with all others, and found where we cite it."""
    async with scenes(tmp_path, preset="private_chat") as scene:
        await scene.h.invite(ALICE, scene.room_id, VIC)
        await scene.world.deliver()
        await scene.join()
        assert scene.is_partial
        assert membership_of(scene.v, scene.room_id, VIC) == "join"
        await scene.complete()
        scene.check_like_others()


async def test_an_invite_by_somebody_we_do_not_know_yet_is_taken(tmp_path: Path) -> None:
    async with scenes(tmp_path) as scene:
        await scene.join()
        await scene.world.deliver()
        await scene.e.invite(EVE, scene.room_id, SECOND)
        await scene.world.wait(10)
        assert scene.is_partial
        assert membership_of(scene.v, scene.room_id, SECOND) == "invite"
        await scene.complete()
        scene.check_like_others()
