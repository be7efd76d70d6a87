# SPDX-License-Identifier: Apache-2.0
"""What rooms learn about accounts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minihs.matrix.errors import MatrixError
from minihs.store import account_data, profiles, users
from minihs.store.database import Database, Tx
from minihs.testing.clock import virtual_runtime
from minihs.users.local import LocalUsers

ALICE = "@alice:example.org"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(
        tmp_path / "minihs.db", virtual_runtime(), inline=True, synchronous="OFF"
    ) as database:
        await database.write(lambda tx: users.add(tx, ALICE, None, admin=False, now=0))
        yield database


async def test_accounts_exist_until_they_are_deactivated(db: Database) -> None:
    local = LocalUsers(db)
    assert local.exists(ALICE)
    assert not local.exists("@nobody:example.org")
    await db.write(lambda tx: users.deactivate(tx, ALICE))
    assert not local.exists(ALICE)


async def test_a_member_event_has_what_is_set_of_name_and_picture(db: Database) -> None:
    def write(tx: Tx) -> None:
        profiles.set_field(tx, ALICE, "displayname", '"Alice"')
        profiles.set_field(tx, ALICE, "m.tz", '"UTC"')

    local = LocalUsers(db)
    assert local.member_profile(ALICE) == {}
    await db.write(write)
    assert local.member_profile(ALICE) == {"displayname": "Alice"}


@pytest.mark.parametrize(
    ("content", "blocked"),
    [
        ({"default_action": "block"}, True),
        ({"default_action": "allow"}, False),
        ({"default_action": 1}, False),
        ({}, False),
    ],
)
async def test_invites_are_blocked_only_by_the_right_word(
    db: Database, content: dict[str, object], blocked: bool
) -> None:
    local = LocalUsers(db)
    local.check_may_invite("@bob:other.example", ALICE)
    text = json.dumps(content)
    await db.write(lambda tx: account_data.put(tx, ALICE, "m.invite_permission_config", text))
    if not blocked:
        local.check_may_invite("@bob:other.example", ALICE)
        return
    with pytest.raises(MatrixError) as refused:
        local.check_may_invite("@bob:other.example", ALICE)
    assert (refused.value.status, refused.value.errcode) == (403, "M_INVITE_BLOCKED")
