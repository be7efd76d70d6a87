# SPDX-License-Identifier: Apache-2.0
"""Backups of room keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from .kit import Client, TestServer, refused

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
NEW = {"algorithm": ALGORITHM, "auth_data": {"public_key": "abc", "signatures": {}}}
ROOM, SESSION = "!r:example.org", "a/session+id"
AT = f"/room_keys/keys/{quote(ROOM, safe='')}/{quote(SESSION, safe='')}"


def key(first: int = 5, forwarded: int = 5, verified: bool = False, data: str = "x") -> dict[str, Any]:
    return {
        "first_message_index": first,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": data},
    }


async def with_backup(server: TestServer, name: str = "alice") -> tuple[Client, str]:
    client = await server.user(name)
    version: str = (await client.post("/room_keys/version", NEW)).json["version"]
    return client, version


class TestVersions:
    async def test_without_a_backup_it_is_not_found(self, server: TestServer) -> None:
        alice = await server.user("alice")
        assert refused(await alice.get("/room_keys/version"), 404, "M_NOT_FOUND")
        assert refused(await alice.put(f"{AT}?version=1", key()), 404, "M_NOT_FOUND")

    async def test_the_newest_is_current_and_others_are_read_by_number(self, server: TestServer) -> None:
        alice, first = await with_backup(server)
        second = (await alice.post("/room_keys/version", NEW)).json["version"]
        assert second != first
        expected = {**NEW, "count": 0, "etag": "0", "version": second}
        assert (await alice.get("/room_keys/version")).json == expected
        assert (await alice.get(f"/room_keys/version/{first}")).json == {**expected, "version": first}

    async def test_only_auth_data_can_be_changed(self, server: TestServer) -> None:
        alice, version = await with_backup(server)
        path = f"/room_keys/version/{version}"
        changed = {**NEW, "auth_data": {"public_key": "def"}}
        assert (await alice.put(path, {**changed, "version": version})).json == {}
        assert (await alice.get(path)).json["auth_data"] == {"public_key": "def"}
        assert refused(await alice.put(path, {**NEW, "algorithm": "other"}), 400, "M_INVALID_PARAM")
        assert refused(await alice.put(path, {**NEW, "version": "99"}), 400, "M_INVALID_PARAM")
        assert refused(await alice.put("/room_keys/version/99", NEW), 404, "M_NOT_FOUND")

    async def test_a_deleted_version_is_gone_and_its_number_not_given_again(self, server: TestServer) -> None:
        alice, version = await with_backup(server)
        await alice.put(f"{AT}?version={version}", key())
        for _ in range(2):
            assert (await alice.delete(f"/room_keys/version/{version}")).json == {}
        assert refused(await alice.get("/room_keys/version"), 404, "M_NOT_FOUND")
        assert refused(await alice.get(f"/room_keys/version/{version}"), 404, "M_NOT_FOUND")
        assert refused(await alice.get(f"/room_keys/keys?version={version}"), 404, "M_NOT_FOUND")
        assert server.rows("SELECT * FROM backed_up_keys") == []
        assert (await alice.post("/room_keys/version", NEW)).json["version"] != version
        assert refused(await alice.delete("/room_keys/version/99"), 404, "M_NOT_FOUND")

    @pytest.mark.parametrize("version", ["x", "-1", "1.0", "%C2%B9", "9" * 30])
    async def test_what_is_no_version_is_not_found(self, server: TestServer, version: str) -> None:
        alice, _ = await with_backup(server)
        assert refused(await alice.get(f"/room_keys/version/{version}"), 404, "M_NOT_FOUND")

    async def test_backups_of_others_are_out_of_reach(self, server: TestServer) -> None:
        _, version = await with_backup(server)
        bob = await server.user("bob")
        assert refused(await bob.get(f"/room_keys/version/{version}"), 404, "M_NOT_FOUND")
        assert refused(await bob.get(f"/room_keys/keys?version={version}"), 404, "M_NOT_FOUND")

    @pytest.mark.parametrize("change", [{"algorithm": None}, {"algorithm": 1}, {"auth_data": []},
    {"auth_data": None},
                                        {"auth_data": {"x": "y" * 70_000}}])  # fmt: skip
    async def test_malformed_versions_are_refused(self, server: TestServer, change: dict[str, Any]) -> None:
        alice = await server.user("alice")
        assert (await alice.post("/room_keys/version", {**NEW, **change})).status in (400, 413)


class TestKeys:
    async def test_one_key_is_stored_read_and_deleted(self, server: TestServer) -> None:
        alice, version = await with_backup(server)
        stored = (await alice.put(f"{AT}?version={version}", key())).json
        assert stored == {"count": 1, "etag": "1"}
        assert (await alice.get(f"{AT}?version={version}")).json == key()
        assert (await alice.get("/room_keys/version")).json["count"] == 1
        assert (await alice.delete(f"{AT}?version={version}")).json == {"count": 0, "etag": "2"}
        assert refused(await alice.get(f"{AT}?version={version}"), 404, "M_NOT_FOUND")
        assert (await alice.delete(f"{AT}?version={version}")).json == {"count": 0, "etag": "2"}

    async def test_many_keys_at_once_by_room_and_in_all(self, server: TestServer) -> None:
        alice, version = await with_backup(server)
        all_keys = {"rooms": {f"!r{i}:example.org": {"sessions": {"s": key(i)}} for i in range(3)}}
        answer = await alice.put(f"/room_keys/keys?version={version}", all_keys)
        assert answer.json == {"count": 3, "etag": "1"}
        assert (await alice.get(f"/room_keys/keys?version={version}")).json == all_keys
        one = f"/room_keys/keys/{quote('!r1:example.org', safe='')}?version={version}"
        assert (await alice.get(one)).json == {"sessions": {"s": key(1)}}
        more = {"sessions": {"s": key(1), "t": key(2)}}
        assert (await alice.put(one, more)).json == {"count": 4, "etag": "2"}
        assert (await alice.delete(one)).json == {"count": 2, "etag": "3"}
        assert (await alice.get(one)).json == {"sessions": {}}
        assert (await alice.delete(f"/room_keys/keys?version={version}")).json == {"count": 0, "etag": "4"}
        assert (await alice.get(f"/room_keys/keys?version={version}")).json == {"rooms": {}}

    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            (key(9, 9, verified=True), key(1, 1)),
            (key(1, 9), key(2, 1)),
            (key(1, 1), key(1, 2)),
            (key(1, 1, data="first"), key(1, 1, data="second")),
        ],
    )
    async def test_the_better_key_stays(
        self, server: TestServer, better: dict[str, Any], worse: dict[str, Any]
    ) -> None:
        alice, version = await with_backup(server)
        path = f"{AT}?version={version}"
        first = (await alice.put(path, better)).json
        assert (await alice.put(path, worse)).json == first
        assert (await alice.get(path)).json == better
        if better["session_data"] == worse["session_data"]:
            await alice.delete(path)
            await alice.put(path, worse)
            await alice.put(path, better)
            assert (await alice.get(path)).json == better

    async def test_writing_to_an_old_version_is_refused_with_the_current_one(
        self, server: TestServer
    ) -> None:
        alice, old = await with_backup(server)
        await alice.put(f"{AT}?version={old}", key())
        new = (await alice.post("/room_keys/version", NEW)).json["version"]
        for version in (old, "99", "x"):
            answer = await alice.put(f"{AT}?version={version}", key())
            assert refused(answer, 403, "M_WRONG_ROOM_KEYS_VERSION")
            assert answer.json["current_version"] == new
        assert (await alice.get(f"{AT}?version={old}")).json == key()

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    async def test_the_version_must_be_named(self, server: TestServer, method: str) -> None:
        alice, _ = await with_backup(server)
        assert refused(await alice.ask(method, AT, key()), 400, "M_MISSING_PARAM")

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (AT, {**key(), "first_message_index": "1"}),
            (AT, {**key(), "first_message_index": True}),
            (AT, {**key(), "forwarded_count": None}),
            (AT, {**key(), "is_verified": 1}),
            (AT, {**key(), "session_data": "x"}),
            (AT, {**key(), "session_data": {"x": "y" * 70_000}}),
            (AT, []),
            ("/room_keys/keys", {}),
            ("/room_keys/keys", {"rooms": {"rubbish": {"sessions": {}}}}),
            ("/room_keys/keys", {"rooms": {ROOM: []}}),
            ("/room_keys/keys", {"rooms": {ROOM: {}}}),
            ("/room_keys/keys", {"rooms": {ROOM: {"sessions": {"s": 1}}}}),
            ("/room_keys/keys", {"rooms": {ROOM: {"sessions": {"": key()}}}}),
            (f"/room_keys/keys/{quote(ROOM)}", {"sessions": []}),
        ],
    )
    async def test_malformed_keys_are_refused(self, server: TestServer, path: str, body: Any) -> None:
        alice, version = await with_backup(server)
        assert (await alice.put(f"{path}?version={version}", body)).status in (400, 413)
        assert server.rows("SELECT * FROM backed_up_keys") == []
