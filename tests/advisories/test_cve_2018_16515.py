# SPDX-License-Identifier: Apache-2.0
"""CVE-2018-16515 (Synapse 0.33.3.1): events whose signatures nobody had checked, and a server ACL that did
not hold for what came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.signatures import SigningKey, sign_event
from minihs.web.route_modules import ROUTE_MODULES
from tests.advisories.kit import ALICE, MALLORY, V1, V2, JsonObject, Siege, seg, siege
from tests.rooms.forge import inbox_of

GUEST = "@guest:peer.test"

TAKE_EVENTS = {
    "/_matrix/federation/v1/send/{txn_id}",
    "/_matrix/federation/v1/send_join/{room_id}/{event_id}",
    "/_matrix/federation/v2/send_join/{room_id}/{event_id}",
    "/_matrix/federation/v1/send_leave/{room_id}/{event_id}",
    "/_matrix/federation/v2/send_leave/{room_id}/{event_id}",
    "/_matrix/federation/v1/send_knock/{room_id}/{event_id}",
    "/_matrix/federation/v1/invite/{room_id}/{event_id}",
    "/_matrix/federation/v2/invite/{room_id}/{event_id}",
}
TAKE_NONE = {
    "/_matrix/federation/v1/get_missing_events/{room_id}",
    "/_matrix/federation/v1/publicRooms",
    "/_matrix/federation/v1/user/keys/claim",
    "/_matrix/federation/unstable/user/keys/claim",
    "/_matrix/federation/v1/user/keys/query",
    "/_matrix/federation/v1/3pid/onbind",
    "/_matrix/key/v2/query",
    # What it takes is no event yet: we make one of it, and it passes our own rules.
    "/_matrix/federation/v1/exchange_third_party_invite/{room_id}",
}


def test_every_way_in_is_on_one_of_the_lists() -> None:
    """A new route that takes events has to be put through the test below."""
    served = {
        path.removesuffix("/")
        for module in ROUTE_MODULES
        for route in module.routes.all
        if route.api == "federation" and route.method in ("PUT", "POST")
        for path in route.paths
    }
    assert served == TAKE_EVENTS | TAKE_NONE


def unsigned(at: Siege, pdu: JsonObject) -> JsonObject:
    return {**pdu, "signatures": {}}


def by_another_key(at: Siege, pdu: JsonObject) -> JsonObject:
    bare = {**pdu, "signatures": {}}
    return sign_event(bare, at.forger.version, "peer.test", SigningKey(b"?" * 32, at.peer.key.key_id[8:]))


def changed_after_signing(at: Siege, pdu: JsonObject) -> JsonObject:
    return {**pdu, "origin_server_ts": pdu["origin_server_ts"] + 1}


def in_anothers_name(at: Siege, pdu: JsonObject) -> JsonObject:
    signed = at.seal({**pdu, "sender": ALICE, "state_key": ALICE})
    return {**signed, "signatures": {"peer.test": signed["signatures"]["peer.test"]}}


FORGERIES = [unsigned, by_another_key, changed_after_signing, in_anothers_name]


def way_in(at: Siege, path: str, pdu: JsonObject) -> tuple[str, Any]:
    uri = path.format(txn_id="x", room_id=seg(at.room), event_id=seg(at.id_of(pdu)))
    if path == "/_matrix/federation/v2/invite/{room_id}/{event_id}":
        return uri, {"room_version": at.forger.version.version, "event": pdu, "invite_room_state": []}
    return uri, pdu


@pytest.mark.parametrize("path", sorted(TAKE_EVENTS - {"/_matrix/federation/v1/send/{txn_id}"}))
async def test_what_is_handed_in_must_be_signed(tmp_path: Path, path: str) -> None:
    verb = path.split("/")[4]
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    version = "10" if "/v1/invite" not in path else "2"
    async with siege(tmp_path, version=version) as at:
        if verb == "send_knock":
            await at.alice.set_state(at.room, rule["type"], rule["content"])
        for forge in FORGERIES:
            if verb == "invite":
                good = at.event("m.room.member", {"membership": "invite"}, "@alice:one.test")
            else:
                membership = verb.removeprefix("send_")
                user = MALLORY if membership == "leave" else GUEST
                good = at.member({"membership": membership}, user)
            pdu = forge(at, good)
            uri, body = way_in(at, path, pdu)
            before = at.state()
            status, answer = await at.ask("PUT", uri, body)
            assert (status, answer["errcode"]) in ((403, "M_FORBIDDEN"), (400, "M_INVALID_PARAM")), forge
            await at.rest()
            assert at.outcome(at.id_of(pdu)) is None
            assert at.state() == before
        await at.unharmed()


@pytest.mark.parametrize("version", ["2", "12"])
async def test_what_is_sent_must_be_signed(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        for forge in FORGERIES:
            pdu = forge(at, at.member({"membership": "join", "displayname": "x"}))
            good = at.event()
            answer = await at.send(pdu, good)
            assert "error" in answer[at.id_of(pdu)]
            assert answer[at.id_of(good)] == {}
            assert at.outcome(at.id_of(pdu)) is None
        await at.unharmed()


@pytest.mark.parametrize("version", ["2", "12"])
async def test_what_is_asked_for_must_be_signed(tmp_path: Path, version: str) -> None:
    """The missing parent of a good event, as get_missing_events, backfill and event give it."""
    async with siege(tmp_path, version=version) as at:
        for forge in FORGERIES:
            parent = forge(at, at.member({"membership": "join", "displayname": "x"}))
            parent_id = at.id_of(parent)
            at.answer_gaps(get_missing_events={"events": [parent]}, backfill={"pdus": [parent]})
            at.serve_events({parent_id: parent})
            child = at.event(prev=[parent_id])
            await at.send(child)
            assert at.outcome(parent_id) is None, forge
            # Nothing is wrong with the child: without its parent it can't be judged yet.
            assert at.outcome(at.id_of(child)) is None, forge
            assert at.id_of(child) in inbox_of(at.rooms), forge
        assert at.peer.received(f"{V1}/get_missing_events/")
        await at.unharmed()


async def test_the_acl_counts_for_what_comes_in(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        await at.alice.set_state(at.room, "m.room.server_acl", {"allow": ["*"], "deny": ["peer.test"]})
        pdu = at.event()
        assert "ACL" in (await at.send(pdu))[at.id_of(pdu)]["error"]
        leave = at.member({"membership": "leave"})
        status, answer = await at.ask("PUT", f"{V2}/send_leave/{seg(at.room)}/{seg(at.id_of(leave))}", leave)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert at.outcome(at.id_of(pdu)) is None
        assert at.outcome(at.id_of(leave)) is None
