# SPDX-License-Identifier: Apache-2.0
"""What each call to another server sends, and what it takes for an answer."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from minihs.federation import client as client_module
from minihs.matrix.federation_errors import RemoteProtocolError, RemoteRefused
from minihs.testing.hostile import KEY_PATH, Received, Reply, ScriptedPeer
from tests.federation.kit import Caller

V1 = "/_matrix/federation/v1"


JOIN = f"{'/_matrix/federation/v2'}/send_join/"


async def test_a_join_is_spooled_and_split(us: Caller, peer: ScriptedPeer) -> None:
    answer = {
        "auth_chain": [{"n": number} for number in range(3)],
        "members_omitted": True,
        "event": {"signed": True},
        "servers_in_room": ["a.test"],
        "state": [{"n": number, "pad": "x" * 1000} for number in range(5000)],
        "unknown": {"deep": [[[1.5]]]},
    }
    peer.on("PUT", JOIN, answer)
    async with us.client.send_join("peer.test", "!r:x", "$e", {"a": 1}, omit_members=True) as join:
        assert len(join.state) == 5000
        assert json.loads(join.state[4999])["n"] == 4999
        assert [json.loads(each)["n"] for each in join.state[:3]] == [0, 1, 2]
        assert [json.loads(each)["n"] for each in join.auth_chain] == [0, 1, 2]
        assert join.event == {"signed": True}
        assert join.members_omitted
        assert join.servers_in_room == ["a.test"]
        assert join.size > 5_000_000
    assert peer.requests[0].uri == JOIN + "%21r%3Ax/%24e?omit_members=true"
    assert peer.requests[0].json == {"a": 1}


STATE = "/_matrix/federation/v1/state/"


async def test_a_state_is_spooled_and_split(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("GET", STATE, {"pdus": [{"n": n} for n in range(5000)], "auth_chain": [{"n": 1}]})
    async with us.client.state_at("peer.test", "!r:x", "$e") as found:
        assert [json.loads(each)["n"] for each in found.state] == list(range(5000))
        assert [json.loads(each) for each in found.auth_chain] == [{"n": 1}]
    assert peer.requests[0].uri == STATE + "%21r%3Ax?event_id=%24e"


@pytest.mark.parametrize("answer", [[], {"pdus": []}, {"pdus": 5, "auth_chain": []}, Reply(body=b"{")])
async def test_a_state_that_is_none_is_refused(us: Caller, peer: ScriptedPeer, answer: Any) -> None:
    peer.on("GET", STATE, answer)
    with pytest.raises(RemoteProtocolError):
        async with us.client.state_at("peer.test", "!r:x", "$e"):
            pass


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"state": []},
        {"state": {}, "auth_chain": []},
        {"state": [], "auth_chain": 5},
        {"state": [], "auth_chain": [], "event": 5},
        {"state": [], "auth_chain": [], "members_omitted": "yes"},
        {"state": [], "auth_chain": [], "servers_in_room": [5]},
        Reply(body=b""),
        Reply(body=b"{"),
        Reply(body=b'{"state": [{"a": 1}, {"a": ], "auth_chain": []}'),
        Reply(body=b'{"auth_chain": [], "state": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}"),
        Reply(body=b'{"auth_chain": [], "state": [], "event": {"a": "\\ud800"}}'),
        Reply(body=b'\xff{"auth_chain": [], "state": []}'),
    ],
    ids=lambda answer: repr(answer)[:50],
)
async def test_a_join_answer_that_is_none_is_refused(us: Caller, peer: ScriptedPeer, answer: Any) -> None:
    peer.on("PUT", JOIN, answer)
    with pytest.raises(RemoteProtocolError):
        async with us.client.send_join("peer.test", "!r:x", "$e", {}):
            pytest.fail("it was accepted")


async def test_a_join_answer_has_a_cap(
    us: Caller, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SPOOL_BYTES", 100_000)
    peer.on("PUT", JOIN, Reply(body=b" " * 10_000, endless=True))
    with pytest.raises(RemoteProtocolError, match="larger than"):
        async with us.client.send_join("peer.test", "!r:x", "$e", {}):
            pytest.fail("it was accepted")
    assert us.internet.link(us.host, peer.host).bytes < 2_000_000


async def test_a_refused_join_is_a_refusal(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("PUT", JOIN, Reply(403, {"errcode": "M_FORBIDDEN"}))
    with pytest.raises(RemoteRefused):
        async with us.client.send_join("peer.test", "!r:x", "$e", {}):
            pytest.fail("it was accepted")


async def test_errors_of_the_one_who_reads_a_join_pass_through(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("PUT", JOIN, {"state": [], "auth_chain": []})
    with pytest.raises(ZeroDivisionError):
        async with us.client.send_join("peer.test", "!r:x", "$e", {}):
            math.floor(1 / 0)


INVITE_V1, INVITE_V2 = "/_matrix/federation/v1/invite/", "/_matrix/federation/v2/invite/"


async def test_an_invite_goes_by_version_2(us: Caller, peer: ScriptedPeer) -> None:
    peer.on("PUT", INVITE_V2, {"event": {"signed": 1}})
    answer = await us.client.invite("peer.test", "!r:x", "$e", "11", {"a": 1}, [{"type": "m.room.create"}])
    assert answer == {"signed": 1}
    assert peer.requests[0].json == {
        "event": {"a": 1},
        "room_version": "11",
        "invite_room_state": [{"type": "m.room.create"}],
    }


@pytest.mark.parametrize("status", [400, 404])
async def test_an_old_server_gets_invites_of_old_rooms_by_version_1(
    us: Caller, peer: ScriptedPeer, status: int
) -> None:
    peer.on("PUT", INVITE_V2, Reply(status, {"errcode": "M_UNRECOGNIZED"}))
    peer.on("PUT", INVITE_V1, [200, {"event": {"signed": 1}}])
    assert await us.client.invite("peer.test", "!r:x", "$e", "1", {"a": 1}, [{"b": 2}]) == {"signed": 1}
    assert peer.requests[1].json == {"a": 1, "unsigned": {"invite_room_state": [{"b": 2}]}}
    with pytest.raises(RemoteRefused):
        await us.client.invite("peer.test", "!r:x", "$e", "11", {"a": 1}, [])
    assert len(peer.received(INVITE_V1)) == 1


@pytest.mark.parametrize("status", [403, 500])
async def test_other_refusals_of_an_invite_are_final(us: Caller, peer: ScriptedPeer, status: int) -> None:
    peer.on("PUT", INVITE_V2, Reply(status))
    with pytest.raises(RemoteRefused):
        await us.client.invite("peer.test", "!r:x", "$e", "1", {}, [])
    assert peer.received(INVITE_V1) == []


CALLS: dict[str, tuple[str, Any, Any]] = {
    "get_missing_events": ("POST", {"events": [{"a": 1}]}, [{"a": 1}]),
    "get_event": ("GET", {"pdus": [{"a": 1}]}, {"a": 1}),
    "get_state_ids": ("GET", {"pdu_ids": ["$a"], "auth_chain_ids": ["$b"]}, (["$a"], ["$b"])),
    "get_state": ("GET", {"pdus": [1], "auth_chain": [2]}, ([1], [2])),
    "get_event_auth": ("GET", {"auth_chain": [{}]}, [{}]),
    "backfill": ("GET", {"pdus": [{}]}, [{}]),
    "timestamp_to_event": ("GET", {"event_id": "$a", "origin_server_ts": 5}, ("$a", 5)),
    "query_directory": ("GET", {"room_id": "!r:x", "servers": ["a.test", 5, "b c"]}, ("!r:x", ["a.test"])),
}
ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "get_missing_events": (("!r:x",), {"earliest": ["$a"], "latest": ["$b"], "limit": 5}),
    "get_event": (("$a",), {}),
    "get_state_ids": (("!r:x", "$a"), {}),
    "get_state": (("!r:x", "$a"), {}),
    "get_event_auth": (("!r:x", "$a"), {}),
    "backfill": (("!r:x", ["$a", "$b"], 10), {}),
    "timestamp_to_event": (("!r:x", 5, "f"), {}),
    "query_directory": (("#a:x",), {}),
}
RUBBISH: list[Any] = [
    {"events": 5, "pdus": {}, "auth_chain": "x", "pdu_ids": [5], "auth_chain_ids": 5, "room_id": 5},
    {"events": None, "pdus": None, "auth_chain": None, "pdu_ids": ["x"], "event_id": 5, "room_id": "r"},
    {"events": {}, "pdus": "", "auth_chain": {}, "pdu_ids": {}, "event_id": "$a", "origin_server_ts": True},
]


@pytest.mark.parametrize("call", CALLS)
async def test_each_call_reads_its_answer_and_refuses_rubbish(
    us: Caller, peer: ScriptedPeer, call: str
) -> None:
    method, answer, expected = CALLS[call]
    positional, named = ARGUMENTS[call]
    peer.on(method, V1, answer)
    assert await getattr(us.client, call)("peer.test", *positional, **named) == expected
    for rubbish in RUBBISH:
        peer.on(method, V1, rubbish)
        with pytest.raises(RemoteProtocolError):
            await getattr(us.client, call)("peer.test", *positional, **named)


async def test_all_other_calls_go_where_the_spec_says(us: Caller, peer: ScriptedPeer) -> None:
    def echo(received: Received) -> dict[str, Any]:
        return {"asked": f"{received.method} {received.uri}"}

    for method in ("GET", "PUT", "POST"):
        peer.on(method, "/", echo)
    client = us.client
    asked = {
        (await client.make_leave("peer.test", "!r:x", "@u:x"))["asked"],
        (await client.make_knock("peer.test", "!r:x", "@u:x", ["7"]))["asked"],
        (await client.send_knock("peer.test", "!r:x", "$e", {}))["asked"],
        (await client.query_profile("peer.test", "@u:x", "displayname"))["asked"],
        (await client.query_profile("peer.test", "@u:x"))["asked"],
        (await client.public_rooms("peer.test", {}))["asked"],
        (await client.hierarchy("peer.test", "!r:x", suggested_only=True))["asked"],
        (await client.query_keys("peer.test", {"@u:x": []}))["asked"],
        (await client.claim_keys("peer.test", {"@u:x": {"D": "signed_curve25519"}}))["asked"],
        (await client.user_devices("peer.test", "@u:x"))["asked"],
        (await client.send_transaction("peer.test", "t/1", b"{}", within=5))["asked"],
    }
    await client.send_leave("peer.test", "!r:x", "$e", {})
    await client.exchange_third_party_invite("peer.test", "!r:x", {})
    assert asked == {
        f"GET {V1}/make_leave/%21r%3Ax/%40u%3Ax",
        f"GET {V1}/make_knock/%21r%3Ax/%40u%3Ax?ver=7",
        f"PUT {V1}/send_knock/%21r%3Ax/%24e",
        f"GET {V1}/query/profile?user_id=%40u%3Ax&field=displayname",
        f"GET {V1}/query/profile?user_id=%40u%3Ax",
        f"POST {V1}/publicRooms",
        f"GET {V1}/hierarchy/%21r%3Ax?suggested_only=true",
        f"POST {V1}/user/keys/query",
        f"POST {V1}/user/keys/claim",
        f"GET {V1}/user/devices/%40u%3Ax",
        f"PUT {V1}/send/t%2F1",
    }
    assert peer.requests[-2].uri == "/_matrix/federation/v2/send_leave/%21r%3Ax/%24e"
    assert peer.requests[-1].uri == f"{V1}/exchange_third_party_invite/%21r%3Ax"
    assert KEY_PATH not in {request.path for request in peer.requests}
