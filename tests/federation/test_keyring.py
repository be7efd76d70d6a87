# SPDX-License-Identifier: Apache-2.0
"""Keys of other servers: which are believed, for what and for how long, and how they are got."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from minihs.federation.key_document import MAX_VALIDITY_MS
from minihs.matrix.event import Event, build_event
from minihs.matrix.federation_errors import KeyUnavailable
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SignatureError, SigningKey, sign_event, sign_json
from minihs.store import server_keys
from minihs.testing.hostile import KEY_PATH, Reply, ScriptedPeer
from tests.federation.keyring_kit import key_of, keyring_of, make_event
from tests.federation.kit import Caller

DAY = 24 * 3600 * 1000


# -- the validity table --


@dataclass(frozen=True)
class Rule:
    """Times are days from now. `good` by room version: None for "not to be told"."""

    id: str
    event: float
    valid_until: float = 1
    expired: float | None = None
    good: dict[str, bool | None] = field(default_factory=dict)


RULES = [
    Rule("a key in use, an event of now", 0, good={"1": True, "4": True, "5": True, "11": True, "12": True}),
    Rule("an event of last year", -365, good={"1": True, "4": True, "5": True, "12": True}),
    Rule("an event just before the end", 0.99, good={"4": True, "5": True, "12": True}),
    Rule("an event just after the end", 1.01, good={"4": True, "5": None, "12": None}),
    Rule("an event of next year", 365, good={"4": True, "5": False, "12": False}),
    Rule("a document that ran out", 0, valid_until=-1, good={"4": True, "5": None, "12": None}),
    Rule("an event from before it ran out", -2, valid_until=-1, good={"4": True, "5": True, "12": True}),
    Rule("a document for ever, an event in 6 days", 6, valid_until=9999, good={"5": True, "12": True}),
    Rule("a document for ever, an event in 8 days", 8, valid_until=9999, good={"4": True, "5": False}),
    Rule("an old key, an event from before", -3, expired=-2, good={"4": True, "5": True, "12": True}),
    Rule("an old key, an event from after", -1, expired=-2, good={"4": True, "5": False, "12": False}),
    Rule("an old key, an event of the very moment", -2, expired=-2, good={"5": True, "12": True}),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
async def test_which_key_counts_for_which_event(us: Caller, rule: Rule) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    now = us.clock.now_ms()
    key = key_of(1)
    document: dict[str, Any] = {"valid_until_ts": now + int(rule.valid_until * DAY)}
    if rule.expired is None:
        peer.key = key
    else:
        expired = now + int(rule.expired * DAY)
        document["old_verify_keys"] = {key.key_id: {"key": key.verify_key_base64, "expired_ts": expired}}
    peer.on("GET", KEY_PATH, peer.key_document(**document))
    for version, good in rule.good.items():
        event = make_event("peer.test", key, now + int(rule.event * DAY), version)
        [verdict] = await keyring.verify_events([event])
        if good:
            assert verdict is None, version
        else:
            assert isinstance(verdict, SignatureError), version
            assert isinstance(verdict, KeyUnavailable) is (good is None), version
    await trio.sleep(5)


async def test_the_cap_of_seven_days_holds_from_when_the_document_was_fetched(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    peer.on("GET", KEY_PATH, peer.key_document(valid_until_ts=us.clock.now_ms() + 9999 * DAY))
    event = make_event("peer.test", peer.key, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    peer.host.down()
    us.clock.step(MAX_VALIDITY_MS + 1000)
    late = make_event("peer.test", peer.key, us.clock.now_ms())
    [verdict] = await keyring.verify_events([late])
    assert isinstance(verdict, KeyUnavailable)
    assert await keyring.verify_events([event]) == [None]


# -- events and their signatures --


async def test_a_wrong_signature_is_told_from_a_missing_one(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    now = us.clock.now_ms()
    good = make_event("peer.test", peer.key, now)
    forger = SigningKey.generate(b"\5" * 32, "scripted")
    forged = make_event("peer.test", forger, now)
    unsigned = Event.from_wire({**good.json, "signatures": {}}, good.version)
    by_other = Event.from_wire(
        {**good.json, "signatures": {"other.test": {"ed25519:1": "A" * 86}}}, good.version
    )
    no_dict = Event.from_wire({**good.json, "signatures": {"peer.test": {"rsa:1": "x", "": 5}}}, good.version)
    not_text = Event.from_wire({**good.json, "signatures": {"peer.test": {peer.key.key_id: 5}}}, good.version)
    verdicts = await keyring.verify_events([good, forged, unsigned, by_other, no_dict, not_text])
    assert verdicts[0] is None
    assert all(isinstance(verdict, SignatureError) for verdict in verdicts[1:])
    assert not any(isinstance(verdict, KeyUnavailable) for verdict in verdicts)


async def test_an_event_may_carry_signatures_of_keys_that_we_do_not_know(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    event = make_event("peer.test", peer.key, us.clock.now_ms())
    event = event.with_signatures({"peer.test": {"ed25519:lost": "A" * 86}})
    assert await keyring.verify_events([event]) == [None]


async def test_restricted_joins_need_the_signature_of_the_authorising_server(us: Caller) -> None:
    keyring = keyring_of(us)
    one = ScriptedPeer(us.internet, "one.test", clock=us.clock)
    two = ScriptedPeer(us.internet, "two.test", clock=us.clock)
    content = {"membership": "join", "join_authorised_via_users_server": "@boss:two.test"}
    now = us.clock.now_ms()
    event = build_event(
        version=ROOM_VERSIONS["11"],
        room_id="!room:one.test",
        type="m.room.member",
        sender="@user:one.test",
        state_key="@user:one.test",
        content=content,
        depth=5,
        prev_events=["$" + "a" * 43],
        auth_events=[],
        origin_server_ts=now,
        server_name="one.test",
        key=one.key,
    )
    [verdict] = await keyring.verify_events([event])
    assert isinstance(verdict, SignatureError)
    signed = Event.from_wire({**event.json}, event.version)
    both = Event.from_wire(sign_event(signed.json, event.version, "two.test", two.key), event.version)
    assert await keyring.verify_events([both]) == [None]


async def test_our_own_events_are_checked_without_asking_anybody(us: Caller) -> None:
    keyring = keyring_of(us)
    good = make_event(us.name, us.key, us.clock.now_ms())
    bad = make_event(us.name, SigningKey.generate(b"\5" * 32, "us"), us.clock.now_ms())
    verdicts = await keyring.verify_events([good, bad])
    assert verdicts[0] is None
    assert isinstance(verdicts[1], SignatureError)
    assert us.internet.dns.queries == []


async def test_a_batch_asks_each_server_once(us: Caller) -> None:
    keyring = keyring_of(us)
    peers = [ScriptedPeer(us.internet, f"peer{number}.test", clock=us.clock) for number in range(5)]
    now = us.clock.now_ms()
    events = [make_event(peer.name, peer.key, now, content={"n": n}) for peer in peers for n in range(50)]
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(keyring.verify_events, events)
    assert await keyring.verify_events(events) == [None] * len(events)
    assert [len(peer.received(KEY_PATH)) for peer in peers] == [1] * 5


async def test_a_forgery_in_a_large_batch_is_found_where_it_is(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    now = us.clock.now_ms()
    forger = SigningKey.generate(b"\5" * 32, "scripted")
    forged = {3, 99, 100, 250}
    events = [
        make_event("peer.test", forger if n in forged else peer.key, now, content={"n": n})
        for n in range(251)
    ]
    verdicts = await keyring.verify_events(events)
    assert {position for position, verdict in enumerate(verdicts) if verdict is not None} == forged


@pytest.mark.parametrize("count", [1, 10, 150])
async def test_what_is_signed_is_not_kept_once_it_was_verified(us: Caller, count: int) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    now = us.clock.now_ms()
    made = [make_event("peer.test", peer.key, now, content={"n": n}) for n in range(count)]
    events = [Event.from_wire(event.json, event.version) for event in made]
    assert all(event.signed is not None for event in events)
    assert await keyring.verify_events(events) == [None] * count
    assert all(event.signed is None for event in events)


async def test_a_dead_server_costs_one_time_out_and_the_others_pass(us: Caller) -> None:
    keyring = keyring_of(us)
    alive = ScriptedPeer(us.internet, "alive.test", clock=us.clock)
    dead = [ScriptedPeer(us.internet, f"dead{number}.test", clock=us.clock) for number in range(20)]
    us.internet.partition([us.host], [peer.host for peer in dead])
    now = us.clock.now_ms()
    events = [make_event(peer.name, peer.key, now) for peer in [*dead, alive]]
    start = trio.current_time()
    verdicts = await keyring.verify_events(events)
    assert all(isinstance(verdict, KeyUnavailable) for verdict in verdicts[:-1])
    assert verdicts[-1] is None
    assert trio.current_time() - start <= 31
    start = trio.current_time()
    await keyring.verify_events(events)
    assert trio.current_time() - start < 1


async def test_a_dead_server_is_asked_ever_more_rarely(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    peer.on("GET", KEY_PATH, Reply(500))
    event = make_event(peer.name, peer.key, us.clock.now_ms())
    for _ in range(24 * 12):
        await keyring.verify_events([event])
        await trio.sleep(300)
    assert 20 <= len(peer.received(KEY_PATH)) <= 32


async def test_keys_are_kept_over_a_restart(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    event = make_event(peer.name, peer.key, us.clock.now_ms())
    assert await keyring_of(us).verify_events([event]) == [None]
    peer.host.down()
    assert await keyring_of(us).verify_events([event]) == [None]


async def test_keys_of_a_server_that_calls_are_renewed_before_they_run_out(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keyring.run)
        for _ in range(240):
            await keyring.verify_request("peer.test", b"hello", [(peer.key.key_id, peer.key.sign(b"hello"))])
            await trio.sleep(3600)
        nursery.cancel_scope.cancel()
    # Ten days of documents valid for one day each: about two a day, never one too late.
    assert 18 <= len(peer.received(KEY_PATH)) <= 24


async def test_a_key_is_not_replaced_by_another_of_the_same_id_while_it_is_valid(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    first = peer.key
    event = make_event(peer.name, first, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    peer.key = SigningKey.generate(b"\5" * 32, "scripted")
    await trio.sleep(60)
    await keyring._fetcher.refresh("peer.test")
    assert server_keys.get(us.db.read, "peer.test")[first.key_id].public_key == first.verify_key
    await trio.sleep(2 * 24 * 3600)
    await keyring._fetcher.refresh("peer.test")
    assert server_keys.get(us.db.read, "peer.test")[first.key_id].public_key == peer.key.verify_key


async def test_other_json_is_checked_with_a_key_in_use(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    old = key_of(4)
    retired = {old.key_id: {"key": old.verify_key_base64, "expired_ts": us.clock.now_ms() - 1}}
    peer.on("GET", KEY_PATH, lambda _: peer.key_document(old_verify_keys=retired))
    value = {"a": 1, "unsigned": {"b": 2}}
    good = sign_json(value, "peer.test", peer.key)
    await keyring.verify_json(good, "peer.test")
    await keyring.verify_json({**good, "unsigned": {}}, "peer.test")
    await keyring.verify_json(sign_json(value, us.name, us.key), us.name)
    for bad in (
        value,
        {**good, "a": 2},
        {**good, "signatures": []},
        {**good, "signatures": {"peer.test": []}},
        sign_json(value, "peer.test", old),
        sign_json(value, "peer.test", key_of(5)),
        sign_json(value, "other.test", peer.key),
    ):
        with pytest.raises(SignatureError):
            await keyring.verify_json(bad, "peer.test")
