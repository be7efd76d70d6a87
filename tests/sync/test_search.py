# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.store import account_data, ids, rooms
from minihs.store import search as store
from minihs.sync.search import Search, parse
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World


async def search(world: World, user: str, term: str, next_batch: str | None = None, **wanted: Any) -> Json:
    body = {"search_categories": {"room_events": {"search_term": term, "order_by": "recent", **wanted}}}
    criteria = parse(body, next_batch)
    assert criteria is not None
    return await Search(world.db, world.runtime, world.facts).search(Requester(user, "PHONE", 1), criteria)


def found(answer: Json) -> list[str]:
    return [result["result"]["event_id"] for result in answer["results"]]


async def test_words_are_found_in_messages_names_and_topics(world: World) -> None:
    room = await world.room()
    name = await world.rooms.send(ALICE, room, "m.room.name", {"name": "The Apple room"}, state_key="")
    topic = await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "on apple trees"}, state_key="")
    said = await world.say(ALICE, room, "I like APPLE pie")
    await world.say(ALICE, room, "applesauce is another word")
    await world.rooms.send(ALICE, room, "m.other", {"body": "an apple nobody looks for"})
    answer = await search(world, ALICE, "apple")
    assert found(answer) == [said, topic, name]
    assert answer["count"] == 3
    assert answer["highlights"] == ["apple"]
    assert all(result["rank"] > 0 for result in answer["results"])
    assert answer["results"][0]["result"]["room_id"] == room
    assert found(await search(world, ALICE, "apple", keys=["content.body"])) == [said]
    assert found(await search(world, ALICE, "apple", keys=["content.name", "content.topic"])) == [topic, name]
    assert found(await search(world, ALICE, "apple", keys=["content.unknown"])) == []


async def test_the_text_of_a_rich_topic_is_found(world: World) -> None:
    room = await world.room()
    content = {
        "topic": "plain",
        "m.topic": {"m.text": [{"mimetype": "text/html", "body": "<b>bold</b>"}, {"body": "represented"}]},
    }
    topic = await world.rooms.send(ALICE, room, "m.room.topic", content, state_key="")
    assert found(await search(world, ALICE, "plain")) == [topic]
    assert found(await search(world, ALICE, "represented")) == [topic]
    assert found(await search(world, ALICE, "bold")) == []


@pytest.mark.parametrize(
    ("term", "bodies"),
    [
        ("fox", ["the quick brown fox", "brown quick fox"]),
        ("quick fox", ["the quick brown fox", "brown quick fox"]),
        ('"quick brown"', ["the quick brown fox"]),
        ("fox -the", ["brown quick fox"]),
        ('brown -"quick brown"', ["brown quick fox"]),
        ("cafe", ["un café noir"]),
        ("Καλημέρα", ["ΚΑΛΗΜΈΡΑ κόσμε"]),
        ('he said "hello" AND (NOT) * fox', []),
        ("hello", ['he said "hello" OR goodbye']),
        ("OR", ['he said "hello" OR goodbye']),
        ("body:fox", []),
        ("fox*", ["the quick brown fox", "brown quick fox"]),
        ("-fox", []),
        ("", []),
        ("!!! ?", []),
        ("!!! fox", ["the quick brown fox", "brown quick fox"]),
        ('"', []),
        ("a\0b", []),
    ],
)
async def test_what_users_type_is_understood(world: World, term: str, bodies: list[str]) -> None:
    room = await world.room()
    for body in (
        "the quick brown fox", "brown quick fox", "un café noir", "ΚΑΛΗΜΈΡΑ κόσμε",
        'he said "hello" OR goodbye',
    ):  # fmt: skip
        await world.say(ALICE, room, body)
    answer = await search(world, ALICE, term)
    assert {result["result"]["content"]["body"] for result in answer["results"]} == set(bodies)


async def test_the_best_match_comes_first_by_rank(world: World) -> None:
    room = await world.room()
    await world.say(ALICE, room, "a long story in which the word cheese comes up once and never again at all")
    best = await world.say(ALICE, room, "cheese, cheese, cheese")
    await world.say(ALICE, room, "some other long story in which cheese is named once and then it is over")
    answer = await search(world, ALICE, "cheese", order_by="rank")
    assert found(answer)[0] == best
    ranks = [result["rank"] for result in answer["results"]]
    assert ranks == sorted(ranks, reverse=True)


async def test_only_rooms_that_one_is_or_was_in_are_searched(world: World) -> None:
    mine, theirs = await world.room(ALICE), await world.room(BOB)
    said = await world.say(ALICE, mine, "secret")
    await world.say(BOB, theirs, "secret")
    assert found(await search(world, ALICE, "secret")) == [said]
    assert (await search(world, CAROL, "secret"))["count"] == 0


async def test_what_was_said_after_one_left_is_not_found_or_counted(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    before = await world.say(ALICE, room, "word one")
    await world.rooms.leave(BOB, room)
    await world.say(ALICE, room, "word two")
    answer = await search(world, BOB, "word")
    assert (found(answer), answer["count"]) == ([before], 1)
    await world.rooms.forget(BOB, room)
    assert (await search(world, BOB, "word"))["count"] == 0


async def test_what_was_said_before_one_may_look_is_not_found_or_counted(world: World) -> None:
    room = await world.room()
    await world.rooms.send(
        ALICE, room, "m.room.history_visibility", {"history_visibility": "joined"}, state_key=""
    )
    await world.say(ALICE, room, "word one")
    await world.rooms.join(BOB, room)
    after = await world.say(ALICE, room, "word two")
    answer = await search(world, BOB, "word")
    assert (found(answer), answer["count"]) == ([after], 1)


async def test_encrypted_rooms_are_not_searched(world: World) -> None:
    room = await world.room()
    await world.say(ALICE, room, "word")
    await world.rooms.send(ALICE, room, "m.room.encryption", {"algorithm": "x"}, state_key="")
    assert found(await search(world, ALICE, "word")) == []


async def test_ignored_users_are_not_found(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    await world.say(BOB, room, "word")
    content = f'{{"ignored_users": {{"{BOB}": {{}}}}}}'
    await world.db.write(lambda tx: account_data.put(tx, ALICE, account_data.IGNORED_USERS, content))
    assert (await search(world, ALICE, "word"))["count"] == 0


async def test_a_redacted_message_leaves_no_word_behind(world: World) -> None:
    room = await world.room()
    event_id = await world.say(ALICE, room, "a slip of the tongue")
    early = await world.say(ALICE, room, "a slip that nobody has looked for")
    await world.rooms.redact(ALICE, room, early, {}, None, None)
    kept = await world.say(ALICE, room, "another slip")
    assert found(await search(world, ALICE, "slip")) == [kept, event_id]
    await world.rooms.redact(ALICE, room, event_id, {}, None, None)
    assert found(await search(world, ALICE, "slip")) == [kept]
    rows = world.db.read.execute("SELECT rowid FROM search WHERE search MATCH 'tongue'").fetchall()
    assert rows == []
    await world.db.write(
        lambda tx: tx.execute("INSERT INTO search (search) VALUES ('integrity-check')").fetchall()
    )
    # Twice is no harm.
    nid = ids.event_nid(world.db.read, event_id)
    assert nid is not None
    await world.db.write(lambda tx: store.remove(tx, nid))


async def test_soft_failed_and_rejected_events_are_not_found(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    tips = world.tips(room)
    await world.rooms.ban(ALICE, room, DAVE)
    await world.hear(DAVE, room, "word", after=tips)
    rows = world.db.read.execute(
        "SELECT outcome FROM events WHERE sender = ? AND type = ?", (DAVE, "m.room.message")
    )
    assert [row[0] for row in rows.fetchall()] == [1]
    await search(world, ALICE, "word")
    assert world.db.read.execute("SELECT rowid FROM search WHERE search MATCH 'word'").fetchall() == []


async def test_filters_narrow_the_search(world: World) -> None:
    one, other = await world.room(), await world.room()
    await world.rooms.join(BOB, one)
    alices = await world.say(ALICE, one, "word")
    bobs = await world.say(BOB, one, "word")
    elsewhere = await world.say(ALICE, other, "word")
    name = await world.rooms.send(ALICE, other, "m.room.name", {"name": "word"}, state_key="")
    assert found(await search(world, ALICE, "word", filter={"rooms": [one]})) == [bobs, alices]
    assert found(await search(world, ALICE, "word", filter={"not_rooms": [one]})) == [name, elsewhere]
    assert found(await search(world, ALICE, "word", filter={"senders": [BOB]})) == [bobs]
    assert found(await search(world, ALICE, "word", filter={"types": ["m.room.name"]})) == [name]


async def test_results_come_page_by_page_whatever_is_said_meanwhile(world: World) -> None:
    room = await world.room()
    said = [await world.say(ALICE, room, f"word {number}") for number in range(7)]
    for order in ("recent", "rank"):
        token, all_found = None, []
        for _ in range(10):
            answer = await search(world, ALICE, "word", token, order_by=order, filter={"limit": 3})
            assert len(answer["results"]) <= 3
            all_found += found(answer)
            token = answer.get("next_batch")
            if token is None:
                break
            await world.say(ALICE, room, "word, later")
        assert sorted(all_found) == sorted(said)
        if order == "recent":
            assert all_found == said[::-1]
        said += [
            row[0]
            for row in world.db.read.execute(
                "SELECT event_id FROM event_ids JOIN events USING (event_nid) WHERE type = 'm.room.message'"
            ).fetchall()
            if row[0] not in said
        ]


async def test_many_matches_of_others_do_not_hide_ones_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minihs.sync.search.LOOKED_AT_ONCE", 5)
    monkeypatch.setattr("minihs.sync.search.MAX_LOOKED_AT", 20)
    room = await world.room()
    await world.rooms.join(BOB, room)
    first = await world.say(ALICE, room, "word")
    for _ in range(30):
        await world.say(BOB, room, "word")
    answer = await search(world, ALICE, "word", filter={"senders": [ALICE]})
    assert found(answer) == []
    answer = await search(world, ALICE, "word", answer["next_batch"], filter={"senders": [ALICE]})
    assert found(answer) == [first]
    assert "next_batch" not in answer


async def test_context_comes_with_names_and_tokens(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    ids = [await world.say(BOB if n % 2 else ALICE, room, f"number {n}") for n in range(9)]
    wanted = {"before_limit": 2, "after_limit": 1, "include_profile": True}
    answer = await search(world, ALICE, '"number 4"', event_context=wanted)
    context = answer["results"][0]["context"]
    assert [event["event_id"] for event in context["events_before"]] == [ids[3], ids[2]]
    assert [event["event_id"] for event in context["events_after"]] == [ids[5]]
    assert context["profile_info"] == {ALICE: {"displayname": "alice"}, BOB: {"displayname": "bob"}}
    assert context["start"] != context["end"]
    assert "context" not in (await search(world, ALICE, "number"))["results"][0]


async def test_results_in_groups_and_with_state(world: World) -> None:
    one, other = await world.room(name="One"), await world.room()
    await world.rooms.join(BOB, one)
    first = await world.say(ALICE, one, "word")
    second = await world.say(BOB, one, "word")
    third = await world.say(ALICE, other, "word")
    by = {"group_by": [{"key": "room_id"}, {"key": "sender"}]}
    answer = await search(world, ALICE, "word", groupings=by, include_state=True)
    assert answer["groups"] == {
        "room_id": {
            other: {"results": [third], "order": 1},
            one: {"results": [second, first], "order": 2},
        },
        "sender": {
            ALICE: {"results": [third, first], "order": 1},
            BOB: {"results": [second], "order": 2},
        },
    }
    assert answer["state"].keys() == {one, other}
    names = [event["content"]["name"] for event in answer["state"][one] if event["type"] == "m.room.name"]
    assert names == ["One"]


async def test_edits_are_bundled_with_results(world: World) -> None:
    room = await world.room()
    event_id = await world.say(ALICE, room, "original")
    relation = {"rel_type": "m.replace", "event_id": event_id}
    await world.say(ALICE, room, "* new", **{"m.new_content": {"body": "new"}, "m.relates_to": relation})
    answer = await search(world, ALICE, "original")
    assert "m.replace" in answer["results"][0]["result"]["unsigned"]["m.relations"]


async def test_a_purged_room_leaves_nothing_behind(world: World) -> None:
    room = await world.room()
    await world.say(ALICE, room, "word")
    await world.say(ALICE, room, "more", **{"m.relates_to": {"rel_type": "m.thread", "event_id": "$x"}})
    assert found(await search(world, ALICE, "word")) != []
    room_nid = world.room_nid(room)
    await world.db.write(lambda tx: rooms.purge(tx, room_nid))
    db = world.db.read
    assert db.execute("SELECT rowid FROM search WHERE search MATCH 'word OR more'").fetchall() == []
    assert db.execute("SELECT COUNT(*) FROM search_docsize").fetchone()[0] == 0
    assert db.execute("SELECT COUNT(*) FROM relations").fetchone()[0] == 0


async def test_the_index_is_caught_up_with_in_steps_and_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WINDOW", 3)
    room = await world.room()
    said = [await world.say(ALICE, room, "word") for _ in range(10)]
    assert store.is_behind(world.db.read) > 3
    assert found(await search(world, ALICE, "word", filter={"limit": 20})) == said[::-1]
    assert store.is_behind(world.db.read) == 0
    # As if the index had been written and the position not.
    await world.db.write(lambda tx: tx.execute("UPDATE search_progress SET pos = 0").rowcount)
    assert found(await search(world, ALICE, "word", filter={"limit": 20})) == said[::-1]
    check = "INSERT INTO search (search) VALUES ('integrity-check')"
    await world.db.write(lambda tx: tx.execute(check).fetchall())


@pytest.mark.parametrize(
    ("wanted", "errcode"),
    [
        ({"search_term": 1}, "M_BAD_JSON"),
        ({"search_term": None}, "M_MISSING_PARAM"),
        ({"search_term": "x" * 1001}, "M_INVALID_PARAM"),
        ({"keys": "content.body"}, "M_BAD_JSON"),
        ({"order_by": "luck"}, "M_INVALID_PARAM"),
        ({"filter": []}, "M_BAD_JSON"),
        ({"filter": {"limit": "3"}}, "M_BAD_JSON"),
        ({"event_context": 1}, "M_BAD_JSON"),
        ({"event_context": {"before_limit": -1}}, "M_INVALID_PARAM"),
        ({"event_context": {"after_limit": True}}, "M_BAD_JSON"),
        ({"event_context": {"include_profile": 1}}, "M_BAD_JSON"),
        ({"include_state": 1}, "M_BAD_JSON"),
        ({"groupings": []}, "M_BAD_JSON"),
        ({"groupings": {"group_by": 1}}, "M_BAD_JSON"),
        ({"groupings": {"group_by": [{"key": "type"}]}}, "M_INVALID_PARAM"),
    ],
)
def test_a_bad_request_is_refused(wanted: Json, errcode: str) -> None:
    with pytest.raises(MatrixError) as refusal:
        parse({"search_categories": {"room_events": {"search_term": "x", **wanted}}}, None)
    assert (refusal.value.status, refusal.value.errcode) == (400, errcode)


def test_a_bad_token_is_refused_and_nothing_asked_is_nothing_found() -> None:
    with pytest.raises(MatrixError) as refusal:
        parse({"search_categories": {"room_events": {"search_term": "x"}}}, "next")
    assert refusal.value.errcode == "M_INVALID_PARAM"
    assert parse({"search_categories": {}}, None) is None
    with pytest.raises(MatrixError) as refusal:
        parse({}, None)
    assert refusal.value.errcode == "M_MISSING_PARAM"
