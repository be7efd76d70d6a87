# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.store import account_data
from minihs.sync.filters import ALL
from minihs.sync.messages import Messages, PageOptions
from minihs.sync.ports import NoHistory
from minihs.sync.relations import RelationOptions, Relations
from minihs.sync.room_reads import RoomReads
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World


def relation(rel_type: str, event_id: str, **more: Any) -> Json:
    return {"m.relates_to": {"rel_type": rel_type, "event_id": event_id, **more}}


def edit_of(event_id: str, body: str) -> Json:
    return {**relation("m.replace", event_id), "m.new_content": {"msgtype": "m.text", "body": body}}


async def react(world: World, user: str, room: str, event_id: str, key: str = "👍") -> str:
    return await world.rooms.send(user, room, "m.reaction", relation("m.annotation", event_id, key=key))


async def reply(world: World, user: str, room: str, root: str, body: str = "in the thread") -> str:
    return await world.say(user, room, body, **relation("m.thread", root))


async def a_room_of(world: World, *users: str, **request: Any) -> str:
    room = await world.room(**request)
    for user in users:
        await world.rooms.join(user, room)
    return room


async def children(world: World, user: str, room: str, event_id: str, **options: Any) -> Json:
    reads = Relations(world.db, world.runtime, world.facts)
    options = {"limit": 50, **options}
    return await reads.children(Requester(user, "PHONE", 1), room, event_id, RelationOptions(**options))


async def threads(world: World, user: str, room: str, **options: Any) -> Json:
    reads = Relations(world.db, world.runtime, world.facts)
    options = {"limit": 50, "start": None, "participated": False, **options}
    return await reads.threads(Requester(user, "PHONE", 1), room, **options)


def ids_of(answer: Json) -> list[str]:
    return [event["event_id"] for event in answer["chunk"]]


def read(world: World, user: str, room: str, event_id: str) -> Json:
    return RoomReads(world.db, world.runtime, world.facts).event(Requester(user, "PHONE", 1), room, event_id)


def summed(world: World, user: str, room: str, event_id: str) -> Json:
    relations: Json = read(world, user, room, event_id)["unsigned"].get("m.relations", {})
    return relations


async def ignore(world: World, user: str, ignored: str) -> None:
    content = f'{{"ignored_users": {{"{ignored}": {{}}}}}}'
    await world.db.write(lambda tx: account_data.put(tx, user, account_data.IGNORED_USERS, content))


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


# --- what may not be sent


async def test_one_reacts_only_once_in_the_same_way(world: World) -> None:
    room = await a_room_of(world, BOB)
    event_id = await world.say(ALICE, room, "text")
    first = await react(world, ALICE, room, event_id)
    with pytest.raises(MatrixError) as refusal:
        await react(world, ALICE, room, event_id)
    assert (refusal.value.status, refusal.value.errcode) == (400, "M_DUPLICATE_ANNOTATION")
    await react(world, ALICE, room, event_id, "🎉")
    await react(world, BOB, room, event_id)
    await world.rooms.send(ALICE, room, "m.other", relation("m.annotation", event_id, key="👍"))
    await world.rooms.redact(ALICE, room, first, {}, None, None)
    await react(world, ALICE, room, event_id)


async def test_a_thread_begins_at_an_event_that_relates_to_none(world: World) -> None:
    room = await a_room_of(world)
    root = await world.say(ALICE, room, "root")
    said = await reply(world, ALICE, room, root)
    edit = await world.say(ALICE, room, "* better", **edit_of(root, "better"))
    for event_id in (said, edit):
        with pytest.raises(MatrixError) as refusal:
            await reply(world, ALICE, room, event_id)
        assert (refusal.value.status, refusal.value.errcode) == (400, "M_UNKNOWN")
    answer = {"m.relates_to": {"m.in_reply_to": {"event_id": root}}}
    plain_reply = await world.say(ALICE, room, "a plain reply", **answer)
    await reply(world, ALICE, room, plain_reply)


@pytest.mark.parametrize(
    "relates",
    [
        None,
        [],
        {"rel_type": "m.thread"},
        {"rel_type": 1, "event_id": "$a"},
        {"rel_type": "m.thread", "event_id": 1},
        {"rel_type": "m.thread", "event_id": "not an id"},
        {"rel_type": "", "event_id": "$a"},
        {"rel_type": "x" * 256, "event_id": "$a"},
    ],
)
async def test_a_malformed_relation_is_none(world: World, relates: Any) -> None:
    room = await a_room_of(world)
    await world.say(ALICE, room, "text", **{"m.relates_to": relates})
    assert world.db.read.execute("SELECT COUNT(*) FROM relations").fetchone()[0] == 0


# --- GET /threads


async def test_threads_are_listed_by_what_was_said_last(world: World) -> None:
    room = await a_room_of(world, BOB)
    first, second, third = [await world.say(ALICE, room, str(number)) for number in range(3)]
    for root in (first, second, third, first):
        await reply(world, BOB, room, root)
    answer = await threads(world, ALICE, room)
    assert ids_of(answer) == [first, third, second]
    assert "next_batch" not in answer
    assert answer["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"] == 2
    page = await threads(world, ALICE, room, limit=2)
    assert ids_of(page) == [first, third]
    rest = await threads(world, ALICE, room, limit=2, start=page["next_batch"])
    assert ids_of(rest) == [second]
    assert "next_batch" not in rest


async def test_threads_that_one_took_part_in(world: World) -> None:
    room = await a_room_of(world, BOB, CAROL)
    began = await world.say(CAROL, room, "carol's")
    joined = await world.say(ALICE, room, "with carol")
    without = await world.say(ALICE, room, "without carol")
    for root in (began, joined, without):
        await reply(world, BOB, room, root)
    await reply(world, CAROL, room, joined)
    assert ids_of(await threads(world, CAROL, room, participated=True)) == [joined, began]


async def test_an_edit_starts_no_thread(world: World) -> None:
    room = await a_room_of(world)
    await world.member(DAVE, room, "join")
    event_id = await world.say(ALICE, room, "text")
    reaction = await react(world, ALICE, room, event_id)
    await world.receive(DAVE, room, "m.room.message", {"body": "x", **relation("m.thread", reaction)})
    assert ids_of(await threads(world, ALICE, room)) == []


async def test_the_root_of_an_ignored_user_is_shown_redacted(world: World) -> None:
    room = await a_room_of(world, BOB, CAROL)
    root = await world.say(BOB, room, "root")
    await reply(world, CAROL, room, root)
    lonely = await world.say(CAROL, room, "only bob answers")
    await reply(world, BOB, room, lonely)
    await ignore(world, ALICE, BOB)
    answer = await threads(world, ALICE, room)
    assert ids_of(answer) == [root]
    assert answer["chunk"][0]["content"] == {}
    assert answer["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"] == 1


async def test_threads_are_for_members_and_take_their_own_tokens_only(world: World) -> None:
    room = await world.room(preset="private_chat")
    with pytest.raises(MatrixError) as refusal:
        await threads(world, CAROL, room)
    assert refusal.value.errcode == "M_FORBIDDEN"
    for token in ("nonsense", "s1_0"):
        with pytest.raises(MatrixError) as refusal:
            await threads(world, ALICE, room, start=token)
        assert refusal.value.errcode == "M_INVALID_PARAM"
