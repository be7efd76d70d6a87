# SPDX-License-Identifier: Apache-2.0
"""The bounds in dealings with other servers, each with one more than is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.e2ee import remote_answers, remote_devices
from minihs.federation import client, dial, key_document, key_fetch, keyring, notary, senders, transport
from minihs.matrix.federation_errors import FederationError, RemoteRefused
from minihs.matrix.signatures import SigningKey
from minihs.store import uptime
from minihs.testing.hostile import KEY_PATH, Received, Reply, ScriptedPeer
from minihs.users import presence
from tests.advisories.kit import MALLORY, V1, JsonObject, siege

PROFILE = "/profile/@x:peer.test"


def of_size(size: int, **fields: Any) -> Reply:
    text = json.dumps({**fields, "x": ""}).encode()
    body = json.dumps({**fields, "x": "y" * (size - len(text))}).encode()
    assert len(body) == size
    return Reply(body=body)


@pytest.mark.parametrize("more", [0, 1])
async def test_answers_have_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(client, "EVENT_BYTES", 1000)
    monkeypatch.setattr(client, "EVENTS_BYTES", 2000)
    monkeypatch.setattr(client, "STATE_BYTES", 3000)
    async with siege(tmp_path) as at:
        at.peer.on("GET", f"{V1}/query/profile", of_size(1000 + more, displayname="x"))
        at.peer.on("POST", f"{V1}/publicRooms", of_size(2000 + more, chunk=[]))
        at.peer.on("GET", f"{V1}/state/", of_size(3000 + more, pdus=[], auth_chain=[]))
        status, _ = await at.alice.ask("GET", PROFILE)
        assert (status == 200) == (not more)
        status, _ = await at.alice.ask("GET", "/publicRooms?server=peer.test")
        assert (status == 200) == (not more)
        federation = at.world["one.test"].server.services.federation
        try:
            await federation.get_state("peer.test", at.room, "$x")
        except FederationError:
            assert more
        else:
            assert not more


async def test_an_error_has_a_size(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for more in (0, 1):
            reply = of_size(transport.MAX_ERROR_BYTES + more, errcode="M_NOT_FOUND", error="no")
            at.peer.on("GET", f"{V1}/query/profile", Reply(404, body=reply.body))
            federation = at.world["one.test"].server.services.federation
            with pytest.raises(RemoteRefused) as refused:
                await federation.query_profile("peer.test", "@x:peer.test")
            assert (refused.value.errcode == "M_NOT_FOUND") == (not more)


async def test_so_many_addresses_are_tried(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        many = [f"198.41.0.{n}" for n in range(1, dial.MAX_ATTEMPTS + 3)]
        hosts = []
        for address in many:
            host = at.world.internet.host(f"h{address}.test")
            host.address = address
            host.down()
            hosts.append(host)
        at.world.internet.dns.addresses["many.test"] = many
        await at.alice.ask("GET", "/profile/@x:many.test:8448")
        ours = at.world["one.test"].host
        tried = [host for host in hosts if at.world.internet.link(ours, host).refused]
        assert len(tried) <= dial.MAX_ATTEMPTS


async def test_a_server_has_so_many_keys(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        keys = [SigningKey(bytes([n]) + b"k" * 31, f"k{n}") for n in range(key_document.MAX_KEYS + 1)]
        named = {key.key_id: {"key": key.verify_key_base64} for key in keys}
        named = {at.peer.key.key_id: {"key": at.peer.key.verify_key_base64}} | named
        at.peer.on("GET", KEY_PATH, lambda _: at.peer.key_document(verify_keys=named))
        await trio.sleep(25 * 3600)
        await at.unharmed()
        read = at.rooms.parts.db.read
        count = read.execute("SELECT COUNT(*) FROM server_keys WHERE server = 'peer.test'").fetchone()[0]
        assert count <= key_document.MAX_KEYS


async def test_a_servers_keys_are_not_asked_for_again_at_once(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        fake = SigningKey(b"f" * 32, "fake")
        at.peer.requests.clear()

        async def knock() -> None:
            uri = f"{V1}/event/x"
            header = at.peer.authorization("GET", "one.test", uri, key=fake)
            assert (await at.ask("GET", uri, headers=[("Authorization", header)]))[0] == 401

        await trio.sleep(key_fetch.MIN_INTERVAL + 1)
        for _ in range(5):
            await knock()
        assert len(at.peer.received(KEY_PATH)) <= 1
        await trio.sleep(key_fetch.MIN_INTERVAL + 1)
        await knock()
        assert len(at.peer.received(KEY_PATH)) <= 2


async def test_fetching_keys_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_fetch, "MAX_FETCH_TIMEOUT", 5.0)
    monkeypatch.setattr(key_fetch, "PER_NOTARY_REQUEST", 2)
    async with siege(tmp_path) as at:
        asker = ScriptedPeer(at.world.internet, "notary.test", clock=at.world.clock)
        asked: list[int] = []

        def tell(received: Received) -> JsonObject:
            asked.append(len(received.json["server_keys"]))
            return {"server_keys": []}

        asker.on("POST", "/_matrix/key/v2/query", tell)
        fetcher = at.world["one.test"].server.services.keyring._fetcher
        fetcher._notaries = ["notary.test"]
        names = [f"silent{n}.test" for n in range(5)]
        wanted = {name: {"ed25519:1": 0} for name in names}
        await fetcher.fetch(wanted)
        assert asked == [2, 2, 1]
        for name in names:
            peer = ScriptedPeer(at.world.internet, name, clock=at.world.clock)
            peer.on("GET", "/", Reply(delay=1e6))
        await trio.sleep(7200)
        started = trio.current_time()
        await fetcher.fetch(wanted, urgent=True)
        assert trio.current_time() - started <= 5.1
        assert key_fetch.AT_ONCE >= 5


async def test_one_notary_query_names_so_many_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notary, "MAX_SERVERS", 2)
    monkeypatch.setattr(notary, "TIMEOUT", 4.0)
    async with siege(tmp_path) as at:
        names = [f"s{n}.test" for n in range(3)]
        peers = [ScriptedPeer(at.world.internet, name, clock=at.world.clock) for name in names]
        status, answer = await at.ask(
            "POST", "/_matrix/key/v2/query", {"server_keys": {name: {} for name in names}}
        )
        assert status in (200, 400)
        if status == 200:
            assert len(answer["server_keys"]) <= 2
        assert len([peer for peer in peers if peer.requests]) <= 2
        slow = ScriptedPeer(at.world.internet, "slow.test", clock=at.world.clock)
        slow.on("GET", "/", Reply(delay=1e6))
        started = trio.current_time()
        status, answer = await at.ask("GET", "/_matrix/key/v2/query/slow.test")
        assert trio.current_time() - started < 5
        assert (status, answer) == (200, {"server_keys": []})


async def test_of_one_servers_signatures_on_an_event_some_are_looked_at(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for more in (0, 1):
            pdu = at.event()
            (right,) = pdu["signatures"]["peer.test"].items()
            unknown = {f"ed25519:a{n}": right[1] for n in range(keyring.MAX_SIGNATURES - 1 + more)}
            pdu["signatures"]["peer.test"] = {**unknown, right[0]: right[1]}
            answer = await at.send(pdu)
            assert ("error" in answer[at.id_of(pdu)]) == bool(more)


async def test_a_transactions_answer_is_waited_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "TIMEOUT", 7.0)
    async with siege(tmp_path) as at:
        taken: list[float] = []

        async def swallow(_: Received) -> JsonObject:
            taken.append(trio.current_time())
            if len(taken) == 1:
                await trio.sleep_forever()
            return {"pdus": {}}

        at.peer.on("PUT", f"{V1}/send/", swallow)
        await at.alice.send(at.room, "hello")
        await trio.sleep(120)
        assert len(taken) >= 2
        assert 7 <= taken[1] - taken[0] < 30


async def test_a_server_greets_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "MAX_GREETED", 1)
    async with siege(tmp_path) as at:
        second = at.another("second.test")
        await second.enter(at.room)
        mates = uptime.room_mates(at.rooms.parts.db.read, senders.MAX_GREETED)
        assert len(list(mates)) == 1


async def test_device_lists_are_fetched_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_devices, "AT_ONCE", 2)
    monkeypatch.setattr(remote_devices, "MAX_FETCHES", 4)
    async with siege(tmp_path) as at:
        busy, most, asked = 0, 0, 0

        async def slowly(received: Received) -> JsonObject:
            nonlocal busy, most, asked
            busy, asked = busy + 1, asked + 1
            most = max(most, busy)
            await trio.sleep(5)
            busy -= 1
            return {"user_id": received.path.rsplit("/", 1)[1], "stream_id": 1, "devices": []}

        def none(received: Received) -> JsonObject:
            return {"device_keys": {user: {} for user in received.json["device_keys"]}}

        at.peer.on("GET", f"{V1}/user/devices/", slowly)
        at.peer.on("POST", f"{V1}/user/keys/query", none)
        users = [f"@u{n}:peer.test" for n in range(8)]
        await at.send(*(at.member({"membership": "join"}, user) for user in users))
        await at.alice.post("/keys/query", {"device_keys": {user: [] for user in users}})
        for number, user in enumerate(users):
            update = {
                "user_id": user,
                "device_id": "D",
                "stream_id": 9,
                "prev_id": [number + 5],
                "deleted": True,
            }
            await at.tell("m.device_list_update", update)
        await trio.sleep(2)
        assert 0 < asked <= 4
        await trio.sleep(60)
        assert most <= 2


def test_a_user_has_so_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_answers, "MAX_DEVICES", 2)
    keys = {"algorithms": [], "keys": {}, "user_id": MALLORY}
    devices = {f"D{n}": {**keys, "device_id": f"D{n}", "keys": {f"ed25519:D{n}": "x"}} for n in range(3)}
    checked = remote_answers.checked_query_answer({"device_keys": {MALLORY: devices}}, {MALLORY: []})
    found = remote_answers.user_keys(checked, MALLORY)
    assert found is not None
    assert len(found.devices) == 2


async def test_of_one_presence_edu_so_many_updates_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "MAX_IN_EDU", 2)
    async with siege(tmp_path, room={"is_direct": True}) as at:
        await at.alice.put(f"/user/{at.alice.user_id}/account_data/m.direct", {MALLORY: [at.room]})
        other = {"user_id": "@x:peer.test", "presence": "online"}
        hers = {"user_id": MALLORY, "presence": "online", "status_msg": "here"}
        await at.tell("m.presence", {"push": [other, other, hers]})
        assert (await at.alice.get(f"/presence/{MALLORY}/status"))["presence"] != "online"
        await at.tell("m.presence", {"push": [other, hers]})
        assert (await at.alice.get(f"/presence/{MALLORY}/status"))["presence"] == "online"


async def test_a_policy_server_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLICY", 3.0)
    async with siege(tmp_path) as at:
        at.peer.on("POST", "/_matrix/policy/v1/sign", Reply(delay=1e6))
        started = trio.current_time()
        with pytest.raises(FederationError):
            await at.world["one.test"].server.services.federation.policy_sign("peer.test", at.event())
        assert trio.current_time() - started == pytest.approx(3, abs=0.5)
