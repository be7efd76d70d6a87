# SPDX-License-Identifier: Apache-2.0
"""The server ACL guards every endpoint on the specification's list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.together.kit import MALLORY, V1, scene, seg, with_mallory

V2 = "/_matrix/federation/v2"


def protected(room: str, event: str) -> list[tuple[str, str, Any]]:
    r, e, m = seg(room), seg(event), seg(MALLORY)
    empty: dict[str, Any] = {"sender": MALLORY, "state_key": MALLORY, "type": "m.room.member", "content": {}}
    invite = {"room_version": "12", "event": empty, "invite_room_state": []}
    missing = {"earliest_events": [], "latest_events": [event]}
    third_party = {**empty, "content": {"membership": "invite", "third_party_invite": {"signed": {}}}}
    signed = {"mxid": MALLORY, "token": "t", "signatures": {}}
    third_party["content"]["third_party_invite"]["signed"] = signed
    return [
        ("GET", f"{V1}/make_join/{r}/{m}?ver=12", None),
        ("GET", f"{V1}/make_leave/{r}/{m}", None),
        ("GET", f"{V1}/make_knock/{r}/{m}?ver=12", None),
        ("PUT", f"{V1}/send_join/{r}/{e}", empty),
        ("PUT", f"{V2}/send_join/{r}/{e}", empty),
        ("PUT", f"{V1}/send_leave/{r}/{e}", empty),
        ("PUT", f"{V2}/send_leave/{r}/{e}", empty),
        ("PUT", f"{V1}/send_knock/{r}/{e}", empty),
        ("PUT", f"{V1}/invite/{r}/{e}", empty),
        ("PUT", f"{V2}/invite/{r}/{e}", invite),
        ("GET", f"{V1}/state/{r}?event_id={e}", None),
        ("GET", f"{V1}/state_ids/{r}?event_id={e}", None),
        ("GET", f"{V1}/backfill/{r}?v={e}&limit=5", None),
        ("GET", f"{V1}/event_auth/{r}/{e}", None),
        ("POST", f"{V1}/get_missing_events/{r}", missing),
        # Not on the list, and no less worth guarding.
        ("GET", f"{V1}/event/{e}", None),
        ("GET", f"{V1}/timestamp_to_event/{r}?ts=0&dir=f", None),
        ("PUT", f"{V1}/exchange_third_party_invite/{r}", third_party),
        ("GET", f"/_matrix/federation/unstable/rooms/{r}/complexity", None),
    ]


async def test_a_denied_server_gets_nothing_of_the_room(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        event = await at.alice.send(room, "hello")
        for method, uri, body in protected(room, event):
            _, answer = await at.ask(method, uri, body)
            assert "ACL" not in str(answer), uri
        await at.alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["peer.*"]})
        for method, uri, body in protected(room, event):
            status, answer = await at.ask(method, uri, body)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), uri
            assert "ACL" in answer["error"], uri


async def test_pdus_of_a_denied_server_are_answered_with_their_error(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        event_id = await at.alice.send(room, "hello")
        status, answer = await at.ask("GET", f"{V1}/event/{seg(event_id)}")
        (pdu,) = answer["pdus"]
        body = {"origin": "peer.test", "origin_server_ts": 0, "pdus": [pdu]}
        assert await at.ask("PUT", f"{V1}/send/a", body) == (200, {"pdus": {event_id: {}}})
        await at.alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["peer.test"]})
        status, answer = await at.ask("PUT", f"{V1}/send/b", body)
        assert status == 200
        assert "ACL" in answer["pdus"][event_id]["error"]
