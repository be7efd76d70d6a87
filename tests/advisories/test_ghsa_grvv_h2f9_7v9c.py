# SPDX-License-Identifier: Apache-2.0
"""GHSA-grvv-h2f9-7v9c (Dendrite 0.9.3): power levels that were not plain integers were read wrongly, and who
had none got power."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, MALLORY, siege

ODD: list[Any] = [
    "100",
    " 100 ",
    "1e2",
    "0x64",
    100.0,
    100.5,
    1e300,
    True,
    None,
    [100],
    {"": 100},
    2**53,
    -(2**63),
]


@pytest.mark.parametrize("version", ["1", "6", "9", "10", "12"])
async def test_odd_levels_give_nobody_power(tmp_path: Path, version: str) -> None:
    """Mallory may change levels up to 50, and tries to write herself more in odd letters."""
    users = {MALLORY: 50} if version == "12" else {MALLORY: 50, ALICE: 100}
    override = {"users": users, "events": {"m.room.power_levels": 50, "m.room.server_acl": 80}}
    async with siege(tmp_path, version=version, room={"power_level_content_override": override}) as at:
        levels = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels/")
        for value in ODD:
            for content in (
                {**levels, "users": {**levels["users"], MALLORY: value}},
                {**levels, "users_default": value},
                {**levels, "ban": value},
                {**levels, "events": {**levels["events"], "m.room.server_acl": value}},
            ):
                pdu = at.event("m.room.power_levels", content, "")
                await at.send(pdu)
                acl = at.event("m.room.server_acl", {"allow": ["peer.test"]}, "")
                await at.send(acl)
                assert at.outcome(at.id_of(acl)) in (None, Outcome.REJECTED, Outcome.SOFT_FAILED), content
                assert ("m.room.server_acl", "") not in at.state(), content
                if at.outcome(at.id_of(pdu)) is Outcome.ACCEPTED:
                    # Odd, but no more than she had: put it right again.
                    await at.alice.set_state(at.room, "m.room.power_levels", levels)
        await at.unharmed()
