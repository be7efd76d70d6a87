# SPDX-License-Identifier: Apache-2.0
"""Requests between servers, signed for somebody else, replayed, or read in two ways (weaknesses of several,
without a number)."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.matrix import canonical
from tests.advisories.kit import V1, Siege, siege
from tests.rooms.forge import inbox_of, rows_of

URI = f"{V1}/send/1"


def header(at: Siege, **changes: str) -> str:
    """A right one for a transaction without anything in it, but for what is changed after signing."""
    text = at.peer.authorization("PUT", "one.test", URI, {"pdus": []})
    for name, value in changes.items():
        start = text.index(f'{name}="') + len(name) + 2
        text = text[:start] + value + text[text.index('"', start) :]
    return text


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "other.test"},
        {"origin": "one.test"},
        {"origin": ""},
        {"origin": "peer.test:8448"},
        {"destination": "other.test"},
        {"destination": ""},
        {"key": "ed25519:unknown"},
        {"key": "rsa:1"},
        {"sig": "x" * 86},
        {"sig": ""},
    ],
    ids=str,
)
async def test_a_header_that_is_wrong_in_one_place(tmp_path: Path, change: dict[str, str]) -> None:
    async with siege(tmp_path) as at:
        headers = [("Authorization", header(at, **change))]
        status, answer = await at.ask("PUT", URI, {"pdus": []}, headers=headers)
        assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED")
        assert await at.ask("PUT", URI, {"pdus": []}) == (200, {"pdus": {}})


async def test_what_was_signed_for_one_request_is_good_for_no_other(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        pdu = at.event()
        body = {"origin": "peer.test", "pdus": [pdu]}
        right = at.peer.authorization("PUT", "one.test", URI, body)
        elsewhere = at.peer.authorization("PUT", "two.test", URI, body)
        attempts = {
            "for another server": (URI, body, elsewhere),
            "for another path": (f"{V1}/send/2", body, right),
            "with a query": (f"{URI}?x=y", body, right),
            "another spelling of the path": (f"{V1}/send/%31", body, right),
            "another body": (URI, {**body, "pdus": []}, right),
            "more in the body": (URI, {**body, "x": 1}, right),
        }
        before = rows_of(at.rooms)
        for name, (uri, content, authorization) in attempts.items():
            status, answer = await at.ask("PUT", uri, content, headers=[("Authorization", authorization)])
            assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED"), name
        raw = canonical.encode(body)
        for name, spoiled in {
            "a key twice": raw[:-1] + b',"pdus":[]}',
            "two values": raw + b"{}",
            "nothing": b"",
        }.items():
            status, answer = await at.ask("PUT", URI, headers=[("Authorization", right)], body=spoiled)
            assert status in (400, 401), name
        assert rows_of(at.rooms) == before
        assert inbox_of(at.rooms) == {}
        assert (await at.ask("PUT", URI, body))[0] == 200


@pytest.mark.parametrize(
    "text",
    [
        "", "X-Matrix", "X-Matrix ,", 'X-Matrix origin="peer.test"', "Bearer x", "X-Matrix " + "a=b," * 2000,
        'X-Matrix origin="peer.test",origin="one.test",destination="one.test",key="ed25519:1",sig="x"',
        'X-Matrix origin="peer.test', 'X-Matrix origin=peer.test key=ed25519:1 sig=x', "X-Matrix \\",
        "X-Matrix =",
    ],
)  # fmt: skip
async def test_headers_that_are_none(tmp_path: Path, text: str) -> None:
    async with siege(tmp_path) as at:
        status, answer = await at.ask("PUT", URI, {"pdus": []}, headers=[("Authorization", text)])
        assert (status, answer["errcode"]) in ((401, "M_UNAUTHORIZED"), (401, "M_MISSING_TOKEN"))
        await at.unharmed()
