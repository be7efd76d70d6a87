# SPDX-License-Identifier: Apache-2.0
"""What bad input gets, over HTTP: the right status and errcode, nothing stored, the others of a transaction
taken, nothing logged above a warning.

Events that are wrong by themselves go through every path in tests/rooms/test_hostile_paths.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minihs.web.routing import TRANSACTION_BODY_CAP
from tests.advisories.kit import ALICE, MALLORY, V1, V2, JsonObject, Siege, seg, siege
from tests.rooms.forge import inbox_of, rows_of


def everything(at: Siege) -> Any:
    """What may not have changed."""
    return rows_of(at.rooms), inbox_of(at.rooms), at.state()


def invite(at: Siege, version: object) -> tuple[str, JsonObject]:
    room = "!" + "x" * 43
    pdu = at.seal(at.draft("m.room.member", {"membership": "invite"}, ALICE) | {"room_id": room})
    uri = f"{V2}/invite/{seg(room)}/{seg(at.id_of(pdu))}"
    return uri, {"room_version": version, "event": pdu, "invite_room_state": []}


@pytest.mark.parametrize(
    ("what", "status", "errcode"),
    [
        ("51 PDUs", 400, "M_BAD_JSON"),
        ("101 EDUs", 400, "M_BAD_JSON"),
        ("pdus that are no list", 400, "M_BAD_JSON"),
        ("a list for a body", 400, "M_BAD_JSON"),
        ("no JSON", 400, "M_NOT_JSON"),
        ("deep JSON", 400, "M_NOT_JSON"),
        ("another origin in the body", 403, "M_FORBIDDEN"),
        ("signed for somebody else", 401, "M_UNAUTHORIZED"),
        ("not signed", 401, "M_UNAUTHORIZED"),
        ("a key twice", 401, "M_UNAUTHORIZED"),
        ("an invite of an unknown version", 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ("an invite whose version is no string", 400, "M_BAD_JSON"),
        ("an invite without a version", 400, "M_MISSING_PARAM"),
        ("a join by who knows other versions only", 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ("a path that nobody knows", 404, "M_UNRECOGNIZED"),
        ("another method", 405, "M_UNRECOGNIZED"),
    ],
)
async def test_a_request_that_is_wrong_as_a_whole(
    tmp_path: Path, what: str, status: int, errcode: str
) -> None:
    async with siege(tmp_path) as at:
        uri, pdu = f"{V1}/send/1", at.event()
        body: Any = {"origin": "peer.test", "pdus": [pdu]}
        method, options = "PUT", {}
        match what:
            case "51 PDUs":
                body["pdus"] = [at.event() for _ in range(51)]
            case "101 EDUs":
                body["edus"] = [{"edu_type": "m.typing", "content": {}}] * 101
            case "pdus that are no list":
                body["pdus"] = {"0": pdu}
            case "a list for a body":
                body = [body]
            case "no JSON":
                options["body"] = json.dumps(body).encode()[:-1]
            case "deep JSON":
                options["body"] = b"[" * 1_000_000
            case "another origin in the body":
                body["origin"] = "one.test"
            case "signed for somebody else":
                options["headers"] = [("Authorization", at.peer.authorization(method, "x.test", uri, body))]
            case "not signed":
                options["headers"] = []
            case "a key twice":
                options["body"] = json.dumps(body).encode()[:-1] + b', "pdus": []}'
            case "an invite of an unknown version":
                uri, body = invite(at, "99")
            case "an invite whose version is no string":
                uri, body = invite(at, ["12"])
            case "an invite without a version":
                uri, body = invite(at, "12")
                del body["room_version"]
            case "a join by who knows other versions only":
                method, uri, body = "GET", f"{V1}/make_join/{seg(at.room)}/{seg('@x:peer.test')}?ver=1", None
            case "a path that nobody knows":
                uri = f"{V1}/nothing"
            case "another method":
                method = "POST"
        before = everything(at)
        found, answer = await at.ask(method, uri, body, **options)
        assert (found, answer["errcode"]) == (status, errcode), answer
        await at.rest()
        assert everything(at) == before
        assert at.id_of(pdu) not in str(await at.alice.sync())
        await at.unharmed()


async def test_a_body_over_the_cap(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        before, visitor = everything(at), await at.visit()
        right = at.peer.authorization("PUT", "one.test", f"{V1}/send/1", {"pdus": []})
        head = f"PUT {V1}/send/1 HTTP/1.1\r\nHost: one.test\r\nAuthorization: {right}\r\n"
        await visitor.send(f"{head}Content-Length: {TRANSACTION_BODY_CAP + 1}\r\n\r\n".encode())
        response = await visitor.response()
        assert (response.status, response.json["errcode"]) == (413, "M_TOO_LARGE")
        await visitor.hang_up()
        assert everything(at) == before
        await at.unharmed()


@pytest.mark.parametrize(("announced", "sent"), [(5000, 100), (100, 5000)])
async def test_a_length_that_is_a_lie(tmp_path: Path, announced: int, sent: int) -> None:
    async with siege(tmp_path) as at:
        pdu = at.event()
        content = {"origin": "peer.test", "pdus": [pdu]}
        body = json.dumps(content).encode()
        right = at.peer.authorization("PUT", "one.test", f"{V1}/send/1", content)
        before = everything(at)
        visitor = await at.visit()
        head = f"PUT {V1}/send/1 HTTP/1.1\r\nHost: one.test\r\nAuthorization: {right}\r\n"
        length = len(body) + (announced - sent)
        await visitor.send(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        if length > len(body):
            await visitor.hang_up()  # it never gets the rest
        else:
            assert (await visitor.response()).status in (400, 401)
            await visitor.hang_up()
        await at.rest()
        assert everything(at) == before
        await at.unharmed()


@pytest.mark.parametrize("version", ["2", "11", "12"])
async def test_of_a_transaction_the_good_ones_are_taken(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        elsewhere = "!" + "x" * 43 if version == "12" else "!elsewhere:peer.test"
        bad: dict[str, Any] = {
            "a wrong type": at.seal(at.draft() | {"content": []}),
            "a huge number": at.seal(at.draft() | {"depth": 2**63}),
            "another wrong type": at.seal(at.draft() | {"prev_events": "x"}),
            "a foreign sender": at.event(sender=ALICE),
            "without a signature": {**at.event(), "signatures": {}},
            "a foreign signature": {**at.event(), "signatures": {"x.test": {"ed25519:1": "x" * 86}}},
            "of another room": at.seal(at.draft() | {"room_id": elsewhere}),
            "null": None,
            "a number": 5,
            "nothing": {},
        }
        if version != "2":
            bad["a float"] = at.event(content={"body": 1.5})
        good = [at.event() for _ in range(3)]
        body = {"origin": "peer.test", "pdus": [good[0], *bad.values(), *good[1:]]}
        status, answer = await at.ask("PUT", f"{V1}/send/1", body)
        assert status == 200
        await at.rest()
        stored = rows_of(at.rooms)
        for pdu in good:
            assert answer["pdus"][at.id_of(pdu)] == {}
            assert stored[at.id_of(pdu)] == 0
        for name, pdu in bad.items():
            if isinstance(pdu, dict) and pdu:
                assert at.id_of(pdu) not in stored, name
        assert inbox_of(at.rooms) == {}
        assert MALLORY in str(await at.alice.messages(at.room))
        await at.unharmed()
