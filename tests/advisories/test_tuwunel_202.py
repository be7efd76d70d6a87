# SPDX-License-Identifier: Apache-2.0
"""Tuwunel #202: a transaction was answered only when all of it was dealt with, after minutes; its sender had
given up by then, and came again, thousands of times."""

from __future__ import annotations

from pathlib import Path

import trio

from minihs.matrix.signatures import SigningKey, sign_event
from minihs.testing.hostile import Reply, ScriptedPeer
from tests.advisories.kit import V1, siege


async def test_the_answer_does_not_wait_for_what_is_missing(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for method in ("GET", "POST"):
            at.peer.on(method, f"{V1}/", Reply(delay=1e6))
        orphans = [at.event(prev=["$" + f"{n}".rjust(43, "x")]) for n in range(50)]
        started = trio.current_time()
        status, answer = await at.ask("PUT", f"{V1}/send/slow", {"pdus": orphans})
        assert status == 200
        assert len(answer["pdus"]) == 50
        assert trio.current_time() - started < 1


async def test_the_answer_does_not_wait_long_for_keys(tmp_path: Path) -> None:
    """Fifty events, each signed by a server that takes its time to tell its keys, for ever."""
    async with siege(tmp_path) as at:
        version, pdus = at.forger.version, []
        for number in range(50):
            name = f"silent{number}.test"
            ScriptedPeer(at.world.internet, name, clock=at.world.clock).on("GET", "/", Reply(delay=1e6))
            sender = f"@x:{name}"
            draft = at.draft("m.room.member", {"membership": "join"}, sender, sender=sender)
            pdus.append(
                sign_event(
                    at.seal(draft) | {"signatures": {}}, version, name, SigningKey(bytes(range(32)), "1")
                )
            )
        good = at.event()
        started = trio.current_time()
        status, answer = await at.ask("PUT", f"{V1}/send/keys", {"pdus": [*pdus[:49], good]})
        assert status == 200
        assert trio.current_time() - started < 30
        assert answer["pdus"][at.id_of(good)] == {}
        assert all("error" in answer["pdus"][at.id_of(pdu)] for pdu in pdus[:49])
        # The same again is answered as it was, at once.
        started = trio.current_time()
        assert await at.ask("PUT", f"{V1}/send/keys", {"pdus": [*pdus[:49], good]}) == (status, answer)
        assert trio.current_time() - started < 1
        await at.rest()
