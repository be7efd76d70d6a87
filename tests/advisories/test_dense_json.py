# SPDX-License-Identifier: Apache-2.0
"""JSON of millions of tiny values, which takes thirty times its size in memory (a weakness of many, without a
number). Whoever may send a large body, signed or not, could have ended a small machine's server."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from minihs.federation import spool
from minihs.matrix import canonical
from minihs.matrix.canonical import BYTES_PER_VALUE, MAX_VALUES, BadJson
from tests.advisories.kit import cpu_budget, siege

DENSE = {
    "lists": b'{"pdus":[' + b"[]," * 4_000_000 + b"[]]}",
    "objects": b'{"pdus":[' + b"{}," * 4_000_000 + b"{}]}",
    "numbers": b'{"pdus":[' + b"1," * 6_000_000 + b"1]}",
    "nested": b'{"pdus":[' + b"[[[[]]]]," * 1_300_000 + b"[]]}",
    "keys": b'{"edus":[' + b'{"":0},' * 1_800_000 + b"{}]}",
}


def peak() -> int:
    """KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", DENSE)
async def test_a_dense_request_is_refused_before_it_is_parsed(tmp_path: Path, name: str) -> None:
    async with siege(tmp_path) as at:
        await at.unharmed()
        visitor = await at.visit()
        uri = "/_matrix/federation/v1/send/1"
        headers = {"Authorization": at.peer.authorization("PUT", "one.test", uri, {"pdus": []})}
        before = peak()
        with cpu_budget(5):
            response = await visitor.request("PUT", uri, headers=headers, body=DENSE[name])
        assert (response.status, response.json["errcode"]) == (400, "M_NOT_JSON")
        assert peak() - before < 200 * 1024
        await visitor.hang_up()
        await at.unharmed()


def test_the_bound_is_exact_and_events_are_far_from_it() -> None:
    size = 3_000_000
    most = MAX_VALUES + size // BYTES_PER_VALUE
    for more in (0, 1):
        commas = most - 1 + more  # and one bracket
        text = b"[" + b"1," * commas + b"1]"
        text += b" " * (size - len(text))
        assert len(text) == size
        if more:
            with pytest.raises(BadJson):
                canonical.loads(text)
        else:
            assert len(canonical.loads(text)) == commas + 1
    assert canonical.loads(b"[" + b"[]," * 200_000 + b"[]]")


async def test_a_transaction_of_the_fullest_legal_kind_is_taken(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        pdus = [at.event(content={"body": "a, [b] {c}, " * 5_000}) for _ in range(50)]
        answer = await at.send(*pdus)
        assert answer == {at.id_of(pdu): {} for pdu in pdus}


def test_strings_do_not_count_and_cost_no_time() -> None:
    with cpu_budget(5):
        assert not canonical.has_more(b'["' + b",[{" * 1_000_000 + b'", 1]', 2)
        assert not canonical.has_more(b'["' + b'\\"' * 3_000_000, 1)  # never closed
        assert canonical.has_more(b'["\\\\",1,2]', 2)


def test_a_dense_answer_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FREE_COMMAS", 10)
    for items, taken in ((5, True), (400, False)):
        file = spool.Spool(tmp_path)
        file.write(b'{"pdus":[' + b"1," * items + b'1],"auth_chain":[]}')
        if taken:
            assert len(file.parse_state().state) == items + 1
        else:
            with pytest.raises(spool.BadAnswer, match="too many values"):
                file.parse_state()
        file.close()
    monkeypatch.setattr(spool, "MAX_COMMAS", 3)
    assert spool.BYTES_PER_COMMA == 24
    file = spool.Spool(tmp_path)
    file.write(b'{"pdus":[1,2,3,4],"auth_chain":[]}')
    with pytest.raises(spool.BadAnswer):
        file.parse_state()
    file.close()
