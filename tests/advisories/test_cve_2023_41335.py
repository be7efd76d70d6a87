# SPDX-License-Identifier: Apache-2.0
"""CVE-2023-41335: a new password was kept in the clear while its user proved who they were; CVE-2023-32682:
a user who had been deactivated could log in by another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minihs.testing.servers import PASSWORD
from tests.advisories.kit import siege

NEW = "a-new-and-secret-password-of-alice"


def on_disk(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_no_password_is_on_the_disk(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        status, answer = await at.alice.ask("POST", "/account/password", {"new_password": NEW})
        assert status == 401
        assert on_disk(tmp_path, NEW) == []
        auth: Any = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": at.alice.user_id},
            "password": PASSWORD,
            "session": answer["session"],
        }
        status, answer = await at.alice.ask("POST", "/account/password", {"new_password": NEW, "auth": auth})
        assert status == 200, answer
        for text in (NEW, PASSWORD, at.alice.token):
            assert on_disk(tmp_path, text) == []
        assert NEW not in str(at.logs)


async def test_who_is_deactivated_gets_in_by_no_way(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        bob = await at.world["one.test"].user("bob")
        refresh = await bob.post(
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "bob"},
                "password": PASSWORD,
                "refresh_token": True,
            },
        )
        auth: Any = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": PASSWORD,
        }
        status, answer = await bob.ask("POST", "/account/deactivate", {"auth": auth})
        if status == 401:
            auth["session"] = answer["session"]
            status, answer = await bob.ask("POST", "/account/deactivate", {"auth": auth})
        assert status == 200, answer
        assert (await bob.ask("GET", "/account/whoami"))[0] == 401
        stranger = at.world["one.test"].client()
        for path, body in (
            ("/login", {k: v for k, v in auth.items() if k != "session"}),
            ("/login", {"type": "m.login.token", "token": "x"}),
            ("/refresh", {"refresh_token": refresh.get("refresh_token", "x")}),
            ("/register", {"username": "bob", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}),
        ):
            status, answer = await stranger.ask("POST", path, body)
            assert status in (400, 401, 403), (path, answer)
