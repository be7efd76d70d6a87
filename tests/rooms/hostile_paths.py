# SPDX-License-Identifier: Apache-2.0
"""Every path by which an event of another server gets in, as something a test can send any PDU through.

The victim is v.test, the room is h.test's, and e.test lies: it answers for itself what a test tells it to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minihs.matrix.errors import MatrixError
from minihs.rooms.admission import Source
from minihs.rooms.service import Rooms
from tests.rooms.forge import Forger
from tests.rooms.world import World, worlds

type JsonObject = dict[str, Any]

ALICE, EVE, VIC = "@alice:h.test", "@eve:e.test", "@vic:v.test"
VERBS = ("get_missing_events", "get_state_ids", "get_state", "get_event", "get_event_auth", "backfill")


@dataclass
class Result:
    """What came of a PDU."""

    event_id: str
    error: MatrixError | None = None
    """How the request was answered that handed it in; None: with 200, or there was none."""
    answer: Any = None
    good: Sequence[str] = ()
    """Events that came together with it and have nothing wrong."""


@dataclass
class Path_:
    """A way in. `base` makes a good unsigned event as this path takes it, `send` has any PDU come by it."""

    base: Callable[[Scene], JsonObject]
    send: Callable[[Scene, JsonObject], Awaitable[Result]]


@dataclass
class Scene:
    world: World
    forger: Forger
    other_room: str
    """Another room that the victim and the forger are in."""
    users: int = 0
    friend: JsonObject | None = None
    """A good event of the state that e.test tells."""
    answers: dict[str, Any] = field(default_factory=dict)
    """verb → what e.test answers to it now. Other servers don't answer."""

    @property
    def victim(self) -> Rooms:
        return self.world.servers["v.test"]

    @property
    def room_id(self) -> str:
        return self.forger.room_id

    def message(self, **options: Any) -> JsonObject:
        return self.forger.draft("m.room.message", EVE, {"body": "hello"}, **options)

    def good(self, **options: Any) -> tuple[JsonObject, str]:
        pdu = self.forger.seal(self.message(**options))
        return pdu, self.forger.id_of(pdu)

    def somebody(self) -> str:
        self.users += 1
        return f"@user{self.users}:e.test"

    def answer_honestly(self, known: Mapping[str, JsonObject]) -> None:
        """The state as it is, the events that are given, and nothing else."""
        state_ids, chain_ids = self.forger.state_ids_answer()
        self.answers = {
            "get_missing_events": [],
            "get_state_ids": (state_ids, chain_ids),
            "get_state": self.forger.state_answer(),
            "get_event": lambda event_id: known.get(event_id, {}),
            "get_event_auth": [],
            "backfill": [],
        }

    async def forget_inbox(self) -> None:
        await self.victim.parts.db.write(lambda tx: tx.execute("DELETE FROM inbox").rowcount)


@asynccontextmanager
async def scenes(tmp_path: Path, version: str, join_rule: str = "public") -> AsyncIterator[Scene]:
    async with worlds(tmp_path, "v.test", "h.test", "e.test", "c.test") as world:
        h, e, v = (world.servers[name] for name in ("h.test", "e.test", "v.test"))
        made = []
        for _ in range(2):
            room_id = await h.create(ALICE, {"preset": "public_chat", "room_version": version})
            await e.join(EVE, room_id, via=["h.test"])
            await world.deliver()
            await v.join(VIC, room_id, via=["h.test"])
            await world.deliver()
            made.append(room_id)
        if join_rule != "public":
            await h.send(ALICE, made[0], "m.room.join_rules", {"join_rule": join_rule}, state_key="")
            await world.deliver()
        scene = Scene(world, Forger(world, "e.test", "v.test", made[0]), made[1])

        for verb in VERBS:
            world.hooks["e.test", verb] = _script(scene, verb)
            world.hooks["h.test", verb] = _nobody
        yield scene


def _script(scene: Scene, verb: str) -> Callable[..., Awaitable[Any]]:
    async def hook(honest: Any, asker: str, *args: Any) -> Any:
        answer = scene.answers[verb]
        return answer(*args) if callable(answer) else answer

    return hook


async def _nobody(honest: Any, asker: str, *args: Any) -> Any:
    from minihs.matrix.federation_errors import Unreachable

    raise Unreachable("h.test", "is not there")


# -- the paths -------------------------------------------------------------------------------------


async def _transaction(scene: Scene, bad: JsonObject) -> Result:
    pdu, good = scene.good()
    bad_id = scene.forger.id_of(bad)
    answer = await scene.world.send("e.test", "v.test", [bad, pdu])
    return Result(bad_id, answer=answer, good=[good])


async def _missing_events(scene: Scene, bad: JsonObject) -> Result:
    sibling, sibling_id = scene.good()
    bad_id = scene.forger.id_of(bad)
    child, child_id = scene.good(prev=[bad_id, sibling_id])
    scene.answer_honestly({bad_id: bad, sibling_id: sibling})
    scene.answers["get_missing_events"] = [bad, sibling]
    answer = await scene.world.send("e.test", "v.test", [child])
    assert answer == {"pdus": {child_id: {}}}
    return Result(bad_id, good=[sibling_id])


async def _state(scene: Scene, bad: JsonObject) -> Result:
    """The event is among the state before an event that only the forger has."""
    bad_id = scene.forger.id_of(bad)
    ghost, ghost_id = scene.good()
    child, child_id = scene.good(prev=[ghost_id])
    scene.answer_honestly({bad_id: bad, ghost_id: ghost})
    state_ids, chain_ids = scene.answers["get_state_ids"]
    scene.answers["get_state_ids"] = [*state_ids, bad_id], chain_ids
    state, chain = scene.answers["get_state"]
    scene.answers["get_state"] = [*state, bad], chain
    await scene.world.send("e.test", "v.test", [child])
    # Without an id it can't be known to be the event that was asked for: then the state is not known.
    return Result(bad_id, good=[child_id] if scene.forger.has_id(bad) else [])


async def _auth_chain(scene: Scene, bad: JsonObject) -> Result:
    """The event is said to be the sender's membership, in the auth chain of another event."""
    bad_id = scene.forger.id_of(bad)
    sender = bad.get("sender")
    state = scene.forger.state
    auth = [state[key] for key in (("m.room.create", ""), ("m.room.power_levels", "")) if key in state]
    if scene.forger.version.room_id_is_create_hash:
        auth = auth[1:]
    who = sender if isinstance(sender, str) and sender.endswith(":e.test") else EVE
    child = scene.forger.seal(scene.forger.draft("m.room.message", who, {}, auth=[*auth, bad_id]))
    pdu, good = scene.good()
    scene.answer_honestly({bad_id: bad})
    scene.answers["get_event_auth"] = [bad]
    await scene.world.send("e.test", "v.test", [child, pdu])
    return Result(bad_id, answer=scene.forger.id_of(child), good=[good])


async def _join(
    scene: Scene, prev_ids: Sequence[str], state: list[JsonObject], chain: list[JsonObject]
) -> MatrixError | None:
    """The victim, left and back again, gets a template and a state that are made up."""
    version = scene.forger.version.version
    auth = scene.forger.auth_events("m.room.member", VIC, VIC, {"membership": "join"})
    prev_events, auth_events = scene.forger.references(prev_ids), scene.forger.references(auth)

    async def make(honest: Any, asker: str, room_id: str, user_id: str) -> Any:
        event = {
            "type": "m.room.member",
            "room_id": room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": {"membership": "join"},
            "depth": 1000,
            "prev_events": prev_events,
            "auth_events": auth_events,
        }
        return {"event": event, "room_version": version}

    async def send(honest: Any, asker: str, room_id: str, event_id: str, pdu: JsonObject) -> Any:
        return {"state": state, "auth_chain": chain, "event": pdu}

    world = scene.world
    world.hooks["e.test", "make_join"], world.hooks["e.test", "send_join"] = make, send
    world.hooks["h.test", "make_join"] = _nobody
    await scene.victim.leave(VIC, scene.room_id)
    try:
        await scene.victim.join(VIC, scene.room_id, via=["e.test"])
    except MatrixError as error:
        return error
    finally:
        await world.rest()
    return None


async def _send_join_answer(scene: Scene, bad: JsonObject) -> Result:
    state, chain = scene.forger.state_answer()
    bad_id = scene.forger.id_of(bad)
    scene.friend = scene.friend or scene.forger.seal(_own_member_event(scene))
    good = scene.friend
    error = await _join(scene, scene.forger.tips, [*state, bad, good], [*chain, bad])
    return Result(bad_id, error, good=[scene.forger.id_of(good)])


async def _backfill(scene: Scene, bad: JsonObject) -> Result:
    """The event is a parent of the victim's own join."""
    state, chain = scene.forger.state_answer()
    sibling, sibling_id = scene.good()
    bad_id = scene.forger.id_of(bad)
    known = {bad_id: bad, sibling_id: sibling}
    ids = scene.forger.state_ids_answer()
    error = await _join(scene, [bad_id, sibling_id], state, chain)
    assert error is None, error
    scene.answer_honestly(known)
    scene.answers["get_state_ids"] = ids
    scene.answers["backfill"] = [bad, sibling]
    await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
    await scene.world.rest()
    return Result(bad_id, good=[sibling_id])


def _handed_in(verb: str) -> Callable[[Scene, JsonObject], Awaitable[Result]]:
    async def send(scene: Scene, bad: JsonObject) -> Result:
        bad_id = scene.forger.id_of(bad)
        pdu, good = scene.good()
        await scene.world.send("e.test", "v.test", [pdu])
        result = Result(bad_id, good=[good])
        try:
            result.answer = await getattr(scene.victim.resident, verb)("e.test", scene.room_id, bad_id, bad)
        except MatrixError as error:
            result.error = error
        await scene.world.rest()
        return result

    return send


async def _invite(scene: Scene, bad: JsonObject) -> Result:
    bad_id = scene.forger.id_of(bad)
    version = scene.forger.version.version
    result = Result(bad_id)
    try:
        result.answer = await scene.victim.invites.receive("e.test", scene.room_id, bad_id, version, bad, [])
    except MatrixError as error:
        result.error = error
    await scene.world.rest()
    return result


# -- what they carry -------------------------------------------------------------------------------


def _message(scene: Scene) -> JsonObject:
    return scene.message()


def _own_member_event(scene: Scene) -> JsonObject:
    return scene.forger.draft("m.room.member", EVE, {"membership": "join", "displayname": "Eve"}, EVE)


def _join_of_somebody(scene: Scene) -> JsonObject:
    user_id = scene.somebody()
    return scene.forger.draft("m.room.member", user_id, {"membership": "join", "displayname": "x"}, user_id)


def _knock_of_somebody(scene: Scene) -> JsonObject:
    user_id = scene.somebody()
    return scene.forger.draft("m.room.member", user_id, {"membership": "knock", "displayname": "x"}, user_id)


def _leave_of_eve(scene: Scene) -> JsonObject:
    return scene.forger.draft("m.room.member", EVE, {"membership": "leave", "reason": "x"}, EVE)


def _invite_of_ours(scene: Scene) -> JsonObject:
    scene.users += 1
    target = f"@guest{scene.users}:v.test"
    return scene.forger.draft("m.room.member", EVE, {"membership": "invite", "displayname": "x"}, target)


PATHS: dict[tuple[Source, str], Path_] = {
    (Source.TRANSACTION, "send"): Path_(_message, _transaction),
    (Source.MISSING_EVENTS, "get_missing_events"): Path_(_message, _missing_events),
    (Source.MEMBERSHIP, "send_join"): Path_(_join_of_somebody, _handed_in("send_join")),
    (Source.MEMBERSHIP, "send_leave"): Path_(_leave_of_eve, _handed_in("send_leave")),
    (Source.MEMBERSHIP, "send_knock"): Path_(_knock_of_somebody, _handed_in("send_knock")),
    (Source.BACKFILL, "backfill"): Path_(_message, _backfill),
    (Source.STATE, "event"): Path_(_join_of_somebody, _state),
    (Source.STATE, "state"): Path_(_join_of_somebody, _state),
    (Source.AUTH_CHAIN, "event_auth"): Path_(_own_member_event, _auth_chain),
    (Source.SEND_JOIN_ANSWER, "send_join answer"): Path_(_join_of_somebody, _send_join_answer),
    (Source.INVITE, "invite"): Path_(_invite_of_ours, _invite),
}
"""Not `COUNTERSIGNED` and `OWN_JOIN` (our own events) nor `SHOWN_STATE` (never stored), which have tests of
their own."""
