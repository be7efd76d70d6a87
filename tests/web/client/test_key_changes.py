# SPDX-License-Identifier: Apache-2.0
"""Who changed their devices or keys, as clients and other servers are told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from minihs.store import device_lists

from .keys_kit import device_keys
from .kit import Client, TestServer

REMOTE = "@bob:other.example"


class TestDeviceLists:
    async def test_changes_reach_who_shares_a_room(self, server: TestServer) -> None:
        alice, bob, carol = [await server.user(name) for name in ("alice", "bob", "carol")]
        await server.share_a_room(alice.user_id, bob.user_id, REMOTE)
        start = server.pos()
        woken: set[str] = set()
        server.db.on_commit(woken.update)

        def changed(client: Client) -> list[str]:
            return device_lists.changed_among_contacts(server.db.read, client.user_id, start, server.pos())

        await alice.post("/keys/upload", {"device_keys": device_keys(alice)})
        assert [changed(client) for client in (alice, bob, carol)] == [[alice.user_id], [alice.user_id], []]
        assert {f"user:{alice.user_id}", f"user:{bob.user_id}"} <= woken
        assert f"user:{carol.user_id}" not in woken

    async def test_the_same_keys_again_are_no_change(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await alice.post("/keys/upload", {"device_keys": device_keys(alice)})
        start = server.pos()
        await alice.post("/keys/upload", {"device_keys": device_keys(alice)})
        assert device_lists.changed_among_contacts(server.db.read, alice.user_id, start, server.pos()) == []

    async def test_other_servers_get_an_update_for_each_change_in_a_chain(self, server: TestServer) -> None:
        alice = await server.user("alice", device_id="ONE")
        await server.share_a_room(alice.user_id, REMOTE)
        keys = device_keys(alice)
        await alice.post("/keys/upload", {"device_keys": keys})
        await alice.put("/devices/ONE", {"display_name": "Phone"})
        two = await server.login("alice", device_id="TWO")
        await two.post("/logout", {})
        updates = server.edus("m.device_list_update")
        assert [host for host, _ in updates] == ["other.example"] * 4
        contents = [content for _, content in updates]
        assert contents[0]["keys"] == keys
        assert "device_display_name" not in contents[0]
        assert contents[1]["device_display_name"] == "Phone"
        assert contents[2]["device_id"] == contents[3]["device_id"] == "TWO"
        assert contents[3]["deleted"] is True
        assert "keys" not in contents[3]
        for before, after in itertools.pairwise(contents):
            assert after["prev_id"] == [before["stream_id"]]
            assert after["stream_id"] > before["stream_id"]

    async def test_the_federation_answer_has_the_newest_stream_id(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await server.share_a_room(alice.user_id, REMOTE)
        keys = device_keys(alice)
        await alice.post("/keys/upload", {"device_keys": keys})
        (_, update) = server.edus("m.device_list_update")[-1]
        assert server.e2ee.keys.devices_of(alice.user_id) == {
            "user_id": alice.user_id,
            "stream_id": update["stream_id"],
            "devices": [{"device_id": alice.device_id, "keys": keys}],
        }

    async def test_updates_of_remote_users_are_told_to_who_meets_them(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await server.share_a_room(alice.user_id, REMOTE)
        handler = server.e2ee.edu_handlers["m.device_list_update"]
        start = server.pos()
        for origin, user_id in [
            ("evil.example", REMOTE),
            ("other.example", "@stranger:other.example"),
            ("other.example", 7),
        ]:
            await handler(origin, {"user_id": user_id})
        assert device_lists.changed_among_contacts(server.db.read, alice.user_id, start, server.pos()) == []
        await handler("other.example", {"user_id": REMOTE})
        changed = device_lists.changed_among_contacts(server.db.read, alice.user_id, start, server.pos())
        assert changed == [REMOTE]
        assert server.rows("SELECT user_id FROM device_list_changes WHERE user_id LIKE '%other%'") == [
            (REMOTE,)
        ]


class TestChanges:
    @staticmethod
    async def since(client: Client, pos: int) -> Any:
        return (await client.get(f"/keys/changes?from=s{pos}_0&to=s{pos + 1000}_0")).json

    async def test_users_with_new_keys_and_new_members_are_named(self, server: TestServer) -> None:
        alice, bob, carol = [await server.user(name) for name in ("alice", "bob", "carol")]
        await server.share_a_room(alice.user_id, bob.user_id)
        start = server.pos()
        assert await self.since(alice, start) == {"changed": [], "left": []}
        await bob.post("/keys/upload", {"device_keys": device_keys(bob)})
        await carol.post("/keys/upload", {"device_keys": device_keys(carol)})
        assert await self.since(alice, start) == {"changed": [bob.user_id], "left": []}
        await server.share_a_room(carol.user_id)
        assert await self.since(alice, start) == {"changed": [bob.user_id, carol.user_id], "left": []}
        assert await self.since(alice, server.pos()) == {"changed": [], "left": []}

    async def test_members_of_a_room_just_joined_are_new(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await server.share_a_room(bob.user_id)
        start = server.pos()
        await server.share_a_room(alice.user_id)
        assert await self.since(alice, start) == {"changed": [bob.user_id], "left": []}

    async def test_who_left_the_last_shared_room_is_named(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        for room_id in ("!one:example.org", "!two:example.org"):
            await server.share_a_room(alice.user_id, bob.user_id, room_id=room_id)
        start = server.pos()

        def leave(room_id: str) -> Any:
            return lambda tx: (
                tx.execute(
                    "UPDATE memberships SET membership = 'leave', pos = ? WHERE user_id = ? "
                    "AND room_nid = (SELECT room_nid FROM rooms WHERE room_id = ?)",
                    (tx.next_pos(), bob.user_id, room_id),
                ).rowcount
            )

        await server.db.write(leave("!one:example.org"))
        assert await self.since(alice, start) == {"changed": [], "left": []}
        await server.db.write(leave("!two:example.org"))
        assert await self.since(alice, start) == {"changed": [], "left": [bob.user_id]}
        assert await self.since(bob, start) == {"changed": [], "left": [alice.user_id]}

    @pytest.mark.parametrize("query", ["", "?from=x&to=y", "?from=s1&to=s2", "?to=s1_0"])
    async def test_malformed_tokens_are_refused(self, server: TestServer, query: str) -> None:
        alice = await server.user("alice")
        assert (await alice.get(f"/keys/changes{query}")).status == 400
