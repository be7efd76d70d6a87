# SPDX-License-Identifier: Apache-2.0
"""X-Matrix headers that are almost right, in real requests."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.advisories.kit import V1
from tests.fuzz.arena import Arena, fuzz
from tests.fuzz.strategies import NAMES, TextEdit, as_latin, text_edits
from tests.fuzz.target import Target, is_error

PIECES = [
    *(
        '"',
        "\\",
        ",",
        "=",
        " ",
        "\t",
        "\r",
        ":",
        "é",
        "\0",
        "\xff",
        "X-Matrix ",
        "x-matrix\t",
        "Bearer x",
        '\\"',
    ),
    *(
        'origin="one.test"',
        "origin=peer.test",
        'destination=""',
        "sig=",
        "key=ed25519:1",
        ',x="y"' * 40,
        "," * 5000,
    ),
    *NAMES,
]


@fuzz(12)
@given(
    lines=st.lists(st.lists(text_edits(PIECES), min_size=1, max_size=3), min_size=2, max_size=3),
    more=st.lists(st.lists(text_edits(PIECES), min_size=1, max_size=2), max_size=2),
    content=st.booleans(),
)
def test_x_matrix_headers(
    arena: Arena, lines: Sequence[Sequence[TextEdit]], more: Sequence[Sequence[TextEdit]], content: bool
) -> None:
    """Each line by itself, and then with `more` beside it."""

    async def attack(target: Target) -> None:
        for line in lines:
            await ask_with(target, [line], content)
            if more:
                await ask_with(target, [line, *more], content)

    arena.run(attack, cases=len(lines) * (2 if more else 1))


async def ask_with(target: Target, edits: Sequence[Sequence[TextEdit]], content: bool) -> None:
    uri = f"{V1}/send/t{next(target.numbers)}" if content else f"{V1}/query/profile?user_id=@alice:one.test"
    method = "PUT" if content else "GET"
    body = b'{"edus":[],"pdus":[]}' if content else b""
    right = target.peer.authorization(method, "one.test", uri, {"edus": [], "pdus": []} if content else None)
    lines = [_changed(right, each) for each in edits]
    head = f"{method} {uri} HTTP/1.1\r\nHost: one.test\r\nContent-Length: {len(body)}\r\n".encode()
    data = head + b"".join(b"Authorization: " + as_latin(line) + b"\r\n" for line in lines) + b"\r\n" + body
    target.sent.append(repr(data))
    visitor = await target.siege.visit()
    await visitor.send(data)
    response = await visitor.response(method)
    await visitor.hang_up()
    assert response.status < 500, f"{response}; sent: {target.shown()}"
    if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in b"".join(map(as_latin, lines))):
        assert response.status == 400, f"{response}; sent: {target.shown()}"
    elif response.status == 200:
        signature = right.partition('sig="')[2].rstrip('"')
        assert any(signature.rstrip("=") in line.replace("\\", "") for line in lines), target.shown()
    else:
        assert is_error(response.json), f"{response}; sent: {target.shown()}"


def _changed(text: str, edits: Sequence[TextEdit]) -> str:
    for each in edits:
        text = each.apply(text)
    return text
