# SPDX-License-Identifier: Apache-2.0
"""One event that is nested too deeply, in whatever carries several: it is refused, the others are taken. A
server that passes it on need not have our limit, so it must not be able to spoil what travels along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import canonical, hashes
from minihs.matrix.canonical import MAX_CARRIED_DEPTH, MAX_DEPTH
from minihs.matrix.signatures import sign_event
from minihs.rooms import gap_state
from minihs.store.events import Outcome
from minihs.sync.spaces import remote_summary
from minihs.testing.events import RoomFactory, signing_key_of
from minihs.testing.hostile import Reply, ScriptedPeer
from tests.advisories.kit import ALICE, MALLORY, V1, V2, Siege, cpu_budget, seg, siege
from tests.rooms.forge import inbox_of

IN_A_LIST = 2
"""Levels around an event in a transaction, and in most answers."""
DEEPEST = MAX_CARRIED_DEPTH - IN_A_LIST
LEVELS = [MAX_DEPTH + 1, DEEPEST]
"""Just too deep, and as deep as a body may be."""
CLIENT_V1 = "/_matrix/client/v1"


def nested(levels: int) -> Any:
    value: Any = []
    for number in range(levels - 1):
        value = {"x": value} if number % 2 else [value]
    return value


def deep(at: Siege, levels: int, type: str = "m.room.message", *args: Any, **options: Any) -> Any:
    """An event that has so many levels."""
    return at.event(type, {"body": "deep", "x": nested(levels - 2)}, *args, **options)


def deep_hashes(at: Siege, levels: int) -> Any:
    """The same, in what its id is made of. (Its form is looked at before its signature.)"""
    pdu = at.event()
    return {**pdu, "hashes": {**pdu["hashes"], "x": nested(levels - 2)}}


def name_of(at: Siege, pdu: Any) -> str:
    name = hashes.id_of_refused(pdu, at.forger.version)
    assert name is not None
    return name


def message(text: str, **more: Any) -> Any:
    messages = {ALICE: {"*": {"text": text, **more}}}
    content = {"sender": MALLORY, "type": "x.y", "message_id": text, "messages": messages}
    return {"edu_type": "m.direct_to_device", "content": content}


def typing(at: Siege, levels: int) -> Any:
    content = {"room_id": at.room, "user_id": MALLORY, "typing": True, "x": nested(levels - 2)}
    return {"edu_type": "m.typing", "content": content}


@pytest.mark.parametrize("levels", [*LEVELS, 300])  # orjson writes 254
@pytest.mark.parametrize("version", ["2", "12"])
async def test_in_a_transaction(tmp_path: Path, version: str, levels: int) -> None:
    async with siege(tmp_path, version=version) as at:
        await at.alice.sync()
        pdus = [at.event(), deep(at, levels), deep_hashes(at, levels), at.event()]
        edus = [
            message("first"),
            message("deep", x=nested(levels - 5)),
            {"edu_type": "m.device_list_update", "content": {"user_id": MALLORY, "x": nested(levels - 2)}},
            {"edu_type": nested(levels - 1)},
            nested(levels),
            typing(at, levels),
            message("last"),
        ]
        said = await at.send(*pdus, edus=edus)
        names = [name_of(at, pdu) for pdu in pdus]
        assert said == {
            names[0]: {},
            names[1]: {"error": "the event is not canonical JSON: nested too deeply"},
            names[2]: {"error": "the event is not canonical JSON: nested too deeply"},
            names[3]: {},
        }
        assert [at.outcome(name) for name in names] == [Outcome.ACCEPTED, None, None, Outcome.ACCEPTED]
        synced = await at.alice.sync()
        assert [event["content"]["text"] for event in synced["to_device"]["events"]] == ["first", "last"]
        assert "m.typing" not in str(synced)
        assert not inbox_of(at.rooms)
        refused = [entry for entry in at.logs if entry["event"] == "refused an EDU"]
        assert [entry["type"] for entry in refused] == [
            "m.direct_to_device", "m.device_list_update", "", "", "m.typing"
        ]  # fmt: skip
        await at.unharmed()


async def test_without_an_id_it_is_left_out_of_the_answer(tmp_path: Path) -> None:
    async with siege(tmp_path, version="2") as at:
        nameless, good = {**deep(at, 300), "event_id": nested(5)}, at.event()
        assert await at.send(nameless, good) == {at.id_of(good): {}}
        assert [entry["event_id"] for entry in at.logs if entry["event"] == "refused a PDU"] == [None]


async def test_as_deep_as_it_may_be_and_one_more(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for levels, is_right in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
            pdu = deep(at, levels)
            said = await at.send(pdu, edus=[typing(at, levels)])
            assert ("error" in said[at.id_of(pdu)]) is not is_right
            assert (at.outcome(at.id_of(pdu)) is Outcome.ACCEPTED) is is_right
            seen = "m.typing" in str(await at.alice.sync())
            assert seen is is_right
            await at.send(
                edus=[{"edu_type": "m.typing", "content": {**typing(at, 9)["content"], "typing": False}}]
            )
            await at.alice.sync()
        await at.unharmed()


async def test_what_is_not_part_of_the_event_may_be_deep(tmp_path: Path) -> None:
    """Who passes an event on puts `unsigned` and signatures into it; they are dropped."""
    async with siege(tmp_path) as at:
        pdu = {**at.event(), "unsigned": nested(DEEPEST - 1)}
        pdu["signatures"] = {**pdu["signatures"], "x.test": nested(DEEPEST - 2)}
        assert await at.send(pdu) == {at.id_of(pdu): {}}
        await at.unharmed()


@pytest.mark.parametrize("more", [{}, {"n": 2**70}])
async def test_a_body_that_is_deeper_than_any_is_refused_whole(tmp_path: Path, more: Any) -> None:
    """Whichever parser reads it: integers that are that large are for Python's own."""
    async with siege(tmp_path) as at:
        good = at.event()
        status, answer = await at.send_body({"pdus": [good, deep(at, DEEPEST + 1)], **more})
        assert (status, answer["errcode"]) == (400, "M_NOT_JSON")
        assert at.outcome(at.id_of(good)) is None
        assert not inbox_of(at.rooms)
        status, answer = await at.send_body({"pdus": [good, deep(at, DEEPEST)], **more})
        assert (status, answer["pdus"][at.id_of(good)]) == (200, {})
        await at.unharmed()


async def test_one_level_more_than_an_answer_may_have_spoils_it(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for levels, is_read in ((DEEPEST + 1, False), (DEEPEST, True)):
            sibling = at.event()
            at.answer_gaps(get_missing_events={"events": [deep(at, levels), sibling]})
            await at.send(at.event(prev=[at.id_of(sibling)]))
            assert (at.outcome(at.id_of(sibling)) is Outcome.ACCEPTED) is is_read
        await at.unharmed()


async def gap_of(at: Siege, ghost: Any, state: list[Any]) -> str:
    """Send an event after one whose state must be asked for. Returns its id."""
    state_ids, chain_ids = at.forger.state_ids_answer()
    told, chain = at.forger.state_answer()
    ids = {"pdu_ids": [*state_ids, *(name_of(at, pdu) for pdu in state)], "auth_chain_ids": chain_ids}
    at.answer_gaps(state_ids=ids, state={"pdus": [*state, *told], "auth_chain": chain})
    at.serve_events({name_of(at, pdu): pdu for pdu in (ghost, *state)})
    child = at.event(prev=[at.id_of(ghost)])
    await at.send(child)
    return at.id_of(child)


@pytest.mark.parametrize("singly", [True, False])
@pytest.mark.parametrize("levels", LEVELS)
async def test_in_a_state(tmp_path: Path, levels: int, singly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By /event, or by /state."""
    if not singly:
        monkeypatch.setattr(gap_state, "MAX_SINGLE_FETCHES", 0)
    async with siege(tmp_path) as at:
        good = at.event("x.y", {"body": "good"}, MALLORY)
        state = [deep(at, levels, "x.y", "x"), deep_hashes(at, levels), good]
        child = await gap_of(at, at.event(), state)
        assert at.outcome(child) is Outcome.ACCEPTED
        assert at.outcome(at.id_of(good)) in (Outcome.ACCEPTED, Outcome.REJECTED)  # it is stored
        assert [at.outcome(name_of(at, pdu)) for pdu in state[:2]] == [None, None]
        assert bool(at.peer.received(f"{V1}/state/")) is not singly
        await at.unharmed()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("version", ["2", "12"])
async def test_what_is_built_on_it_is_taken(tmp_path: Path, version: str, levels: int) -> None:
    """Servers that took it for an event go on from it. As a state event it sets nothing."""
    async with siege(tmp_path, version=version) as at:
        before = at.state()
        for state_key in (None, MALLORY):
            spoiler = deep(at, levels, "x.y", state_key)
            await gap_of(at, spoiler, [])
            text = f"after {state_key}"
            child = at.event(content={"msgtype": "m.text", "body": text}, prev=[name_of(at, spoiler)])
            await at.send(spoiler, child)
            assert at.outcome(name_of(at, spoiler)) is None
            assert text in await at.alice.texts(at.room)
        assert at.state() == before
        assert not inbox_of(at.rooms)
        await at.unharmed()


@pytest.mark.parametrize("shown", ["changed", "another", "unsigned", "signed by many"])
@pytest.mark.parametrize("version", ["2", "12"])
async def test_a_good_event_that_is_shown_as_a_bad_one_is_waited_for(
    tmp_path: Path, version: str, shown: str
) -> None:
    """Who passes an event on could else make us overlook it."""
    async with siege(tmp_path, version=version) as at:
        parent = at.event("x.y", {}, MALLORY)
        child = at.event(prev=[at.id_of(parent)])
        at.answer_gaps()
        bad = {
            "changed": {**parent, "content": {"x": nested(300)}},
            "another": deep(at, 300),
            "unsigned": {**parent, "signatures": None},
            "signed by many": {**parent, "signatures": {"x.test": {"ed25519:1": "x" * 70_000}}},
        }
        at.serve_events({at.id_of(parent): bad[shown]})
        await at.send(child)
        assert at.outcome(at.id_of(child)) is None
        assert at.id_of(child) in inbox_of(at.rooms)
        await at.unharmed()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("between", [False, True])
async def test_in_history(tmp_path: Path, levels: int, between: bool) -> None:
    """Beside the others, or so that nothing else names the older ones."""
    async with siege(tmp_path) as at:
        older = at.event()
        spoiler = deep(at, levels, prev=[at.id_of(older)])
        ghost = at.event(prev=[at.id_of(spoiler if between else older)])
        await gap_of(at, spoiler if between else ghost, [])
        at.peer.on("GET", f"{V1}/backfill/", {"pdus": [ghost, spoiler, older]})
        shown = [event["event_id"] for event in await at.alice.messages(at.room)]
        assert at.id_of(older) in shown
        assert at.outcome(at.id_of(spoiler)) is None
        await at.unharmed()


@pytest.mark.parametrize("levels", LEVELS)
async def test_in_an_auth_chain(tmp_path: Path, levels: int) -> None:
    async with siege(tmp_path) as at:
        cited = at.member({"membership": "join", "displayname": "x"})
        own = at.state()["m.room.member", MALLORY]
        auth = [each for each in at.forger.auth_events("x", MALLORY, None, {}) if each != own]
        _, chain = at.forger.state_answer()
        at.answer_gaps(event_auth={"auth_chain": [deep(at, levels, "x.y", "x"), *chain, cited]})
        child = at.event(auth=[*auth, at.id_of(cited)])
        await at.send(child)
        assert at.outcome(at.id_of(cited)) is Outcome.ACCEPTED
        assert at.outcome(at.id_of(child)) is Outcome.ACCEPTED
        await at.unharmed()


# -- getting into rooms ----------------------------------------------------------------------------


HOST = "@host:hall.test"


def hall(at: Siege, version: str, rule: str = "public") -> tuple[RoomFactory, ScriptedPeer]:
    """A room on another server."""
    room = RoomFactory(version, HOST, name="hall", join_rule=rule)
    room.send(HOST, "m.room.name", {"name": "Hall"}, "")
    key = signing_key_of("hall.test")
    return room, ScriptedPeer(at.world.internet, "hall.test", key=key, clock=at.world.clock)


def too_deep(room: RoomFactory, levels: int, type: str = "m.room.topic") -> Any:
    """What the room factory would not make: a state event of the room's."""
    made = room.build(HOST, type, {"topic": "deep"}, "").json
    bare = {key: value for key, value in made.items() if key not in ("hashes", "signatures")}
    hashed = hashes.with_content_hash({**bare, "content": {"topic": "deep", "x": nested(levels - 2)}})
    return sign_event(hashed, room.version, "hall.test", signing_key_of("hall.test"))


def template(room: RoomFactory, membership: str) -> Any:
    made = room.build(ALICE, "m.room.member", {"membership": membership}, ALICE).json
    event = {key: value for key, value in made.items() if key not in ("hashes", "signatures", "event_id")}
    return {"room_version": room.version.version, "event": event}


@pytest.mark.parametrize("levels", [*LEVELS, 3000])
async def test_in_the_state_that_comes_with_a_join(tmp_path: Path, levels: int) -> None:
    """It is taken apart by another parser, which reads deeper."""
    async with siege(tmp_path) as at:
        room, server = hall(at, "12")
        spoiler = too_deep(room, levels)
        state = [spoiler, *(event.json for event in room.state.values())]
        answer = {"origin": "hall.test", "auth_chain": state, "state": state}
        server.on("GET", f"{V1}/make_join/", template(room, "join"))
        server.on("PUT", f"{V2}/send_join/", lambda received: {**answer, "event": received.json})
        room_id = str(room.room_id)
        await at.alice.post(f"/join/{seg(room_id)}?server_name=hall.test", {})
        seen = await at.alice.state(room_id)
        assert seen["m.room.name", ""]["content"] == {"name": "Hall"}
        assert ("m.room.topic", "") not in seen
        await at.unharmed()


async def test_a_state_that_no_parser_reads_is_none(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        room, server = hall(at, "12")
        server.on("GET", f"{V1}/make_join/", template(room, "join"))
        brackets = b'{"auth_chain":[],"state":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
        server.on("PUT", f"{V2}/send_join/", Reply(body=brackets))
        status, _ = await at.alice.ask("POST", f"/join/{seg(str(room.room_id))}?server_name=hall.test", {})
        assert status == 502
        await at.unharmed()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("version", ["10", "12"])
async def test_in_what_an_invite_shows(tmp_path: Path, version: str, levels: int) -> None:
    async with siege(tmp_path) as at:
        room, server = hall(at, version, "invite")
        invite = room.invite(HOST, ALICE)
        spoiler = too_deep(room, levels - 1)  # there is one level more around it
        stripped = {key: spoiler[key] for key in ("type", "state_key", "sender", "content")}
        shown = [spoiler, room.create.json, stripped, room.state["m.room.name", ""].json]
        body = {"room_version": version, "event": invite.json, "invite_room_state": shown}
        uri = f"{V2}/invite/{seg(str(room.room_id))}/{seg(invite.event_id)}"
        status, answer = await server.request("PUT", "one.test", uri, body)
        assert status == 200, answer
        invited = (await at.alice.sync())["rooms"]["invite"][room.room_id]["invite_state"]["events"]
        types = [event["type"] for event in invited]
        assert "m.room.name" in types
        assert ("m.room.topic" in types) is (levels - 1 <= MAX_DEPTH)
        await at.alice.post(f"/rooms/{seg(str(room.room_id))}/leave", {})
        await at.unharmed()


@pytest.mark.parametrize("levels", LEVELS)
async def test_in_what_a_knock_is_shown(tmp_path: Path, levels: int) -> None:
    async with siege(tmp_path) as at:
        room, server = hall(at, "12", "knock")
        shown = [too_deep(room, levels), room.create.json, room.state["m.room.name", ""].json]
        server.on("GET", f"{V1}/make_knock/", template(room, "knock"))
        server.on("PUT", f"{V1}/send_knock/", {"knock_room_state": shown})
        await at.alice.post(f"/knock/{seg(str(room.room_id))}?server_name=hall.test", {})
        knocked = (await at.alice.sync())["rooms"]["knock"][room.room_id]["knock_state"]["events"]
        types = [event["type"] for event in knocked]
        assert "m.room.name" in types
        assert "m.room.topic" not in types
        await at.unharmed()


def child_of_space(levels: int) -> Any:
    content = {"via": ["peer.test"], "x": nested(levels - 2)}
    return {
        "type": "m.space.child",
        "state_key": "!y:peer.test",
        "sender": MALLORY,
        "content": content,
        "origin_server_ts": 1,
    }


async def test_in_the_summary_of_a_space(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        # The room, its list, the event: one level more than elsewhere.
        room = {"room_id": "!x:peer.test", "join_rule": "public", "num_joined_members": 1, "name": "Space"}
        answer = {"room": {**room, "children_state": [child_of_space(DEEPEST - 1)]}, "children": []}
        at.peer.on("GET", f"{V1}/hierarchy/", answer)
        found = await at.alice.get(f"{CLIENT_V1}/room_summary/!x:peer.test?via=peer.test")
        assert found["name"] == "Space"
        await at.unharmed()


def test_a_child_of_a_space_that_is_too_deep_is_left_out() -> None:
    kept = [child_of_space(MAX_DEPTH), child_of_space(MAX_DEPTH + 1)]
    summary = remote_summary({"room_id": "!x:peer.test", "children_state": kept}, "!x:peer.test")
    assert summary is not None
    assert summary["children_state"] == kept[:1]


# -- what it costs ---------------------------------------------------------------------------------


UNITS = {
    "lists": ('["123456789012345678",', "]"),
    "objects": ('{"123456789012":', "}"),
}


@pytest.mark.parametrize("name", UNITS)
async def test_a_body_that_is_deep_everywhere_costs_what_its_length_does(tmp_path: Path, name: str) -> None:
    opening, closing = UNITS[name]
    part = opening * (DEEPEST - 1) + "1" + closing * (DEEPEST - 1)
    body = ('{"edus":[[' + ",".join([part] * (2_000_000 // len(part))) + "]]}").encode()
    content = canonical.loads(body, max_depth=MAX_CARRIED_DEPTH)
    async with siege(tmp_path) as at:
        with cpu_budget(4):
            status, answer = await at.ask("PUT", f"{V1}/send/deep", content)
        assert (status, answer) == (200, {"pdus": {}})
        await at.unharmed()
