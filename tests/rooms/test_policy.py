# SPDX-License-Identifier: Apache-2.0
"""Rooms with a policy server: without its signature nothing is sent, and what others send is soft-failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import RemoteRefused, Unreachable
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import POLICY_KEY_ID, SigningKey, sign_event
from minihs.rooms import ties
from minihs.rooms.head import TIE_TYPE
from minihs.rooms.service import Rooms
from minihs.store.events import Outcome
from tests.rooms.forge import Forger
from tests.rooms.world import World, membership_of, state_of, stored, timeline_of, worlds

ALICE, BOB, PAT = "@alice:a.test", "@bob:b.test", "@pat:p.test"
KEY = SigningKey.generate(b"p" * 32, "policy_server")
ANOTHER = SigningKey.generate(b"q" * 32, "policy_server")


@dataclass
class PolicyServer:
    """p.test, as others reach it."""

    version: str
    asked: list[Any] = field(default_factory=list)
    key: SigningKey = KEY
    refuses: str | None = None
    """A word that no body may hold."""
    down: bool = False
    answer: Any = None

    async def hook(self, honest: Any, asker: str, pdu: Any) -> Any:
        self.asked.append((asker, pdu))
        if self.down:
            raise Unreachable("p.test", "is down")
        if self.refuses is not None and self.refuses in str(pdu["content"]):
            raise RemoteRefused("p.test", 400, {"errcode": "M_FORBIDDEN", "error": "That is spam."})
        if self.answer is not None:
            return self.answer
        signed = sign_event({**pdu, "signatures": {}}, ROOM_VERSIONS[self.version], "p.test", self.key)
        return signed["signatures"]


@dataclass
class Place:
    world: World
    room: str
    policy: PolicyServer

    @property
    def a(self) -> Rooms:
        return self.world.servers["a.test"]

    @property
    def b(self) -> Rooms:
        return self.world.servers["b.test"]

    def event(self, server: Rooms, event_id: str) -> Event:
        event = server.parts.graph.event(event_id)
        assert event is not None
        return event


async def guarded(world: World, version: str = "11") -> Place:
    """A room of a.test and b.test that p.test guards."""
    a, b, p = (world.servers[name] for name in ("a.test", "b.test", "p.test"))
    room = await a.create(ALICE, {"preset": "public_chat", "room_version": version})
    await b.join(BOB, room, via=["a.test"])
    await p.join(PAT, room, via=["a.test"])
    await world.deliver()
    policy = PolicyServer(version)
    world.hooks["p.test", "policy_sign"] = policy.hook
    content = {"via": "p.test", "public_keys": {"ed25519": KEY.verify_key_base64}}
    await a.send(ALICE, room, "m.room.policy", content, state_key="")
    await world.deliver()
    assert policy.asked == []
    return Place(world, room, policy)


async def test_so_is_what_ties_ends_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ties, "MAX_ENDS", 1)
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        levels = at.event(at.a, state_of(at.a, at.room)["m.room.power_levels", ""]).content
        only_alice = {**levels, "events": {TIE_TYPE: 100}}
        await at.a.send(ALICE, at.room, "m.room.power_levels", only_alice, state_key="")
        await world.deliver()
        await at.a.send(ALICE, at.room, "m.room.message", {"body": "here"})
        await at.b.send(BOB, at.room, "m.room.message", {"body": "there"})
        await world.deliver()
        (tip,) = at.a.parts.head(at.room).tips
        tie = at.event(at.a, tip)
        assert tie.type == TIE_TYPE
        assert POLICY_KEY_ID in tie.json["signatures"]["p.test"]


@pytest.mark.parametrize("version", ["3", "11", "12"])
async def test_what_our_users_send_is_signed_by_the_policy_server(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world, version)
        for server, user in ((at.a, ALICE), (at.b, BOB)):
            event_id = await server.send(user, at.room, "m.room.message", {"body": "hello"})
            assert POLICY_KEY_ID in at.event(server, event_id).json["signatures"]["p.test"]
        await world.deliver()
        assert set(timeline_of(at.a, at.room)[-2:]) == set(timeline_of(at.b, at.room)[-2:])
        # The receivers had no need to ask.
        assert [asker for asker, _ in at.policy.asked] == ["a.test", "b.test"]


async def test_each_of_several_messages_that_wait_is_signed_or_refused_by_itself(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.refuses = "spam"
        outcomes: dict[str, str] = {}

        async def say(body: str) -> None:
            try:
                event_id = await at.a.send(ALICE, at.room, "m.room.message", {"body": body})
            except MatrixError as error:
                outcomes[body] = error.message
            else:
                assert POLICY_KEY_ID in at.event(at.a, event_id).json["signatures"]["p.test"]
                outcomes[body] = "said"

        release = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.a.parts.tasks.run, at.room, release.wait)
            for body in ("one", "spam", "two"):
                nursery.start_soon(say, body)
            await trio.testing.wait_all_tasks_blocked()
            release.set()
        assert outcomes == {"one": "said", "spam": "That is spam.", "two": "said"}


async def test_a_message_that_is_signed_is_not_kept_waiting_for_the_last(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        said: list[str] = []
        two_said = trio.Event()
        signing = {body: trio.Event() for body in ("one", "two", "three")}

        async def sign(honest: Any, asker: str, pdu: Any) -> Any:
            await signing[pdu["content"]["body"]].wait()
            return await at.policy.hook(honest, asker, pdu)

        async def say(body: str) -> None:
            await at.a.send(ALICE, at.room, "m.room.message", {"body": body})
            said.append(body)
            if len(said) == 2:
                two_said.set()

        world.hooks["p.test", "policy_sign"] = sign
        release = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.a.parts.tasks.run, at.room, release.wait)
            await trio.testing.wait_all_tasks_blocked()
            for body in signing:
                nursery.start_soon(say, body)
                await trio.testing.wait_all_tasks_blocked()
            signing["one"].set()
            release.set()
            await trio.testing.wait_all_tasks_blocked()  # the second is asked about while the first was
            signing["two"].set()
            with trio.fail_after(5):
                await two_said.wait()
            assert sorted(said) == ["one", "two"]
            signing["three"].set()
        assert said[2:] == ["three"]


async def test_what_the_policy_server_refuses_is_not_sent(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.refuses = "spam"
        before = timeline_of(at.b, at.room)
        with pytest.raises(MatrixError) as refused:
            await at.b.send(BOB, at.room, "m.room.message", {"body": "spam"})
        assert (refused.value.status, refused.value.errcode) == (400, "M_FORBIDDEN")
        assert refused.value.message == "That is spam."
        with pytest.raises(MatrixError):
            await at.b.send(BOB, at.room, "m.room.name", {"name": "spam"}, state_key="")
        await world.deliver()
        assert timeline_of(at.b, at.room) == before
        assert timeline_of(at.a, at.room)[-1] == before[-1]
        good = await at.b.send(BOB, at.room, "m.room.message", {"body": "ham"})
        await world.deliver()
        assert timeline_of(at.a, at.room)[-1] == good


BAD_ANSWERS: dict[str, Any] = {
    "nothing": {},
    "no signature": {"p.test": {}},
    "another key": {"p.test": {"ed25519:other": "c2ln"}},
    "no base64": {"p.test": {POLICY_KEY_ID: "?!"}},
    "a wrong one": {"p.test": {POLICY_KEY_ID: "c2ln"}},
    "no object": {"p.test": 5},
    "no string": {"p.test": {POLICY_KEY_ID: 5}},
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
async def test_a_signature_that_is_none_is_a_refusal(tmp_path: Path, what: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.answer = BAD_ANSWERS[what]
        with pytest.raises(MatrixError):
            await at.a.send(ALICE, at.room, "m.room.message", {"body": "x"})


async def test_without_the_policy_server_only_the_way_out_of_it_works(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.down = True
        with pytest.raises(MatrixError) as refused:
            await at.a.send(ALICE, at.room, "m.room.message", {"body": "x"})
        assert refused.value.status == 502
        await at.a.send(ALICE, at.room, "m.room.policy", {}, state_key="")
        await at.a.send(ALICE, at.room, "m.room.message", {"body": "free"})
        await world.deliver()
        assert timeline_of(at.a, at.room)[-2:] == timeline_of(at.b, at.room)[-2:]


DISABLED: dict[str, Any] = {
    "no via": {"public_keys": {"ed25519": KEY.verify_key_base64}},
    "no keys": {"via": "p.test"},
    "another algorithm": {"via": "p.test", "public_keys": {"rsa": "x"}},
    "keys that are none": {"via": "p.test", "public_keys": {"ed25519": 5}},
    "nobody of it in the room": {"via": "q.test", "public_keys": {"ed25519": "x"}},
    "no server name": {"via": "p test", "public_keys": {"ed25519": "x"}},
}


@pytest.mark.parametrize("what", DISABLED)
async def test_a_room_that_designates_nobody_rightly_has_none(tmp_path: Path, what: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        await at.a.send(ALICE, at.room, "m.room.policy", DISABLED[what], state_key="")
        await at.a.send(ALICE, at.room, "m.room.message", {"body": "x"})
        assert at.policy.asked == []


async def test_the_policy_server_ends_it_by_leaving(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        p = world.servers["p.test"]
        with pytest.raises(MatrixError) as refused:  # as a homeserver it asks itself, and we are none
            await p.leave(PAT, at.room)
        assert refused.value.errcode == "M_UNRECOGNIZED"
        await at.a.kick(ALICE, at.room, PAT)
        await world.deliver()
        at.policy.asked.clear()
        await at.b.send(BOB, at.room, "m.room.message", {"body": "free"})
        assert at.policy.asked == []


def unsigned(world: World, at: Place, body: str) -> Any:
    """A message of bob's that his server sends without asking the policy server."""
    forger = Forger(world, "b.test", "a.test", at.room)
    return forger.seal(forger.draft("m.room.message", BOB, {"body": body}))


async def test_what_comes_without_a_signature_is_signed_or_soft_failed(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.refuses = "spam"
        fine, spam = unsigned(world, at, "ham"), unsigned(world, at, "spam")
        answer = await world.send("b.test", "a.test", [fine, spam])
        fine_id, spam_id = answer["pdus"]
        assert answer["pdus"] == {fine_id: {}, spam_id: {}}
        ours, theirs = stored(at.a, fine_id), stored(at.a, spam_id)
        assert ours is not None
        assert theirs is not None
        assert ours.outcome is Outcome.ACCEPTED
        assert POLICY_KEY_ID in ours.event.json["signatures"]["p.test"]
        assert theirs.outcome is Outcome.SOFT_FAILED
        assert theirs.reason is not None
        assert "policy" in theirs.reason
        assert spam_id not in timeline_of(at.a, at.room)


async def test_what_is_missing_needs_a_signature_and_history_does_not(tmp_path: Path) -> None:
    """What may be new is checked however it comes; what is fetched for a client that scrolls back is not."""
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.refuses = "spam"
        forger = Forger(world, "b.test", "a.test", at.room)
        answers: dict[str, Any] = {}

        def answering(verb: str) -> Any:
            async def answer(honest: Any, asker: str, *args: Any) -> Any:
                found = answers[verb]
                return found(*args) if callable(found) else found

            return answer

        for verb in ("get_missing_events", "get_state_ids", "get_event", "backfill"):
            world.hooks["b.test", verb] = answering(verb)

        def message(body: str, prev: list[str]) -> tuple[Any, str]:
            pdu = forger.seal(forger.draft("m.room.message", BOB, {"body": body}, prev=prev))
            return pdu, forger.id_of(pdu)

        spam, spam_id = message("spam", forger.tips)
        child, _ = message("ham", [spam_id])
        answers["get_missing_events"] = [spam]
        await world.send("b.test", "a.test", [child])
        found = stored(at.a, spam_id)
        assert found is not None
        assert found.outcome is Outcome.SOFT_FAILED

        old, old_id = message("old spam", forger.tips)
        root, root_id = message("ham", [old_id])
        child, _ = message("ham", [root_id])
        answers |= {"get_missing_events": [], "get_state_ids": forger.state_ids_answer(), "backfill": [old]}
        answers["get_event"] = lambda event_id: {root_id: root}.get(event_id, {})
        await world.send("b.test", "a.test", [child])
        answers["backfill"] = [root, old]
        assert await at.a.backfill(at.room, before=(10**9, 0), limit=10)
        found = stored(at.a, old_id)
        assert found is not None
        assert found.outcome is Outcome.ACCEPTED


async def test_a_policy_server_that_is_down_is_not_asked_about_everything(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.down = True
        await world.send("b.test", "a.test", [unsigned(world, at, f"{n}") for n in range(10)])
        assert len(at.policy.asked) == 1
        at.policy.down = False
        await world.wait(120)
        await world.send("b.test", "a.test", [unsigned(world, at, "later")])
        assert len(at.policy.asked) == 2
        at.policy.down = True
        await world.wait(120)
        await world.send("b.test", "a.test", [unsigned(world, at, "down again")])
        at.policy.down = False
        world.clock.ms -= 24 * 3600_000  # it was set back: not for a day
        await world.send("b.test", "a.test", [unsigned(world, at, "at once")])
        assert len(at.policy.asked) == 4


async def test_a_signature_with_another_key_than_the_rooms_does_not_count(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        at.policy.key = ANOTHER
        answer = await world.send("b.test", "a.test", [unsigned(world, at, "hm")])
        (event_id,) = answer["pdus"]
        found = stored(at.a, event_id)
        assert found is not None
        assert found.outcome is Outcome.SOFT_FAILED


async def test_a_join_through_us_needs_the_signature_too(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        await at.b.leave(BOB, at.room)
        await world.deliver()
        at.policy.refuses = "'join'"
        with pytest.raises(MatrixError) as refused:
            await at.b.join(BOB, at.room, via=["a.test"])
        assert refused.value.status == 403
        at.policy.refuses = None
        await at.b.join(BOB, at.room, via=["a.test"])
        assert membership_of(at.a, at.room, BOB) == "join"
        event = at.event(at.a, state_of(at.a, at.room)["m.room.member", BOB])
        assert POLICY_KEY_ID in event.json["signatures"]["p.test"]


async def test_an_invite_is_signed_before_it_is_sent(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        await at.a.invite(ALICE, at.room, "@ben:b.test")
        event = at.event(at.a, state_of(at.a, at.room)["m.room.member", "@ben:b.test"])
        assert set(event.json["signatures"]) == {"a.test", "b.test", "p.test"}
        at.policy.refuses = "invite"
        with pytest.raises(MatrixError):
            await at.a.invite(ALICE, at.room, "@bill:b.test")
        assert membership_of(at.b, at.room, "@bill:b.test") is None


async def test_a_request_that_is_repeated_meanwhile_makes_one_event(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "p.test") as world:
        at = await guarded(world)
        sent: list[str] = []

        async def send() -> None:
            sent.append(
                await at.a.send(ALICE, at.room, "m.room.message", {"body": "once"}, device_id="D", txn_id="t")
            )

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send)
        assert len(set(sent)) == 1
