# SPDX-License-Identifier: Apache-2.0
"""Messages to devices: here, to other servers, and from them."""

from __future__ import annotations

from typing import Any

import pytest

from minihs.e2ee.to_device import MAX_EDU_BYTES
from minihs.matrix.canonical import dumps
from minihs.store import to_device

from .kit import Client, TestServer, refused

REMOTE = "@bob:other.example"


def waiting(server: TestServer, client: Client, limit: int = 100) -> list[tuple[int, dict[str, Any]]]:
    return to_device.read(server.db.read, client.user_id, client.device_id, 0, server.pos(), limit)


def contents(server: TestServer, client: Client) -> list[Any]:
    return [event["content"] for _, event in waiting(server, client)]


async def send(client: Client, txn: str, user_id: str, device_id: str, content: Any = None) -> Any:
    body = {"messages": {user_id: {device_id: {"n": 1} if content is None else content}}}
    return await client.put(f"/sendToDevice/m.test/{txn}", body)


class TestLocal:
    async def test_a_message_waits_until_the_device_has_it(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        woken: set[str] = set()
        server.db.on_commit(woken.update)
        assert (await send(alice, "1", bob.user_id, bob.device_id)).json == {}
        ((pos, event),) = waiting(server, bob)
        assert event == {"sender": alice.user_id, "type": "m.test", "content": {"n": 1}}
        assert f"device:{bob.user_id}|{bob.device_id}" in woken
        assert waiting(server, bob) == [(pos, event)]
        await server.db.write(lambda tx: to_device.acknowledge(tx, bob.user_id, bob.device_id, pos - 1))
        assert waiting(server, bob) == [(pos, event)]
        assert not to_device.is_acknowledged(server.db.read, bob.user_id, bob.device_id, pos)
        await server.db.write(lambda tx: to_device.acknowledge(tx, bob.user_id, bob.device_id, pos))
        assert waiting(server, bob) == []
        assert to_device.is_acknowledged(server.db.read, bob.user_id, bob.device_id, pos)

    async def test_the_same_transaction_is_delivered_once(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        for _ in range(3):
            assert (await send(alice, "1", bob.user_id, bob.device_id)).json == {}
        assert len(waiting(server, bob)) == 1

    async def test_transactions_are_per_device_and_endpoint(self, server: TestServer) -> None:
        alice, other, bob = await server.user("alice"), await server.login("alice"), await server.user("bob")
        await send(alice, "1", bob.user_id, bob.device_id)
        await send(other, "1", bob.user_id, bob.device_id)
        body = {"messages": {bob.user_id: {bob.device_id: {}}}}
        await alice.put("/sendToDevice/m.other/1", body)
        assert len(waiting(server, bob)) == 3

    async def test_a_star_means_all_devices(self, server: TestServer) -> None:
        alice, one = await server.user("alice"), await server.user("bob")
        two = await server.login("bob")
        await send(alice, "1", one.user_id, "*")
        assert [len(waiting(server, client)) for client in (alice, one, two)] == [0, 1, 1]

    async def test_unknown_users_and_devices_get_nothing(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        assert (await send(alice, "1", bob.user_id, "NOTHING")).status == 200
        assert (await send(alice, "2", "@nobody:example.org", "*")).status == 200
        assert server.rows("SELECT * FROM to_device") == []

    async def test_they_come_in_the_order_of_sending_and_a_hundred_at_a_time(
        self, server: TestServer
    ) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        for i in range(5):
            await send(alice, str(i), bob.user_id, bob.device_id, {"i": i})
        first = waiting(server, bob, limit=3)
        rest = to_device.read(server.db.read, bob.user_id, bob.device_id, first[-1][0], server.pos())
        assert [event["content"]["i"] for _, event in first + rest] == [0, 1, 2, 3, 4]

    async def test_logging_out_drops_what_waits(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await send(alice, "1", bob.user_id, bob.device_id)
        await bob.post("/logout", {})
        assert server.rows("SELECT * FROM to_device") == []

    async def test_a_device_that_nobody_reads_fills_up_and_no_further(
        self, server: TestServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(to_device, "MAX_WAITING", 3)
        alice, bob = await server.user("alice"), await server.user("bob")
        for i in range(5):
            await send(alice, str(i), bob.user_id, bob.device_id, {"i": i})
        assert contents(server, bob) == [{"i": 0}, {"i": 1}, {"i": 2}]

    @pytest.mark.parametrize(
        ("path", "body", "status", "errcode"),
        [
            ("m.test/1", {}, 400, "M_MISSING_PARAM"),
            ("m.test/1", {"messages": []}, 400, "M_BAD_JSON"),
            ("m.test/1", {"messages": {"rubbish": {}}}, 400, "M_INVALID_PARAM"),
            ("m.test/1", {"messages": {"@a:example.org": []}}, 400, "M_BAD_JSON"),
            ("m.test/1", {"messages": {"@a:example.org": {"X": "y"}}}, 400, "M_BAD_JSON"),
            ("m.test/1", {"messages": {"@a:example.org": {"X": {"y": "z" * 70_000}}}}, 413, "M_TOO_LARGE"),
            ("m.test/" + "x" * 300, {"messages": {}}, 400, "M_INVALID_PARAM"),
            ("x" * 300 + "/1", {"messages": {}}, 400, "M_INVALID_PARAM"),
            ("m.test/%00", {"messages": {}}, 400, "M_INVALID_PARAM"),
            ("m.test/1", b"x", 400, "M_NOT_JSON"),
        ],
    )
    async def test_bad_requests_are_refused(
        self, server: TestServer, path: str, body: Any, status: int, errcode: str
    ) -> None:
        alice = await server.user("alice")
        assert refused(await alice.put(f"/sendToDevice/{path}", body), status, errcode)

    async def test_a_refused_transaction_may_be_sent_again(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await send(alice, "1", alice.user_id, alice.device_id, "not an object")
        await send(alice, "1", alice.user_id, alice.device_id)
        assert len(waiting(server, alice)) == 1


class TestRemote:
    async def test_messages_for_others_wait_for_their_servers(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = {"messages": {REMOTE: {"*": {"n": 1}}, "@c:third.example": {"DEV": {"n": 2}}}}
        for _ in range(2):
            assert (await alice.put("/sendToDevice/m.test/1", body)).json == {}
        edus = server.edus("m.direct_to_device")
        assert [(host, edu["messages"]) for host, edu in edus] == [
            ("other.example", {REMOTE: {"*": {"n": 1}}}),
            ("third.example", {"@c:third.example": {"DEV": {"n": 2}}}),
        ]
        assert all((edu["sender"], edu["type"]) == (alice.user_id, "m.test") for _, edu in edus)
        ids = [edu["message_id"] for _, edu in edus]
        assert len(set(ids)) == 2
        assert all(len(message_id) <= 32 for message_id in ids)

    async def test_large_sets_of_messages_are_split(self, server: TestServer) -> None:
        alice = await server.user("alice")
        messages = {f"@u{i}:other.example": {"DEV": {"x": "y" * 20_000}} for i in range(7)}
        await alice.put("/sendToDevice/m.test/1", {"messages": messages})
        parts = [edu for _, edu in server.edus("m.direct_to_device")]
        assert len(parts) == 3
        assert all(len(dumps(part)) < MAX_EDU_BYTES + 1024 for part in parts)
        assert {user for part in parts for user in part["messages"]} == messages.keys()

    async def test_a_message_from_another_server_is_delivered_once(self, server: TestServer) -> None:
        alice = await server.user("alice")
        content = {
            "sender": REMOTE,
            "type": "m.test",
            "message_id": "abc",
            "messages": {
                alice.user_id: {alice.device_id: {"n": 1}, "NOTHING": {}, "BAD": 7},
                "@x:third.example": {"*": {}},
                "rubbish": {"*": {}},
                "@y:example.org": 7,
            },
        }
        receive = server.e2ee.edu_handlers["m.direct_to_device"]
        for _ in range(2):
            await receive("other.example", content)
        assert [event for _, event in waiting(server, alice)] == [
            {"sender": REMOTE, "type": "m.test", "content": {"n": 1}}
        ]
        await receive("other.example", {**content, "message_id": "abd"})
        assert len(waiting(server, alice)) == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"sender": "@bob:third.example"},
            {"sender": "@alice:example.org"},
            {"sender": 7},
            {"type": 7},
            {"type": "x" * 300},
            {"message_id": None},
            {"message_id": "x" * 300},
            {"messages": []},
        ],
    )
    async def test_malformed_or_forged_messages_are_dropped(
        self, server: TestServer, change: dict[str, Any]
    ) -> None:
        alice = await server.user("alice")
        content = {
            "sender": REMOTE,
            "type": "m.test",
            "message_id": "abc",
            "messages": {alice.user_id: {"*": {}}},
        }
        await server.e2ee.edu_handlers["m.direct_to_device"]("other.example", {**content, **change})
        assert waiting(server, alice) == []
