# SPDX-License-Identifier: Apache-2.0
"""Device lists between servers: told of on every change, kept while a room is shared, never stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from minihs.federation.client import FederationClient
from minihs.matrix.signatures import SigningKey
from minihs.store import remote_devices
from minihs.testing.api import ApiClient
from minihs.testing.hostile import Received, Reply
from minihs.testing.servers import Cluster, TestServer, cluster, eventually
from tests.together.kit import MALLORY, V1, Scene, scene, tell, with_mallory

UPDATE = "m.device_list_update"


def keys_of(client: ApiClient, name: str = "key") -> Any:
    key_id = f"ed25519:{client.device_id}"
    return {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": ["m.megolm.v1.aes-sha2"],
        "keys": {key_id: name},
        "signatures": {client.user_id: {key_id: "signature"}},
    }


async def upload(client: ApiClient, name: str = "key") -> None:
    await client.post("/keys/upload", {"device_keys": keys_of(client, name)})


async def query(client: ApiClient, user_id: str) -> dict[str, str]:
    """Device id → its key, as the client's server tells it."""
    answer = await client.post("/keys/query", {"device_keys": {user_id: []}})
    assert answer["failures"] == {}
    devices = answer["device_keys"].get(user_id, {})
    return {name: next(iter(device["keys"].values())) for name, device in devices.items()}


def kept(server: TestServer, user_id: str) -> remote_devices.UserKeys | None:
    return remote_devices.get(server.server.services.db.read, user_id)


def count_kept(server: TestServer) -> int:
    """Lists on disk, those included that are worth nothing any more."""
    count: int = server.server.services.db.read.execute(
        "SELECT COUNT(*) FROM remote_device_lists"
    ).fetchone()[0]
    return count


def count_questions(server: TestServer) -> list[str]:
    """The questions about keys that the server asks others from now on."""
    asked: list[str] = []
    federation = server.server.services.federation

    def counted(name: str) -> None:
        honest = getattr(federation, name)

        async def ask(*args: Any) -> Any:
            asked.append(name)
            return await honest(*args)

        setattr(federation, name, ask)

    assert isinstance(federation, FederationClient)
    counted("query_keys")
    counted("user_devices")
    return asked


async def two(world: Cluster) -> tuple[ApiClient, ApiClient, str]:
    alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
    await upload(alice)
    room = await alice.create_room(preset="public_chat")
    await bob.join(room, "one.test")
    return alice, bob, room


async def test_keys_of_who_shares_a_room_are_asked_for_once(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        await trio.sleep(5)
        asked = count_questions(world["two.test"])
        for _ in range(3):
            assert await query(bob, alice.user_id) == {alice.device_id: "key"}
        assert len(asked) <= 1


async def test_a_change_reaches_the_kept_list_without_a_question(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        await query(bob, alice.user_id)
        await upload(alice, "newer")  # its stream position is not known yet: fetched once
        await trio.sleep(60)
        assert kept(world["two.test"], alice.user_id) is not None
        asked = count_questions(world["two.test"])
        await upload(alice, "newest")
        await trio.sleep(60)
        assert await query(bob, alice.user_id) == {alice.device_id: "newest"}
        assert asked == []


async def test_a_new_device_and_one_that_is_gone_are_told_to_clients(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        await bob.sync()
        second = world["one.test"].client()
        answer = await second.post(
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "alice"},
                "password": "correct horse battery staple",
            },
        )
        second.user_id, second.device_id, second.token = (
            answer["user_id"],
            answer["device_id"],
            answer["access_token"],
        )
        await upload(second, "second")
        await trio.sleep(10)
        assert alice.user_id in (await bob.sync())["device_lists"]["changed"]
        assert await query(bob, alice.user_id) == {alice.device_id: "key", second.device_id: "second"}
        await second.post("/logout")
        await trio.sleep(10)
        assert alice.user_id in (await bob.sync())["device_lists"]["changed"]
        assert await query(bob, alice.user_id) == {alice.device_id: "key"}


async def test_a_server_that_newly_shares_a_room_is_told_to_ask(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, first_room = await two(world)
        rows = world["one.test"].server.services.db.read.execute
        assert rows("SELECT COUNT(*) FROM sqlite_sequence WHERE name = 'outbound_edus'").fetchone() == (1,)
        sent = rows("SELECT seq FROM sqlite_sequence WHERE name = 'outbound_edus'").fetchone()[0]
        assert sent >= 1
        # A second room with the same server is no news to it.
        second = await alice.create_room(preset="public_chat")
        await bob.join(second, "one.test")
        await trio.sleep(5)
        again = rows("SELECT seq FROM sqlite_sequence WHERE name = 'outbound_edus'").fetchone()[0]
        assert again == sent
        # After a time without a shared room it is.
        for room in (first_room, second):
            await bob.leave(room)
        await trio.sleep(5)
        await upload(alice, "while apart")
        await bob.join(first_room, "one.test")
        await trio.sleep(60)
        assert rows("SELECT seq FROM sqlite_sequence WHERE name = 'outbound_edus'").fetchone()[0] > sent
        assert await query(bob, alice.user_id) == {alice.device_id: "while apart"}


async def test_the_servers_in_a_room_are_told_of_the_devices_of_who_comes(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        at.peer.on("PUT", f"{V1}/send/", {"pdus": {}})
        anna = await at.world["one.test"].user("anna")
        await upload(anna)
        for _ in range(2):  # a second room with the same server is no news to it
            await anna.join(await with_mallory(at))
            await trio.sleep(60)
        edus = [edu for request in at.peer.received(f"{V1}/send/") for edu in request.json.get("edus", [])]
        updates = [edu["content"] for edu in edus if edu["edu_type"] == UPDATE]
        assert [(content["user_id"], content["prev_id"]) for content in updates] == [(anna.user_id, [0])]
        assert updates[0]["keys"]["keys"] == keys_of(anna)["keys"]


async def test_what_changed_while_no_room_was_shared_is_seen_after_a_rejoin(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        assert await query(bob, alice.user_id) == {alice.device_id: "key"}
        await bob.leave(room)
        await trio.sleep(5)
        await upload(alice, "while apart")
        await trio.sleep(5)
        await bob.join(room, "one.test")
        assert await query(bob, alice.user_id) == {alice.device_id: "while apart"}


async def test_a_list_goes_some_time_after_the_last_room_that_was_shared(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        await query(bob, alice.user_id)
        await trio.sleep(2 * 3600)
        assert count_kept(world["two.test"]) == 1
        await bob.leave(room)
        await trio.sleep(2 * 3600)
        assert count_kept(world["two.test"]) == 0


async def test_what_changed_while_a_server_was_down_is_seen_when_it_is_back(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        await query(bob, alice.user_id)
        await world.stop("two.test")
        for number in range(5):
            await upload(alice, f"key {number}")
        await world.start("two.test")
        await trio.sleep(3600)
        bob = await logged_in_again(world, bob)
        assert await query(bob, alice.user_id) == {alice.device_id: "key 4"}


async def logged_in_again(world: Cluster, client: ApiClient) -> ApiClient:
    again = world["two.test"].client()
    again.user_id, again.device_id, again.token = client.user_id, client.device_id, client.token
    return again


# -- a peer that says what it likes ---------------------------------------------------------------------


def device(name: str, key: str) -> Any:
    mallory = "@mallory:peer.test"
    return {
        "user_id": mallory,
        "device_id": name,
        "algorithms": [],
        "keys": {f"ed25519:{name}": key},
        "signatures": {mallory: {f"ed25519:{name}": "s"}},
    }


def update(stream_id: int, prev: list[Any], name: str = "D", key: str | None = "k") -> tuple[str, Any]:
    content = {"user_id": "@mallory:peer.test", "device_id": name, "stream_id": stream_id, "prev_id": prev}
    return UPDATE, content | ({"deleted": True} if key is None else {"keys": device(name, key)})


class Devices:
    """The peer's list of mallory's devices, and how often it was asked for."""

    def __init__(self, at: Scene) -> None:
        self.stream_id = 1
        self.devices = {"D": "k"}
        self.broken = False
        self.asked = 0
        at.peer.on("GET", f"{V1}/user/devices/", self.answer)
        at.peer.on("POST", f"{V1}/user/keys/query", self.query)

    def query(self, request: Received) -> Any:
        return {"device_keys": {"@mallory:peer.test": {d: device(d, k) for d, k in self.devices.items()}}}

    def answer(self, request: Received) -> Any:
        self.asked += 1
        if self.broken:
            return Reply(500, {"errcode": "M_UNKNOWN", "error": "broken"})
        return {
            "user_id": "@mallory:peer.test",
            "stream_id": self.stream_id,
            "devices": [{"device_id": d, "keys": device(d, k)} for d, k in self.devices.items()],
        }


async def test_a_gap_in_the_chain_is_noticed_and_the_list_fetched_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await with_mallory(at)
        peer = Devices(at)
        assert await query(at.alice, "@mallory:peer.test") == {"D": "k"}
        await tell(at, "t1", update(5, [4]), update(9, [8]), update(12, [11]))  # all of them with gaps
        peer.stream_id, peer.devices = 12, {"D": "k12", "E": "new"}
        await eventually(lambda: peer.asked > 0)
        await trio.sleep(5)
        assert await query(at.alice, "@mallory:peer.test") == {"D": "k12", "E": "new"}
        assert peer.asked <= 2
        # From here on the chain is whole: no more questions.
        asked = peer.asked
        await tell(at, "t2", update(13, [12], "E", None), update(14, [13], "F", "f"))
        await trio.sleep(5)
        assert await query(at.alice, "@mallory:peer.test") == {"D": "k12", "F": "f"}
        assert peer.asked == asked


async def test_a_server_that_can_not_be_asked_is_asked_less_and_less_often(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await with_mallory(at)
        peer = Devices(at)
        await query(at.alice, "@mallory:peer.test")
        peer.broken = True
        await tell(at, "t1", update(5, [4]))
        await trio.sleep(24 * 3600)
        assert 5 <= peer.asked <= 20
        peer.broken, peer.devices = False, {"D": "at last"}
        # Nothing stale is shown meanwhile.
        assert await query(at.alice, "@mallory:peer.test") == {"D": "at last"}
        await trio.sleep(7 * 3600)
        keys = kept(at.world["one.test"], "@mallory:peer.test")
        assert keys is not None
        assert list(keys.devices) == ["D"]


async def test_malformed_updates_make_nothing_but_a_question(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await with_mallory(at)
        peer = Devices(at)
        await query(at.alice, "@mallory:peer.test")
        good = update(5, [1])[1]
        for number, change in enumerate(
            (
                {"stream_id": "5"},
                {"stream_id": True},
                {"prev_id": 7},
                {"prev_id": ["x"]},
                {"prev_id": [[]]},
                {"device_id": 5},
                {"keys": "no"},
                {"keys": {"user_id": "@other:peer.test"}},
                {"user_id": "@alice:one.test"},
                {"user_id": None},
            )
        ):
            await tell(at, f"bad{number}", (UPDATE, {**good, **change}), ("m.signing_key_update", change))
        await trio.sleep(60)
        peer.stream_id = 6
        assert await query(at.alice, "@mallory:peer.test") == {"D": "k"}


def cross_signing_key(user_id: str, usage: str, seed: bytes) -> Any:
    public = SigningKey.generate(seed * 32, "1").verify_key_base64
    return {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}


async def test_cross_signing_keys_are_taken_from_what_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await with_mallory(at)
        peer = Devices(at)
        await query(at.alice, MALLORY)
        await at.alice.sync()
        master, own = (cross_signing_key(MALLORY, use, b"m") for use in ("master", "self_signing"))
        told = {"user_id": MALLORY, "master_key": master, "self_signing_key": own}
        await tell(at, "t", ("m.signing_key_update", told))
        await trio.sleep(1)
        assert (await at.alice.sync())["device_lists"]["changed"] == [MALLORY]
        answer = await at.alice.post("/keys/query", {"device_keys": {MALLORY: []}})
        assert answer["master_keys"] == {MALLORY: master}
        assert answer["self_signing_keys"] == {MALLORY: own}
        assert peer.asked == 0


async def test_of_a_servers_users_nobody_else_tells(tmp_path: Path) -> None:
    async with scene(tmp_path, "two.test") as at:
        await with_mallory(at)
        bob = await at.world["two.test"].user("bob")
        await upload(bob)
        await bob.join(await at.alice.create_room(preset="public_chat"), "one.test")
        assert await query(at.alice, bob.user_id) == {bob.device_id: "key"}
        await trio.sleep(60)
        await at.alice.sync()
        before = kept(at.world["one.test"], bob.user_id)
        assert before is not None
        forged = {"user_id": bob.user_id, "master_key": cross_signing_key(bob.user_id, "master", b"m")}
        added = {**update(5, [4], "X", None)[1], "user_id": bob.user_id}
        await tell(at, "t", ("m.signing_key_update", forged), (UPDATE, added))
        await trio.sleep(1)
        assert (await at.alice.sync()).get("device_lists", {}).get("changed", []) == []
        assert kept(at.world["one.test"], bob.user_id) == before


async def test_of_who_shares_no_room_nothing_is_kept(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        peer = Devices(at)
        assert await query(at.alice, "@mallory:peer.test") == {"D": "k"}
        assert count_kept(at.world["one.test"]) == 0
        await tell(at, "t1", update(5, [4]))
        await trio.sleep(60)
        assert peer.asked == 0
        assert kept(at.world["one.test"], "@mallory:peer.test") is None
        row = (
            at.world["one.test"]
            .server.services.db.read.execute(
                "SELECT COUNT(*) FROM device_list_changes WHERE user_id LIKE '%peer.test'"
            )
            .fetchone()
        )
        assert row == (0,)
