# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.sync.filters import ALL
from minihs.sync.messages import Messages, PageOptions
from minihs.sync.ports import NoHistory
from minihs.sync.room_reads import RoomReads
from tests.sync.relations_kit import (
    a_room_of,
    children,
    edit_of,
    ids_of,
    ignore,
    react,
    read,
    relation,
    reply,
    summed,
)
from tests.sync.world import ALICE, BOB, CAROL, DAVE, World

# --- GET /relations


async def test_what_relates_to_an_event_is_found_by_kind_and_type(world: World) -> None:
    room = await a_room_of(world, BOB)
    root = await world.say(ALICE, room, "root")
    other = await world.say(ALICE, room, "other")
    first = await react(world, BOB, room, root)
    second = await reply(world, BOB, room, root)
    await react(world, BOB, room, other)
    assert ids_of(await children(world, ALICE, room, root)) == [second, first]
    assert ids_of(await children(world, ALICE, room, root, forward=True)) == [first, second]
    assert ids_of(await children(world, ALICE, room, root, rel_type="m.thread")) == [second]
    found = await children(world, ALICE, room, root, rel_type="m.annotation", type="m.reaction")
    assert ids_of(found) == [first]
    assert ids_of(await children(world, ALICE, room, root, rel_type="m.annotation", type="m.other")) == []
    assert "recursion_depth" not in found


@pytest.mark.parametrize("forward", [False, True])
async def test_relations_come_page_by_page(world: World, forward: bool) -> None:
    room = await a_room_of(world, BOB)
    root = await world.say(ALICE, room, "root")
    said = [await reply(world, BOB, room, root, str(number)) for number in range(7)]
    found: list[str] = []
    start = None
    for page in range(3):
        answer = await children(world, ALICE, room, root, limit=3, start=start, forward=forward)
        assert ("prev_batch" in answer) == (page > 0)
        found += ids_of(answer)
        start = answer.get("next_batch")
        assert (start is None) == (page == 2)
    assert found == (said if forward else said[::-1])


async def test_a_token_of_a_sync_or_of_messages_bounds_relations(world: World) -> None:
    room = await a_room_of(world, BOB)
    root = await world.say(ALICE, room, "root")
    early = await reply(world, BOB, room, root, "early")
    token = (await world.sync(ALICE))["next_batch"]
    late = await reply(world, BOB, room, root, "late")
    assert ids_of(await children(world, ALICE, room, root, start=token)) == [early]
    assert ids_of(await children(world, ALICE, room, root, stop=token)) == [late]
    assert ids_of(await children(world, ALICE, room, root, start=token, forward=True)) == [late]
    with pytest.raises(MatrixError) as refusal:
        await children(world, ALICE, room, root, start="nonsense")
    assert refusal.value.errcode == "M_INVALID_PARAM"


async def test_recursion_finds_what_relates_to_what_relates(world: World) -> None:
    room = await a_room_of(world, BOB)
    root = await world.say(ALICE, room, "root")
    said = await reply(world, BOB, room, root)
    edited = await world.say(BOB, room, "* better", **edit_of(said, "better"))
    reaction = await react(world, ALICE, room, said)
    answer = await children(world, ALICE, room, root, recurse=True)
    assert ids_of(answer) == [reaction, edited, said]
    assert answer["recursion_depth"] == 3
    assert ids_of(await children(world, ALICE, room, root)) == [said]
    # The way to an event has to fit the filter as well.
    only = await children(world, ALICE, room, root, recurse=True, rel_type="m.annotation")
    assert ids_of(only) == []


async def test_relations_are_for_those_who_may_see_the_event(world: World) -> None:
    room = await world.room(preset="private_chat")
    root = await world.say(ALICE, room, "root")
    for user, event_id in ((CAROL, root), (ALICE, "$unknown")):
        with pytest.raises(MatrixError) as refusal:
            await children(world, user, room, event_id)
        assert (refusal.value.status, refusal.value.errcode) == (404, "M_NOT_FOUND")


async def test_relations_that_may_not_be_seen_are_left_out(world: World) -> None:
    room = await a_room_of(world, BOB)
    root = await world.say(ALICE, room, "root")
    before = await reply(world, ALICE, room, root, "while bob is here")
    await world.rooms.leave(BOB, room)
    await reply(world, ALICE, room, root, "after bob left")
    assert ids_of(await children(world, BOB, room, root)) == [before]
    thread = summed(world, BOB, room, root)["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (1, before)


async def test_a_redacted_event_relates_to_nothing_any_more(world: World) -> None:
    room = await a_room_of(world)
    root = await world.say(ALICE, room, "root")
    said = await reply(world, ALICE, room, root)
    await world.rooms.redact(ALICE, room, said, {}, None, None)
    assert ids_of(await children(world, ALICE, room, root)) == []
    assert summed(world, ALICE, room, root) == {}


async def test_a_redaction_by_another_server_ends_the_relation(world: World) -> None:
    room = await a_room_of(world)
    await world.member(DAVE, room, "join")
    root = await world.say(ALICE, room, "root")
    tips = world.tips(room)
    said = await world.receive(
        DAVE, room, "m.room.message", {"body": "x", **relation("m.thread", root)}, after=tips
    )
    await world.receive(DAVE, room, "m.room.redaction", {"redacts": said})
    assert ids_of(await children(world, ALICE, room, root)) == []


async def test_events_of_other_rooms_are_not_related(world: World) -> None:
    room, other = await a_room_of(world), await a_room_of(world)
    root = await world.say(ALICE, room, "root")
    await world.say(ALICE, other, "elsewhere", **edit_of(root, "changed"))
    assert ids_of(await children(world, ALICE, room, root)) == []
    assert summed(world, ALICE, room, root) == {}


# --- aggregations


async def test_the_latest_edit_is_bundled(world: World) -> None:
    room = await a_room_of(world)
    event_id = await world.say(ALICE, room, "frist")
    await world.say(ALICE, room, "* fist", **edit_of(event_id, "fist"))
    latest = await world.say(ALICE, room, "* first", **edit_of(event_id, "first"))
    event = read(world, ALICE, room, event_id)
    assert event["content"]["body"] == "frist"
    edit = event["unsigned"]["m.relations"]["m.replace"]
    assert edit["event_id"] == latest
    assert edit["content"]["m.new_content"]["body"] == "first"
    assert edit["room_id"] == room
    await world.rooms.redact(ALICE, room, latest, {}, None, None)
    assert summed(world, ALICE, room, event_id)["m.replace"]["content"]["body"] == "* fist"


async def test_the_edit_that_claims_the_latest_time_wins(world: World) -> None:
    room = await a_room_of(world)
    await world.member(DAVE, room, "join")
    event_id = await world.hear(DAVE, room, "text")
    world.clock.ms += 1_000_000
    late = await world.receive(DAVE, room, "m.room.message", {"body": "a", **edit_of(event_id, "a")})
    world.clock.ms -= 500_000
    await world.receive(DAVE, room, "m.room.message", {"body": "b", **edit_of(event_id, "b")})
    assert summed(world, ALICE, room, event_id)["m.replace"]["event_id"] == late


async def test_edits_against_the_rules_do_not_count(world: World) -> None:
    room = await a_room_of(world, BOB)
    event_id = await world.say(ALICE, room, "mine")
    await world.say(BOB, room, "* yours", **edit_of(event_id, "yours"))
    await world.rooms.send(ALICE, room, "m.other", {"body": "x", **edit_of(event_id, "other type")})
    await world.say(ALICE, room, "* nothing", **relation("m.replace", event_id))
    await world.rooms.send(
        ALICE, room, "m.room.message", {"body": "x", **edit_of(event_id, "state")}, state_key=""
    )
    assert summed(world, ALICE, room, event_id) == {}
    good = await world.say(ALICE, room, "* changed", **edit_of(event_id, "changed"))
    await world.say(ALICE, room, "* an edit of an edit", **edit_of(good, "no"))
    assert summed(world, ALICE, room, good) == {}
    name = await world.rooms.send(ALICE, room, "m.room.name", {"name": "room"}, state_key="")
    await world.rooms.send(ALICE, room, "m.room.name", edit_of(name, "no"))
    assert summed(world, ALICE, room, name) == {}


async def test_an_encrypted_edit_needs_no_visible_new_content(world: World) -> None:
    room = await a_room_of(world)
    event_id = await world.rooms.send(ALICE, room, "m.room.encrypted", {"ciphertext": "a"})
    edit = await world.rooms.send(
        ALICE, room, "m.room.encrypted", {"ciphertext": "b", **relation("m.replace", event_id)}
    )
    assert summed(world, ALICE, room, event_id)["m.replace"]["event_id"] == edit


async def test_a_redacted_event_has_no_edits(world: World) -> None:
    room = await a_room_of(world)
    event_id = await world.say(ALICE, room, "text")
    await world.say(ALICE, room, "* better", **edit_of(event_id, "better"))
    await world.rooms.redact(ALICE, room, event_id, {}, None, None)
    assert summed(world, ALICE, room, event_id) == {}


async def test_a_thread_is_summed_up_on_its_root(world: World) -> None:
    room = await a_room_of(world, BOB, CAROL)
    root = await world.say(ALICE, room, "root")
    await reply(world, BOB, room, root, "one")
    last = await reply(world, BOB, room, root, "tow")
    edit = await world.say(BOB, room, "* two", **edit_of(last, "two"))
    for user, took_part in ((ALICE, True), (BOB, True), (CAROL, False)):
        thread = summed(world, user, room, root)["m.thread"]
        assert thread["count"] == 2
        assert thread["current_user_participated"] is took_part
        assert thread["latest_event"]["event_id"] == last
        nested = thread["latest_event"]["unsigned"]["m.relations"]
        assert nested["m.replace"]["event_id"] == edit


async def test_references_are_listed(world: World) -> None:
    room = await a_room_of(world, BOB)
    event_id = await world.say(ALICE, room, "start")
    first = await world.rooms.send(BOB, room, "m.key.verification.ready", relation("m.reference", event_id))
    second = await world.rooms.send(
        ALICE, room, "m.key.verification.start", relation("m.reference", event_id)
    )
    chunk = [{"event_id": first}, {"event_id": second}]
    assert summed(world, BOB, room, event_id) == {"m.reference": {"chunk": chunk}}


async def test_annotations_are_not_summed_up(world: World) -> None:
    room = await a_room_of(world)
    event_id = await world.say(ALICE, room, "text")
    await react(world, ALICE, room, event_id)
    assert summed(world, ALICE, room, event_id) == {}


async def test_what_ignored_users_send_does_not_count(world: World) -> None:
    room = await a_room_of(world, BOB, CAROL)
    root = await world.say(ALICE, room, "root")
    await reply(world, BOB, room, root, "seen")
    await reply(world, CAROL, room, root, "not seen")
    await ignore(world, ALICE, CAROL)
    thread = summed(world, ALICE, room, root)["m.thread"]
    assert (thread["count"], thread["latest_event"]["sender"]) == (1, BOB)
    assert summed(world, BOB, room, root)["m.thread"]["count"] == 2
    assert [event["sender"] for event in (await children(world, ALICE, room, root))["chunk"]] == [BOB]


async def test_messages_and_context_have_aggregations(world: World) -> None:
    room = await a_room_of(world)
    event_id = await world.say(ALICE, room, "text")
    edit = await world.say(ALICE, room, "* better", **edit_of(event_id, "better"))
    requester = Requester(ALICE, "PHONE", 1)
    messages = Messages(world.db, world.runtime, world.facts, NoHistory())
    page = await messages.page(requester, room, PageOptions(forward=False, limit=10, filter=ALL))
    reads = RoomReads(world.db, world.runtime, world.facts)
    context = await reads.context(requester, room, event_id, 10, ALL)
    for event in (page["chunk"][1], context["event"]):
        assert event["event_id"] == event_id
        assert event["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit
    assert "m.relations" not in page["chunk"][0]["unsigned"]


async def test_a_limited_sync_has_aggregations_and_a_whole_one_has_none(world: World) -> None:
    room = await a_room_of(world)
    since = (await world.sync(ALICE))["next_batch"]
    event_id = await world.say(ALICE, room, "text")
    edit = await world.say(ALICE, room, "* better", **edit_of(event_id, "better"))
    whole = (await world.sync(ALICE, since))["rooms"]["join"][room]["timeline"]
    assert not whole["limited"]
    assert "m.relations" not in whole["events"][0]["unsigned"]
    await world.say(ALICE, room, "more")
    limited = (await world.sync(ALICE, filter={"room": {"timeline": {"limit": 3}}}))["rooms"]["join"][room]
    assert limited["timeline"]["limited"]
    event = limited["timeline"]["events"][0]
    assert event["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit
    assert "room_id" not in event["unsigned"]["m.relations"]["m.replace"]
