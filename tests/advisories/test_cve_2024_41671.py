# SPDX-License-Identifier: Apache-2.0
"""CVE-2024-41671, CVE-2020-10108 and -10109 (Twisted): answers to requests sent in a row came out of order,
and requests were smuggled in others' bodies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.advisories.kit import siege

WHOAMI = (
    b"GET /_matrix/client/v3/account/whoami HTTP/1.1\r\nHost: one.test\r\nAuthorization: Bearer %b\r\n\r\n"
)
VERSIONS = b"GET /_matrix/client/versions HTTP/1.1\r\nHost: one.test\r\n\r\n"


async def test_everybody_gets_their_own_answers_in_order(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        bob = await at.world["one.test"].user("bob")
        visitor = await at.visit()
        order = [at.alice, bob, None, bob, at.alice] * 3
        packet = b"".join(VERSIONS if who is None else WHOAMI % who.token.encode() for who in order)
        await visitor.send(packet)
        for who in order:
            response = await visitor.response()
            assert response.status == 200
            if who is not None:
                assert json.loads(response.body)["user_id"] == who.user_id
        await visitor.hang_up()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 50\r\n",
        b"Content-Length: 5, 50\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
    ],
    ids=str,
)
async def test_no_request_hides_in_another(tmp_path: Path, head: bytes) -> None:
    async with siege(tmp_path) as at:
        visitor = await at.visit()
        hidden = WHOAMI % at.alice.token.encode()
        body = b"5\r\n{...}\r\n0\r\n\r\n" + hidden
        await visitor.send(
            b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: one.test\r\n" + head + b"\r\n" + body
        )
        answered = await visitor.everything()
        assert answered.startswith(b"HTTP/1.1 ")
        assert int(answered[9:12]) in (400, 411, 501)
        assert at.alice.user_id.encode() not in answered
        await visitor.hang_up()
        await at.unharmed()
