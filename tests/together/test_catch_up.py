# SPDX-License-Identifier: Apache-2.0
"""After a time in which a server was down: the others see that it is back, and what was said is pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.hashes import event_id_of
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.testing.api import ApiClient
from minihs.testing.servers import Cluster, cluster
from tests.testing.test_servers import until_texts
from tests.together.kit import V1, scene, seg, with_mallory

DAY = 24 * 3600


async def two(world: Cluster) -> tuple[ApiClient, ApiClient, str]:
    alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
    room = await alice.create_room(preset="public_chat")
    await bob.join(room, "one.test")
    await alice.send(room, "first")
    await until_texts(bob, room, ["first"])
    return alice, bob, room


def again(world: Cluster, client: ApiClient, server: str = "two.test") -> ApiClient:
    """The same device after its server was started again."""
    new = world[server].client()
    new.user_id, new.device_id, new.token = client.user_id, client.device_id, client.token
    return new


async def test_a_server_that_is_back_is_told_at_once_what_it_missed(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        await world.stop("two.test")
        texts = ["first", *(f"missed {number}" for number in range(5))]
        for text in texts[1:]:
            await alice.send(room, text)
        await trio.sleep(2 * DAY)
        await world.start("two.test")
        # By itself one.test would try again only within a day.
        await until_texts(again(world, bob), room, texts, within=30)


async def test_any_signed_request_of_a_server_ends_the_pause_in_sending_to_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        room = await with_mallory(at)
        at.peer.on("PUT", f"{V1}/send/", {"pdus": {}})
        await trio.sleep(60)
        at.peer.host.down()
        said = await at.alice.send(room, "while you were away")
        await trio.sleep(DAY)
        at.peer.host.up()
        at.peer.requests.clear()
        await trio.sleep(60)
        assert at.peer.received(f"{V1}/send/") == []
        status, _ = await at.ask("GET", f"{V1}/query/profile?user_id={seg(at.alice.user_id)}")
        assert status == 200
        await trio.sleep(5)
        pdus = [pdu for request in at.peer.received(f"{V1}/send/") for pdu in request.json["pdus"]]
        assert [event_id_of(pdu, ROOM_VERSIONS["12"]) for pdu in pdus] == [said]


async def test_who_was_down_shortly_greets_nobody(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        _, _, _ = await two(world)
        await world.stop("two.test")
        await trio.sleep(20)
        transactions = watch(world, "one.test")
        await world.start("two.test")
        await trio.sleep(120)
        assert transactions == []


def watch(world: Cluster, name: str) -> list[Any]:
    """The transactions that a server gets from now on."""
    seen: list[Any] = []
    taking = world[name].server.services.rooms.transactions
    honest = taking.receive

    async def receive(origin: str, txn_id: str, body: Any) -> Any:
        seen.append((origin, body))
        return await honest(origin, txn_id, body)

    taking.receive = receive  # type: ignore[method-assign]  # only looks on
    return seen


async def test_a_greeting_is_one_empty_transaction(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        await two(world)
        await world.stop("two.test")
        await trio.sleep(3600)
        transactions = watch(world, "one.test")
        await world.start("two.test")
        await trio.sleep(3600)
        assert [(origin, body.get("pdus"), body.get("edus")) for origin, body in transactions] == [
            ("two.test", [], None)
        ]


async def test_a_greeting_that_nobody_hears_is_not_repeated(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        await two(world)
        for name in ("two.test", "one.test"):
            await world.stop(name)
        await trio.sleep(3600)
        await world.start("two.test")
        await trio.sleep(120)
        assert world["two.test"].server.services.senders.failing() in ([], ["one.test"])
        await trio.sleep(3600)
        assert world["two.test"].server.services.senders.failing() == []
        await world.start("one.test")


@pytest.mark.parametrize("downtime", [3600, 2 * DAY])
async def test_what_nobody_sends_is_pulled(tmp_path: Path, downtime: float) -> None:
    """The other server has lost what it was to send; the newest event is asked for, and the gap with it."""
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        await world.stop("two.test")
        texts = ["first", *(f"missed {number}" for number in range(30))]
        for text in texts[1:]:
            await alice.send(room, text)
        await trio.sleep(downtime)
        db = world["one.test"].server.services.db
        await db.write(lambda tx: tx.execute("DELETE FROM outbound"))
        await world.start("two.test")
        await until_texts(again(world, bob), room, texts, within=120)
        await alice.send(room, "and on")
        await until_texts(again(world, bob), room, [*texts, "and on"])


async def test_two_servers_that_were_both_away_end_with_the_same(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", "three.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        carol = await world["three.test"].user("carol")
        await carol.join(room, "one.test")
        await trio.sleep(5)
        await world.stop("two.test")
        await alice.send(room, "while two was down")
        await trio.sleep(DAY)
        await world.stop("three.test")
        await alice.send(room, "while both were down")
        await trio.sleep(DAY)
        await world.start("two.test")
        await world.start("three.test")
        texts = ["first", "while two was down", "while both were down"]
        await until_texts(again(world, bob), room, texts, within=300)
        await until_texts(again(world, carol, "three.test"), room, texts, within=300)
