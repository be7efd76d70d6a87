# SPDX-License-Identifier: Apache-2.0
"""Keys of other servers: which are believed, for what, for how long, and how they are got."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from minihs.federation.key_document import MAX_VALIDITY_MS, BadKeyDocument, parse
from minihs.federation.keyring import Keyring
from minihs.federation.own_keys import OwnKeys, read_old_keys
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event, build_event
from minihs.matrix.federation_errors import KeyUnavailable
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SignatureError, SigningKey, sign_event, sign_json, verify_json
from minihs.store import server_keys
from minihs.testing.hostile import KEY_PATH, Received, Reply, ScriptedPeer
from tests.federation.kit import Caller

DAY = 24 * 3600 * 1000
QUERY = "/_matrix/key/v2/query"


def keyring_of(us: Caller, *notaries: str) -> Keyring:
    return Keyring(OwnKeys(us.name, us.key, us.runtime.clock), us.db, us.runtime, us.client, notaries)


def key_of(number: int) -> SigningKey:
    return SigningKey.generate(bytes([number]) * 32, f"k{number}")


def make_event(
    server: str, key: SigningKey, ts: int, version: str = "11", content: JsonObject | None = None
) -> Event:
    return build_event(
        version=ROOM_VERSIONS[version],
        room_id="!" + "r" * 43 if version == "12" else "!room:" + server,
        type="m.room.message",
        sender="@user:" + server,
        content=content or {"body": "x"},
        depth=5,
        prev_events=["$" + "a" * 43] if version != "1" else ["$a:" + server],
        auth_events=[],
        origin_server_ts=ts,
        server_name=server,
        key=key,
        prev_hashes={"$a:" + server: "A" * 43},
        random_id="abc",
    )


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


# -- key documents --


def broken_documents(peer: ScriptedPeer) -> dict[str, Any]:
    good = peer.key_document()
    other = key_of(9)
    signed_by_other = sign_json({**good, "signatures": {}}, peer.name, other)
    return {
        "not an object": [good],
        "another server's": sign_json(
            {**good, "server_name": "x.test", "signatures": {}}, "x.test", peer.key
        ),
        "no name": {key: value for key, value in good.items() if key != "server_name"},
        "not signed": {**good, "signatures": {}},
        "signatures of another kind": {**good, "signatures": [1]},
        "changed after signing": {**good, "valid_until_ts": good["valid_until_ts"] + 1},
        "signed with a key that is not in it": signed_by_other,
        "signed with an old key only": peer_with_old_key_only(peer),
        "a time that is a truth value": peer.key_document(valid_until_ts=True),
        "a time that is text": peer.key_document(valid_until_ts="1"),
        "a time that is a float": peer.key_document(valid_until_ts=1.5),
        "a time beyond all": peer.key_document(valid_until_ts=2**63),
        "a negative time": peer.key_document(valid_until_ts=-1),
        "no keys": peer.key_document(verify_keys={}),
        "keys of another kind": peer.key_document(verify_keys=[]),
        "old keys of another kind": peer.key_document(old_verify_keys=[]),
        "keys that are no keys": peer.key_document(verify_keys={peer.key.key_id: {"key": "AAAA"}}),
        "keys that are text": peer.key_document(verify_keys={peer.key.key_id: peer.key.verify_key_base64}),
        "keys not in base64": peer.key_document(verify_keys={peer.key.key_id: {"key": "!" * 43}}),
        "keys that are numbers": peer.key_document(verify_keys={peer.key.key_id: {"key": 5}}),
    }


def peer_with_old_key_only(peer: ScriptedPeer) -> JsonObject:
    fresh = key_of(8)
    return peer.key_document(
        verify_keys={fresh.key_id: {"key": fresh.verify_key_base64}},
        old_verify_keys={peer.key.key_id: {"key": peer.key.verify_key_base64, "expired_ts": 1}},
    )


async def test_broken_key_documents_are_refused(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    assert set(parse(peer.key_document(), "peer.test").keys) == {peer.key.key_id}
    for document in broken_documents(peer).values():
        with pytest.raises(BadKeyDocument):
            parse(document, "peer.test")


async def test_what_else_is_in_a_document_does_no_harm(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    good = {peer.key.key_id: {"key": peer.key.verify_key_base64}}
    document = peer.key_document(
        verify_keys={**good, "rsa:1": {"key": "x"}, "ed25519:bad": {"key": "x"}, "ed25519:": None},
        old_verify_keys={
            "ed25519:a": {"key": peer.key.verify_key_base64, "expired_ts": 5},
            "ed25519:b": {"key": peer.key.verify_key_base64},
            "ed25519:c": {"key": peer.key.verify_key_base64, "expired_ts": True},
            "ed25519:d": 7,
        },
        new_field={"float": 1.5},
    )
    assert set(parse(document, "peer.test").keys) == {peer.key.key_id, "ed25519:a"}


# -- notaries --


def notary_answer(notary: ScriptedPeer, *documents: JsonObject) -> JsonObject:
    return {"server_keys": [sign_json(document, notary.name, notary.key) for document in documents]}


async def test_the_keys_of_a_server_that_is_gone_come_from_a_notary(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    gone = ScriptedPeer(us.internet, "gone.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    notary.on("POST", QUERY, notary_answer(notary, gone.key_document()))
    gone.host.down()
    event = make_event("gone.test", gone.key, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    [asked] = notary.received(QUERY)
    assert asked.json == {
        "server_keys": {"gone.test": {gone.key.key_id: {"minimum_valid_until_ts": event.origin_server_ts}}}
    }


async def test_a_notary_is_not_asked_when_the_server_answers(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    event = make_event("peer.test", peer.key, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    assert notary.requests == []


async def test_all_that_is_missing_is_asked_of_the_notary_at_once(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    gone = [ScriptedPeer(us.internet, f"gone{number}.test", clock=us.clock) for number in range(20)]
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    notary.on("POST", QUERY, notary_answer(notary, *(peer.key_document() for peer in gone)))
    events = [make_event(peer.name, peer.key, us.clock.now_ms()) for peer in gone]
    for peer in gone:
        peer.host.down()
    assert await keyring.verify_events(events) == [None] * 20
    assert len(notary.received(QUERY)) == 1


async def poisoned(us: Caller, notary: ScriptedPeer, answer: Any) -> Any:
    """What a gone server's event is found to be, when the notary says this."""
    gone = ScriptedPeer(us.internet, "gone.test", clock=us.clock)
    gone.host.down()
    notary.on("POST", QUERY, answer)
    [verdict] = await keyring_of(us, "notary.test").verify_events(
        [make_event("gone.test", gone.key, us.clock.now_ms())]
    )
    return verdict


def poisons(gone: ScriptedPeer, notary: ScriptedPeer) -> dict[str, Any]:
    document = gone.key_document()
    stranger = key_of(7)
    unsigned = {**document, "signatures": {}}
    return {
        "not signed by the server": notary_answer(notary, unsigned),
        "signed for the server by the notary": {
            "server_keys": [sign_json(sign_json(unsigned, "gone.test", notary.key), notary.name, notary.key)]
        },
        "not signed by the notary": {"server_keys": [document]},
        "signed by somebody as the notary": {"server_keys": [sign_json(document, notary.name, stranger)]},
        "changed on the way": notary_answer(notary, {**document, "valid_until_ts": 2**50}),
        "under another name": notary_answer(notary, {**document, "server_name": "other.test"}),
        "not what was asked for": notary_answer(notary, notary.key_document()),
        "no list": {"server_keys": {}},
        "a list of nonsense": {"server_keys": [None, 5, "x", [], {}, {"server_name": 5}]},
        "not JSON": Reply(body=b"<html>"),
        "an error": Reply(500),
    }


@pytest.mark.parametrize(
    "poison",
    [
        "not signed by the server",
        "signed for the server by the notary",
        "not signed by the notary",
        "signed by somebody as the notary",
        "changed on the way",
        "under another name",
        "not what was asked for",
        "no list",
        "a list of nonsense",
        "not JSON",
        "an error",
    ],
)
async def test_a_notary_cannot_poison(us: Caller, poison: str) -> None:
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    gone = ScriptedPeer(us.internet, "gone.test", clock=us.clock)
    table = poisons(gone, notary)
    assert isinstance(await poisoned(us, notary, table[poison]), KeyUnavailable)
    assert server_keys.get(us.db.read, "gone.test") == {}


async def test_a_notary_does_not_override_what_the_server_itself_said(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    honest = peer.key
    event = make_event("peer.test", honest, us.clock.now_ms())
    assert await keyring.verify_events([event]) == [None]
    before = server_keys.get(us.db.read, "peer.test")
    # The thief of a domain shows the notary another key under the same id, and one that retires the old.
    thief = SigningKey.generate(b"\6" * 32, "scripted")
    peer.key = thief
    forged = peer.key_document(
        old_verify_keys={"ed25519:new": {"key": thief.verify_key_base64, "expired_ts": 1}}
    )
    notary.on("POST", QUERY, notary_answer(notary, forged))
    peer.host.down()
    unknown = make_event("peer.test", key_of(3), us.clock.now_ms())
    await keyring.verify_events([unknown])
    assert len(notary.received(QUERY)) == 1
    after = server_keys.get(us.db.read, "peer.test")
    assert after[honest.key_id] == before[honest.key_id]


async def test_what_a_notary_said_is_corrected_by_the_server_itself(us: Caller) -> None:
    keyring = keyring_of(us, "notary.test")
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    notary = ScriptedPeer(us.internet, "notary.test", clock=us.clock)
    honest = peer.key
    peer.key = SigningKey.generate(b"\6" * 32, "scripted")
    notary.on("POST", QUERY, notary_answer(notary, peer.key_document()))
    peer.host.down()
    await keyring.verify_events([make_event("peer.test", peer.key, us.clock.now_ms())])
    peer.host.up()
    peer.key = honest
    await trio.sleep(3600)
    await keyring._fetcher.refresh("peer.test")
    stored = server_keys.get(us.db.read, "peer.test")[honest.key_id]
    assert stored.public_key == honest.verify_key
    assert stored.direct


# -- serving --


async def test_our_own_document_is_one_that_we_would_believe(us: Caller) -> None:
    document = keyring_of(us).own_document()
    parsed = parse(document, us.name)
    assert parsed.keys[us.key.key_id].public_key == us.key.verify_key
    assert 3600_000 < parsed.valid_until_ts - us.clock.now_ms() <= MAX_VALIDITY_MS


async def test_retired_keys_stay_in_our_document_and_on_our_events(us: Caller, tmp_path: Any) -> None:
    old = key_of(4)
    path = tmp_path / "old"
    path.write_text(f"# retired\n{old.key_id} {old.verify_key_base64} 1600000000000 # in 2020\n")
    own = OwnKeys(us.name, us.key, us.runtime.clock, read_old_keys(path))
    keyring = Keyring(own, us.db, us.runtime, us.client)
    assert keyring.own_document()["old_verify_keys"] == {
        old.key_id: {"key": old.verify_key_base64, "expired_ts": 1600000000000}
    }
    before = make_event(us.name, old, 1600000000000)
    after = make_event(us.name, old, 1600000000001)
    verdicts = await keyring.verify_events([before, after])
    assert verdicts[0] is None
    assert isinstance(verdicts[1], SignatureError)


@pytest.mark.parametrize(
    "line", ["x", "ed25519:a b", "ed25519:a !!! 5", "ed25519:a AAAA five", "rsa:a AAAA 5"]
)
def test_a_broken_file_of_retired_keys_is_an_error(tmp_path: Any, line: str) -> None:
    (tmp_path / "old").write_text(line)
    with pytest.raises(ValueError):
        read_old_keys(tmp_path / "old")
    assert read_old_keys(tmp_path / "none") == {}


async def test_as_a_notary_we_sign_what_the_server_signed(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    [document] = await keyring.query_keys({"peer.test": {}})
    verify_json(document, "peer.test", peer.key.key_id, peer.key.verify_key)
    verify_json(document, us.name, us.key.key_id, us.key.verify_key)
    # For half of its life the document is not fetched again.
    await trio.sleep(11 * 3600)
    await keyring.query_keys({"peer.test": {"": 0}, "us.test": {}})
    assert len(peer.received(KEY_PATH)) == 1
    await trio.sleep(2 * 3600)
    await keyring.query_keys({"peer.test": {}})
    assert len(peer.received(KEY_PATH)) == 2


async def test_as_a_notary_we_answer_for_servers_that_are_gone(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    never = ScriptedPeer(us.internet, "never.test", clock=us.clock)
    never.host.down()
    await keyring.query_keys({"peer.test": {}})
    peer.host.down()
    await trio.sleep(30 * 24 * 3600)
    answer = await keyring.query_keys({"peer.test": {peer.key.key_id: 0}, "never.test": {}, "us.test": {}})
    assert [document["server_name"] for document in answer] == ["peer.test", "us.test"]


async def test_a_demand_for_longer_validity_makes_us_ask_again(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    await keyring.query_keys({"peer.test": {peer.key.key_id: 0}})
    await trio.sleep(60)
    await keyring.query_keys({"peer.test": {peer.key.key_id: us.clock.now_ms()}})
    assert len(peer.received(KEY_PATH)) == 1
    await keyring.query_keys({"peer.test": {peer.key.key_id: us.clock.now_ms() + DAY - 30_000}})
    assert len(peer.received(KEY_PATH)) == 2


async def test_we_sign_no_document_that_does_not_hold(us: Caller) -> None:
    keyring = keyring_of(us)
    peer = ScriptedPeer(us.internet, "peer.test", clock=us.clock)
    for number, (what, document) in enumerate(broken_documents(peer).items()):
        peer.on("GET", KEY_PATH, lambda _, document=document: Reply(json=document))
        await trio.sleep(2 * 3600)
        assert await keyring.query_keys({"peer.test": {}}) == [], what
        assert len(peer.received(KEY_PATH)) == number + 1


async def test_a_query_for_many_servers_is_answered_in_time(us: Caller) -> None:
    keyring = keyring_of(us)

    def never(_: Received) -> Reply:
        return Reply(delay=10_000)

    peers = [ScriptedPeer(us.internet, f"p{number}.test", clock=us.clock) for number in range(40)]
    for peer in peers:
        peer.on("GET", KEY_PATH, never)
    start = trio.current_time()
    answer = await keyring.query_keys({peer.name: {} for peer in peers} | {"us.test": {}})
    assert len(answer) == 1
    assert trio.current_time() - start <= 16
