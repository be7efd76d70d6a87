# SPDX-License-Identifier: Apache-2.0
"""CVE-2023-45129: a server ACL made for it slowed a server down for as long as it was in the room."""

from __future__ import annotations

from pathlib import Path

from minihs.matrix.acl import ServerAcl
from tests.advisories.kit import MALLORY, cpu_budget, siege

BAD_GLOBS = [f"*{'a*' * 12}b{number}" for number in range(1100)] + [f"{'?' * 60}{n}*z" for n in range(150)]


def test_ten_thousand_entries_and_ten_thousand_servers() -> None:
    acl = ServerAcl(
        allow=["*"],
        deny=[
            *(f"server{n}.test" for n in range(5000)),
            *(f"*.zone{n}.test" for n in range(4000)),
            *BAD_GLOBS,
        ],
        allow_ip_literals=True,
    )
    with cpu_budget(20):
        for number in range(10_000):
            acl.allows(f"{'a' * 40}{number % 1000}.test")
        assert not acl.allows("server77.test")
        assert not acl.allows("x.zone77.test")
        assert acl.allows("good.test")


async def test_pdus_and_edus_under_a_hostile_list(tmp_path: Path) -> None:
    levels = {"users": {MALLORY: 100}}
    async with siege(tmp_path, room={"power_level_content_override": levels}) as at:
        acl = at.event("m.room.server_acl", {"allow": ["*"], "deny": BAD_GLOBS}, "")
        await at.send(acl)
        assert at.state()["m.room.server_acl", ""] == at.id_of(acl)
        pdus = [at.event() for _ in range(200)]
        edu = {"edu_type": "m.typing", "content": {"room_id": at.room, "user_id": MALLORY, "typing": True}}
        with cpu_budget(10):
            for start in range(0, 200, 50):
                await at.send(*pdus[start : start + 50], edus=[edu] * 100)
        await at.unharmed()


async def test_a_list_that_changes_all_the_time(tmp_path: Path) -> None:
    levels = {"users": {MALLORY: 100}}
    async with siege(tmp_path, room={"power_level_content_override": levels}) as at:
        with cpu_budget(15):
            for number in range(20):
                content = {"allow": ["*"], "deny": [*BAD_GLOBS, str(number)]}
                await at.send(at.event("m.room.server_acl", content, ""), at.event())
        await at.unharmed()


async def test_a_list_that_is_too_large_is_no_event(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        content = {"allow": ["*"], "deny": ["x" * 60 for _ in range(1100)]}
        status, answer = await at.alice.ask("PUT", f"/rooms/{at.room}/state/m.room.server_acl/", content)
        assert (status, answer["errcode"]) == (413, "M_TOO_LARGE")
        await at.unharmed()
