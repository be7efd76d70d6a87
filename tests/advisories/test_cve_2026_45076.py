# SPDX-License-Identifier: Apache-2.0
"""CVE-2026-45076: where a page of history held nothing but rejected events, clients were told that history
ends there."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import siege


@pytest.mark.parametrize("version", ["6", "12"])
async def test_history_goes_on_behind_what_was_refused(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        wanted = [await at.alice.send(at.room, f"before {n}") for n in range(3)]
        old, auth = at.forger.tips, at.forger.auth_events("x", "@mallory:peer.test", None, {})
        await at.alice.set_state(at.room, "m.room.topic", {"topic": "x"})
        # Rejected: she may not set the topic. Each follows the other.
        last = at.forger.tips
        for _ in range(4):
            rejected = []
            for number in range(50):
                pdu = at.event("m.room.topic", {"topic": f"mine {number}"}, "", prev=last)
                rejected.append(pdu)
                last = [at.id_of(pdu)]
            await at.send(*rejected)
            assert at.outcome(last[0]) is Outcome.REJECTED
        # Soft-failed: sent as if she were not banned.
        await at.alice.post(f"/rooms/{at.room}/ban", {"user_id": "@mallory:peer.test"})
        for _ in range(3):
            evading = [at.event("m.room.message", {"body": "x"}, prev=old, auth=auth) for _ in range(50)]
            await at.send(*evading)
            assert at.outcome(at.id_of(evading[0])) is Outcome.SOFT_FAILED
        wanted += [await at.alice.send(at.room, f"after {n}") for n in range(3)]

        seen: list[str] = []
        token, pages = None, 0
        while True:
            query = {"dir": "b", "limit": 5, **({"from": token} if token else {})}
            page = await at.alice.get(f"/rooms/{at.room}/messages", **query)
            seen += [event["event_id"] for event in page["chunk"]]
            token, pages = page.get("end"), pages + 1
            if token is None or pages > 50:
                break
        assert [event_id for event_id in reversed(seen) if event_id in wanted] == wanted
        assert page["chunk"][-1]["type"] == "m.room.create"
