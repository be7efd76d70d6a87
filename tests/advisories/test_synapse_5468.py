# SPDX-License-Identifier: Apache-2.0
"""Synapse #5468, MSC4163, Ruma and tuwunel 814cbc2f3: server ACLs that did not hold for ports, capital
letters, IP addresses, lists that are missing, and EDUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.acl import ServerAcl
from tests.advisories.kit import MALLORY, siege

CASES: list[tuple[dict[str, Any], str, bool]] = [
    ({"allow": ["*"], "deny": ["evil.com"]}, "evil.com:8448", False),
    ({"allow": ["*"], "deny": ["evil.com"]}, "EVIL.com", False),
    ({"allow": ["*"], "deny": ["EVIL.COM"]}, "evil.com", False),
    ({"allow": ["*"], "deny": ["*.evil.com"]}, "a.b.evil.com:1", False),
    ({"allow": ["*"], "deny": ["*.evil.com"]}, "evil.com", True),
    ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4", False),
    ({"allow": ["*"], "allow_ip_literals": False}, "[::1]:8448", False),
    ({"allow": ["*"], "allow_ip_literals": "false"}, "1.2.3.4", True),
    ({"allow": ["*"]}, "1.2.3.4:8448", True),
    ({}, "good.com", False),
    ({"allow": []}, "good.com", False),
    ({"allow": None}, "good.com", False),
    ({"allow": "*"}, "good.com", False),
    ({"allow": ["*", 5, None]}, "good.com", True),
    ({"deny": ["x"]}, "good.com", False),
    ({"allow": ["g??d.com"]}, "good.com", True),
    ({"allow": ["good.com"], "deny": ["*"]}, "good.com", False),
    ({"allow": ["*"], "deny": [["evil.com"]]}, "evil.com", True),
]


@pytest.mark.parametrize(("content", "server", "allowed"), CASES)
def test_who_is_allowed(content: dict[str, Any], server: str, allowed: bool) -> None:
    assert ServerAcl.from_content(content).allows(server) is allowed


async def test_edus_of_a_denied_server_are_dropped(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        event = await at.alice.send(at.room, "read me")
        typing = {"room_id": at.room, "user_id": MALLORY, "typing": True}
        receipt = {at.room: {"m.read": {MALLORY: {"data": {"ts": 1}, "event_ids": [event]}}}}

        async def told() -> str:
            at.alice.since = None
            await at.tell("m.typing", typing)
            await at.tell("m.receipt", receipt)
            return str((await at.alice.sync())["rooms"]["join"][at.room]["ephemeral"])

        await at.alice.set_state(at.room, "m.room.server_acl", {"allow": ["*"], "deny": ["PEER.test"]})
        assert MALLORY not in await told()
        await at.alice.set_state(at.room, "m.room.server_acl", {"allow": ["*"], "deny": []})
        assert MALLORY in await told()
