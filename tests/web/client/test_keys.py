# SPDX-License-Identifier: Apache-2.0
"""Device keys, one-time keys, fallback keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.federation_errors import Unreachable
from minihs.store import one_time_keys

from .keys_kit import device_keys
from .keys_kit import one_time_keys as make_keys
from .kit import Client, TestServer, open_server, refused

REMOTE = "@bob:other.example"


def claim(client: Client, algorithm: str = "signed_curve25519") -> dict[str, Any]:
    return {"one_time_keys": {client.user_id: {client.device_id: algorithm}}}


async def claimed_names(asker: Client, client: Client) -> list[str]:
    answer = await asker.post("/keys/claim", claim(client))
    assert answer.status == 200
    return list(answer.json["one_time_keys"].get(client.user_id, {}).get(client.device_id, {}))


class TestUploadAndQuery:
    async def test_device_keys_come_back_with_the_devices_name(self, server: TestServer) -> None:
        alice = await server.user("alice", initial_device_display_name="Phone")
        bob = await server.user("bob")
        keys = device_keys(alice)
        answer = await alice.post("/keys/upload", {"device_keys": keys})
        assert answer.json == {"one_time_key_counts": {}}
        for wanted in ([], [alice.device_id]):
            found = (await bob.post("/keys/query", {"device_keys": {alice.user_id: wanted}})).json
            assert found["device_keys"] == {
                alice.user_id: {alice.device_id: {**keys, "unsigned": {"device_display_name": "Phone"}}}
            }
            assert found["failures"] == {}

    async def test_other_devices_and_unknown_users_are_left_out(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await alice.post("/keys/upload", {"device_keys": device_keys(alice)})
        body = {"device_keys": {alice.user_id: ["OTHER"], "@nobody:example.org": []}}
        assert (await alice.post("/keys/query", body)).json["device_keys"] == {alice.user_id: {}}

    async def test_a_device_that_is_deleted_takes_its_keys_with_it(self, server: TestServer) -> None:
        alice, other = await server.user("alice"), await server.login("alice")
        await other.post(
            "/keys/upload", {"device_keys": device_keys(other), "one_time_keys": make_keys(other, 1)}
        )
        await other.post("/logout", {})
        found = (await alice.post("/keys/query", {"device_keys": {alice.user_id: []}})).json
        assert found["device_keys"] == {alice.user_id: {}}
        assert await claimed_names(alice, other) == []

    async def test_the_unstable_and_r0_paths_are_the_same(self, server: TestServer) -> None:
        alice = await server.user("alice")
        for path in ("/_matrix/client/r0/keys/upload", "/_matrix/client/unstable/keys/upload",
                     f"/_matrix/client/r0/keys/upload/{alice.device_id}"):  # fmt: skip
            assert (await alice.post(path, {})).json == {"one_time_key_counts": {}}

    @pytest.mark.parametrize(
        ("change", "errcode"),
        [
            ({"user_id": "@bob:example.org"}, "M_INVALID_PARAM"),
            ({"device_id": "OTHER"}, "M_INVALID_PARAM"),
            ({"device_id": None}, "M_MISSING_PARAM"),
            ({"algorithms": "m.olm"}, "M_BAD_JSON"),
            ({"algorithms": [1]}, "M_BAD_JSON"),
            ({"algorithms": ["x"] * 100}, "M_BAD_JSON"),
            ({"keys": {}}, "M_BAD_JSON"),
            ({"keys": []}, "M_BAD_JSON"),
            ({"keys": {"ed25519:OTHER": "x"}}, "M_INVALID_PARAM"),
            ({"keys": {"ed25519": "x"}}, "M_BAD_JSON"),
            ({"keys": {"ed25519:X": {}}}, "M_BAD_JSON"),
            ({"signatures": []}, "M_BAD_JSON"),
            ({"signatures": {"@alice:example.org": {"ed25519:X": 1}}}, "M_BAD_JSON"),
            ({"huge": "x" * 20_000}, "M_TOO_LARGE"),
            ({"number": 1.5}, "M_BAD_JSON"),
        ],
    )
    async def test_malformed_device_keys_are_refused(
        self, server: TestServer, change: dict[str, Any], errcode: str
    ) -> None:
        alice = await server.user("alice")
        answer = await alice.post("/keys/upload", {"device_keys": {**device_keys(alice), **change}})
        assert (answer.status, answer.json["errcode"]) == (413 if errcode == "M_TOO_LARGE" else 400, errcode)
        assert server.rows("SELECT * FROM device_keys") == []

    @pytest.mark.parametrize(
        ("body", "errcode"),
        [
            ({"device_keys": []}, "M_BAD_JSON"),
            ({"one_time_keys": []}, "M_BAD_JSON"),
            ({"one_time_keys": {"x": {"key": "y"}}}, "M_INVALID_PARAM"),
            ({"one_time_keys": {":x": {"key": "y"}}}, "M_INVALID_PARAM"),
            ({"one_time_keys": {"a:b": 1}}, "M_BAD_JSON"),
            ({"one_time_keys": {"a:b": {}}}, "M_MISSING_PARAM"),
            ({"one_time_keys": {"a:b": {"key": 1}}}, "M_BAD_JSON"),
            ({"one_time_keys": {"a:b": {"key": "x", "signatures": 1}}}, "M_BAD_JSON"),
            ({"one_time_keys": {"a:b": {"key": "x", "y": "z" * 3000}}}, "M_TOO_LARGE"),
            ({"fallback_keys": {"a:1": "x", "a:2": "y"}}, "M_INVALID_PARAM"),
            ({"one_time_keys": {f"a:{i}": str(i) for i in range(1001)}}, "M_INVALID_PARAM"),
        ],
    )
    async def test_malformed_one_time_keys_are_refused(
        self, server: TestServer, body: dict[str, Any], errcode: str
    ) -> None:
        alice = await server.user("alice")
        answer = await alice.post("/keys/upload", body)
        assert (answer.status, answer.json["errcode"]) == (413 if errcode == "M_TOO_LARGE" else 400, errcode)
        assert server.rows("SELECT * FROM one_time_keys") == []

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"device_keys": []},
            {"device_keys": {"@a:b.org": {}}},
            {"device_keys": {"@a:b.org": [1]}},
            {"device_keys": {"rubbish": []}},
            {"device_keys": {}, "timeout": "x"},
        ],
    )
    async def test_malformed_queries_are_refused(self, server: TestServer, body: Any) -> None:
        alice = await server.user("alice")
        assert (await alice.post("/keys/query", body)).status == 400

    @pytest.mark.parametrize(
        "body", [{}, {"one_time_keys": []}, {"one_time_keys": {"@a:b.org": []}},
                 {"one_time_keys": {"@a:b.org": {"X": 1}}}, {"one_time_keys": {"x": {}}}]
    )  # fmt: skip
    async def test_malformed_claims_are_refused(self, server: TestServer, body: Any) -> None:
        alice = await server.user("alice")
        assert (await alice.post("/keys/claim", body)).status == 400


class TestOneTimeKeys:
    async def test_each_is_handed_out_once_in_the_order_of_upload(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        for number in (3, 1, 2):
            await alice.post("/keys/upload", {"one_time_keys": make_keys(alice, number)})
        answer = await alice.post("/keys/upload", {})
        assert answer.json == {"one_time_key_counts": {"signed_curve25519": 3}}
        names = [name for _ in range(4) for name in await claimed_names(bob, alice)]
        assert names == [f"signed_curve25519:AAAA{number}" for number in (3, 1, 2)]

    async def test_the_key_comes_as_it_was_uploaded(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        keys = make_keys(alice, 7)
        await alice.post("/keys/upload", {"one_time_keys": keys})
        answer = (await bob.post("/keys/claim", claim(alice))).json
        assert answer == {"one_time_keys": {alice.user_id: {alice.device_id: keys}}, "failures": {}}

    async def test_many_who_claim_at_once_get_different_keys(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await alice.post("/keys/upload", {"one_time_keys": make_keys(alice, *range(20))})
        names: list[str] = []

        async def take() -> None:
            names.extend(await claimed_names(bob, alice))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(take)
        assert len(names) == 20
        assert len(set(names)) == 20

    async def test_an_upload_repeated_after_a_claim_does_not_bring_the_key_back(
        self, server: TestServer
    ) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        body = {"one_time_keys": make_keys(alice, 1)}
        await alice.post("/keys/upload", body)
        assert await claimed_names(bob, alice) == ["signed_curve25519:AAAA1"]
        assert (await alice.post("/keys/upload", body)).status == 200
        assert await claimed_names(bob, alice) == []

    async def test_the_same_upload_twice_counts_once(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = {"one_time_keys": make_keys(alice, 1, 2)}
        for _ in range(2):
            answer = await alice.post("/keys/upload", body)
            assert answer.json == {"one_time_key_counts": {"signed_curve25519": 2}}

    async def test_another_key_under_a_used_id_is_refused_whole(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await alice.post("/keys/upload", {"one_time_keys": {"a:1": "one"}})
        answer = await alice.post("/keys/upload", {"one_time_keys": {"a:0": "zero", "a:1": "other"}})
        assert refused(answer, 400, "M_INVALID_PARAM")
        assert (await alice.post("/keys/upload", {})).json == {"one_time_key_counts": {"a": 1}}

    async def test_a_claim_wakes_the_device(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await alice.post("/keys/upload", {"one_time_keys": make_keys(alice, 1)})
        woken: set[str] = set()
        server.db.on_commit(woken.update)
        await claimed_names(bob, alice)
        assert f"device:{alice.user_id}|{alice.device_id}" in woken


class TestFallbackKeys:
    @staticmethod
    def types(server: TestServer, client: Client) -> list[str]:
        return one_time_keys.unused_fallback_types(server.db.read, client.user_id, client.device_id)

    async def test_it_is_given_when_one_time_keys_are_out_and_again(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        fallback = {f"{name}f": {**key, "fallback": True} for name, key in make_keys(alice, 9).items()}
        await alice.post("/keys/upload", {"one_time_keys": make_keys(alice, 1), "fallback_keys": fallback})
        assert await claimed_names(bob, alice) == ["signed_curve25519:AAAA1"]
        assert self.types(server, alice) == ["signed_curve25519"]
        for _ in range(2):
            answer = (await bob.post("/keys/claim", claim(alice))).json
            assert answer["one_time_keys"][alice.user_id][alice.device_id] == fallback
            assert self.types(server, alice) == []

    async def test_a_new_one_replaces_it_and_the_same_one_stays_used(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        for text, unused in [("one", ["a"]), ("two", ["a"])]:
            await alice.post("/keys/upload", {"fallback_keys": {f"a:{text}": text}})
            assert self.types(server, alice) == unused
            answer = (await bob.post("/keys/claim", claim(alice, "a"))).json
            assert answer["one_time_keys"][alice.user_id][alice.device_id] == {f"a:{text}": text}
            await alice.post("/keys/upload", {"fallback_keys": {f"a:{text}": text}})
            assert self.types(server, alice) == []


class RemoteKeys:
    """Another server; its answers are what the test says."""

    def __init__(self, answer: Any, delay: float = 0) -> None:
        self.answer = answer
        self.delay = delay
        self.asked: list[Any] = []

    async def _give(self, host: str, asked: Any) -> Any:
        self.asked.append((host, asked))
        await trio.sleep(self.delay)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def query_keys(self, host: str, device_keys: Any) -> Any:
        return await self._give(host, device_keys)

    async def claim_keys(self, host: str, one_time_keys: Any) -> Any:
        return await self._give(host, one_time_keys)


BOBS_KEYS: dict[str, Any] = {
    "user_id": REMOTE,
    "device_id": "DEV",
    "algorithms": [],
    "keys": {"ed25519:DEV": "x"},
    "signatures": {},
}


class TestRemote:
    async def test_queries_are_passed_on_and_answers_checked(self, tmp_path: Path) -> None:
        remote = RemoteKeys(
            {
                "device_keys": {
                    REMOTE: {
                        "DEV": {**BOBS_KEYS, "unsigned": {"device_display_name": "Bob's", "x": 1}},
                        "LIE": BOBS_KEYS,
                        "BAD": 7,
                    },
                    "@other:other.example": {"DEV": {}},
                    "@alice:example.org": {"DEV": {}},
                },
                "master_keys": {REMOTE: {"user_id": REMOTE}},
                "user_signing_keys": {REMOTE: {}},
            }
        )
        async with open_server(tmp_path, federation=remote) as server:
            alice = await server.user("alice")
            answer = (await alice.post("/keys/query", {"device_keys": {REMOTE: []}})).json
            expected = {**BOBS_KEYS, "unsigned": {"device_display_name": "Bob's"}}
            assert answer["device_keys"] == {REMOTE: {"DEV": expected}}
            assert answer["master_keys"] == answer["user_signing_keys"] == answer["failures"] == {}
            assert remote.asked == [("other.example", {REMOTE: []})]

    async def test_claims_are_passed_on_and_answers_checked(self, tmp_path: Path) -> None:
        good = {"signed_curve25519:A": {"key": "x", "signatures": {}}}
        remote = RemoteKeys(
            {"one_time_keys": {REMOTE: {"DEV": good, "BAD": {"x:1": {"key": "x"}}, "MORE": good}}}
        )
        async with open_server(tmp_path, federation=remote) as server:
            alice = await server.user("alice")
            wanted = {REMOTE: {"DEV": "signed_curve25519", "BAD": "signed_curve25519"}}
            answer = (await alice.post("/keys/claim", {"one_time_keys": wanted})).json
            assert answer == {"one_time_keys": {REMOTE: {"DEV": good}}, "failures": {}}

    async def test_a_server_that_fails_is_named_and_the_rest_answered(self, tmp_path: Path) -> None:
        async with open_server(tmp_path, federation=RemoteKeys(Unreachable("other.example", "no"))) as server:
            alice = await server.user("alice")
            body = {"device_keys": {REMOTE: [], alice.user_id: []}}
            answer = (await alice.post("/keys/query", body)).json
            assert list(answer["failures"]) == ["other.example"]
            assert answer["device_keys"] == {alice.user_id: {}}

    async def test_a_slow_server_is_waited_for_as_long_as_asked(
        self, tmp_path: Path, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with open_server(tmp_path, federation=RemoteKeys({}, delay=60)) as server:
            alice = await server.user("alice")
            started = trio.current_time()
            answer = await alice.post("/keys/query", {"device_keys": {REMOTE: []}, "timeout": 3000})
            assert answer.status == 200
            assert list(answer.json["failures"]) == ["other.example"]
            assert trio.current_time() - started == pytest.approx(3, abs=0.5)

    @pytest.mark.parametrize(
        "answer", [{}, {"device_keys": []}, {"device_keys": {REMOTE: 1}}, {"master_keys": 1}]
    )
    async def test_rubbish_from_other_servers_does_not_hurt(self, tmp_path: Path, answer: Any) -> None:
        async with open_server(tmp_path, federation=RemoteKeys(answer)) as server:
            alice = await server.user("alice")
            assert (await alice.post("/keys/query", {"device_keys": {REMOTE: []}})).status == 200
            claim = {"one_time_keys": {REMOTE: {"DEV": "a"}}}
            assert (await alice.post("/keys/claim", claim)).json["one_time_keys"] == {}

    async def test_other_servers_see_no_user_signing_key_and_claim_only_our_users(
        self, server: TestServer
    ) -> None:
        alice = await server.user("alice")
        await alice.post(
            "/keys/upload", {"device_keys": device_keys(alice), "one_time_keys": make_keys(alice, 1)}
        )
        body = {"device_keys": {alice.user_id: [], REMOTE: []}}
        answer = server.e2ee.keys.query_local(body)
        assert answer.keys() == {"device_keys", "master_keys", "self_signing_keys"}
        assert list(answer["device_keys"]) == [alice.user_id]
        claims = {"one_time_keys": {**claim(alice)["one_time_keys"], REMOTE: {"DEV": "signed_curve25519"}}}
        claimed = await server.e2ee.keys.claim_local(claims)
        assert list(claimed["one_time_keys"]) == [alice.user_id]
