# SPDX-License-Identifier: Apache-2.0
"""Cross-signing keys, signatures, and who sees which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.store import device_lists

from .keys_kit import CrossSigning, device_keys, only_signature, signed, signing_key
from .kit import Client, TestServer, open_server, refused

UPLOAD = "/keys/device_signing/upload"
SIGN = "/keys/signatures/upload"
REMOTE = "@bob:other.example"


async def query(asker: Client, *user_ids: str) -> dict[str, Any]:
    body: dict[str, Any] = {"device_keys": {user_id: [] for user_id in user_ids}}
    answer: dict[str, Any] = (await asker.post("/keys/query", body)).json
    return answer


async def with_keys(server: TestServer, name: str, seed: int = 10) -> tuple[Client, CrossSigning]:
    client = await server.user(name)
    keys = CrossSigning(client.user_id, seed)
    assert (await client.post(UPLOAD, keys.upload())).json == {}
    return client, keys


class TestUpload:
    @pytest.mark.parametrize("path", [UPLOAD, "/_matrix/client/unstable/keys/device_signing/upload"])
    async def test_the_first_upload_needs_no_confirmation(self, server: TestServer, path: str) -> None:
        alice = await server.user("alice")
        keys = CrossSigning(alice.user_id)
        assert (await alice.post(path, keys.upload())).json == {}
        found = await query(alice, alice.user_id)
        assert found["master_keys"] == {alice.user_id: keys.key("master")}
        assert found["self_signing_keys"] == {alice.user_id: keys.key("self_signing")}
        assert found["user_signing_keys"] == {alice.user_id: keys.key("user_signing")}

    async def test_the_same_keys_again_need_none_and_change_nothing(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        start = server.pos()
        assert (await alice.post(UPLOAD, keys.upload())).json == {}
        assert (await alice.post(UPLOAD, keys.upload("self_signing"))).json == {}
        assert server.pos() == start

    @pytest.mark.parametrize("usages", [(), ("self_signing",), ("master",)])
    async def test_other_keys_must_be_confirmed(self, server: TestServer, usages: tuple[str, ...]) -> None:
        alice, old = await with_keys(server, "alice")
        new = CrossSigning(alice.user_id, seed=20)
        if usages == ("self_signing",):
            new.master = old.master
        body = new.upload(*usages)
        challenge = await alice.post(UPLOAD, body)
        assert challenge.status == 401
        assert challenge.json["flows"] == [{"stages": ["m.login.password"]}]
        assert (await query(alice, alice.user_id))["master_keys"][alice.user_id] == old.key("master")
        assert (await alice.confirmed("POST", UPLOAD, body, password="wrong")).status == 401
        assert (await alice.confirmed("POST", UPLOAD, body)).json == {}
        found = await query(alice, alice.user_id)
        for usage in usages or ("master", "self_signing"):
            assert found[f"{usage}_keys"][alice.user_id] == new.key(usage)

    async def test_others_do_not_see_the_user_signing_key(self, server: TestServer) -> None:
        alice, _ = await with_keys(server, "alice")
        bob = await server.user("bob")
        found = await query(bob, alice.user_id)
        assert found["user_signing_keys"] == {}
        assert alice.user_id in found["self_signing_keys"]

    async def test_without_a_master_key_there_is_nothing_to_sign_with(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = CrossSigning(alice.user_id).upload("self_signing")
        assert refused(await alice.post(UPLOAD, body), 400, "M_MISSING_PARAM")
        assert refused(await alice.post(UPLOAD, {}), 400, "M_MISSING_PARAM")

    async def test_keys_must_be_signed_by_the_master_key(self, server: TestServer) -> None:
        alice = await server.user("alice")
        keys = CrossSigning(alice.user_id)
        master = keys.master.verify_key_base64
        key = keys.key("self_signing")
        for signatures in (
            {},
            {alice.user_id: {}},
            {alice.user_id: {f"ed25519:{master}": "AAAA"}},
            {alice.user_id: {f"ed25519:{master}": "not base64!"}},
            {"@bob:example.org": key["signatures"][alice.user_id]},
        ):
            body = {**keys.upload(), "self_signing_key": {**key, "signatures": signatures}}
            assert refused(await alice.post(UPLOAD, body), 400, "M_INVALID_SIGNATURE")
        assert server.rows("SELECT * FROM cross_signing_keys") == []

    @pytest.mark.parametrize(
        ("change", "errcode"),
        [
            ({"user_id": "@bob:example.org"}, "M_INVALID_PARAM"),
            ({"user_id": None}, "M_MISSING_PARAM"),
            ({"usage": ["self_signing"]}, "M_INVALID_PARAM"),
            ({"usage": "master"}, "M_INVALID_PARAM"),
            ({"keys": {}}, "M_BAD_JSON"),
            ({"keys": {"ed25519:a": "a", "ed25519:b": "b"}}, "M_BAD_JSON"),
            ({"keys": {"ed25519:a": "b"}}, "M_INVALID_PARAM"),
            ({"keys": {"ed25519:AAAA": "AAAA"}}, "M_INVALID_PARAM"),
            ({"keys": {"ed25519:!": "!"}}, "M_INVALID_PARAM"),
            ({"keys": {"ed25519:x": 1}}, "M_INVALID_PARAM"),
            ({"signatures": 1}, "M_BAD_JSON"),
        ],
    )
    async def test_malformed_keys_are_refused(
        self, server: TestServer, change: dict[str, Any], errcode: str
    ) -> None:
        alice = await server.user("alice")
        body = {"master_key": {**CrossSigning(alice.user_id).key("master"), **change}}
        assert refused(await alice.post(UPLOAD, body), 400, errcode)
        assert refused(await alice.post(UPLOAD, {"master_key": 7}), 400, "M_BAD_JSON")

    async def test_a_key_can_not_be_the_same_as_a_device_id_or_another_key(self, server: TestServer) -> None:
        public = signing_key(10).verify_key_base64
        alice = await server.user("alice", device_id=public)
        assert refused(await alice.post(UPLOAD, CrossSigning(alice.user_id).upload()), 403, "M_FORBIDDEN")
        bob = await server.user("bob")
        keys = CrossSigning(bob.user_id)
        keys.self_signing = keys.user_signing
        assert refused(await bob.post(UPLOAD, keys.upload()), 403, "M_FORBIDDEN")

    async def test_new_keys_are_announced(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await server.share_a_room(alice.user_id, bob.user_id, REMOTE)
        start = server.pos()
        keys = CrossSigning(alice.user_id)
        await alice.post(UPLOAD, keys.upload())
        changed = device_lists.changed_among_contacts(server.db.read, bob.user_id, start, server.pos())
        assert changed == [alice.user_id]
        assert server.edus("m.signing_key_update") == [
            (
                "other.example",
                {
                    "user_id": alice.user_id,
                    "master_key": keys.key("master"),
                    "self_signing_key": keys.key("self_signing"),
                },
            )
        ]


class TestSignatures:
    async def test_a_device_is_signed_by_the_self_signing_key(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        bob = await server.user("bob")
        device = device_keys(alice)
        await alice.post("/keys/upload", {"device_keys": device})
        name = f"ed25519:{keys.self_signing.verify_key_base64}"
        signature = only_signature(device, alice.user_id, name, keys.self_signing)
        start = server.pos()
        answer = await alice.post(SIGN, {alice.user_id: {alice.device_id: signature}})
        assert answer.json == {"failures": {}}
        for asker in (alice, bob):
            found = (await query(asker, alice.user_id))["device_keys"][alice.user_id][alice.device_id]
            assert found == signed(device, alice.user_id, name, keys.self_signing)
        changed = device_lists.changed_among_contacts(server.db.read, alice.user_id, start, server.pos())
        assert changed == [alice.user_id]

    async def test_a_device_signs_the_master_key(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        bob = await server.user("bob")
        await alice.post("/keys/upload", {"device_keys": device_keys(alice)})
        master = keys.key("master")
        name = f"ed25519:{alice.device_id}"
        signature = only_signature(master, alice.user_id, name, signing_key(1))
        public = keys.master.verify_key_base64
        assert (await alice.post(SIGN, {alice.user_id: {public: signature}})).json == {"failures": {}}
        assert (await query(bob, alice.user_id))["master_keys"][alice.user_id] == signature

    async def test_only_the_signer_sees_what_the_user_signing_key_signed(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        bob, bobs = await with_keys(server, "bob", seed=30)
        carol = await server.user("carol")
        await server.share_a_room(alice.user_id, bob.user_id, carol.user_id)
        master = bobs.key("master")
        name = f"ed25519:{keys.user_signing.verify_key_base64}"
        signature = only_signature(master, alice.user_id, name, keys.user_signing)
        start = server.pos()
        body = {bob.user_id: {bobs.master.verify_key_base64: signature}}
        assert (await alice.post(SIGN, body)).json == {"failures": {}}
        assert (await query(alice, bob.user_id))["master_keys"][bob.user_id] == signature
        for asker in (bob, carol):
            assert (await query(asker, bob.user_id))["master_keys"][bob.user_id] == master
        seen = [
            device_lists.changed_among_contacts(server.db.read, client.user_id, start, server.pos())
            for client in (alice, bob, carol)
        ]
        assert seen == [[bob.user_id], [], []]

    async def test_the_master_key_of_a_remote_user_can_be_signed(self, tmp_path: Path) -> None:
        bobs = CrossSigning(REMOTE, seed=30)

        class Remote:
            async def query_keys(self, host: str, device_keys: Any) -> Any:
                return {"device_keys": {REMOTE: {}}, "master_keys": {REMOTE: bobs.key("master")}}

        async with open_server(tmp_path, federation=Remote()) as server:
            alice, keys = await with_keys(server, "alice")
            name = f"ed25519:{keys.user_signing.verify_key_base64}"
            signature = only_signature(bobs.key("master"), alice.user_id, name, keys.user_signing)
            body = {REMOTE: {bobs.master.verify_key_base64: signature}}
            assert (await alice.post(SIGN, body)).json == {"failures": {}}
            assert (await query(alice, REMOTE))["master_keys"][REMOTE] == signature

    async def test_failures_are_named_one_by_one(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        device = device_keys(alice)
        await alice.post("/keys/upload", {"device_keys": device})
        name = f"ed25519:{keys.self_signing.verify_key_base64}"
        good = only_signature(device, alice.user_id, name, keys.self_signing)
        changed = {**good, "algorithms": ["other"]}
        stranger = only_signature(device, alice.user_id, "ed25519:STRANGER", signing_key(77))
        wrong = only_signature(device, alice.user_id, name, signing_key(77))
        for bad, errcode in [
            (changed, "M_INVALID_PARAM"),
            (stranger, "M_INVALID_SIGNATURE"),
            (wrong, "M_INVALID_SIGNATURE"),
            ({**device, "signatures": {}}, "M_INVALID_SIGNATURE"),
            ({**device, "signatures": {alice.user_id: 7}}, "M_INVALID_SIGNATURE"),
            (7, "M_BAD_JSON"),
        ]:
            failures = (await alice.post(SIGN, {alice.user_id: {alice.device_id: bad}})).json["failures"]
            assert failures[alice.user_id][alice.device_id]["errcode"] == errcode
        body = {alice.user_id: {alice.device_id: good, "NOTHING": good}, "@nobody:example.org": {"x": good}}
        failures = (await alice.post(SIGN, body)).json["failures"]
        assert failures.keys() == {alice.user_id, "@nobody:example.org"}
        assert failures[alice.user_id].keys() == {"NOTHING"}
        assert failures[alice.user_id]["NOTHING"]["errcode"] == "M_NOT_FOUND"
        assert len(server.rows("SELECT * FROM key_signatures")) == 1

    @pytest.mark.parametrize("body", [[], {"rubbish": {}}, {"@a:example.org": []}])
    async def test_malformed_uploads_are_refused(self, server: TestServer, body: Any) -> None:
        alice = await server.user("alice")
        assert refused(await alice.post(SIGN, body), 400, "M_BAD_JSON")

    async def test_new_keys_of_a_device_lose_the_old_signatures(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        device = device_keys(alice)
        await alice.post("/keys/upload", {"device_keys": device})
        name = f"ed25519:{keys.self_signing.verify_key_base64}"
        signature = only_signature(device, alice.user_id, name, keys.self_signing)
        await alice.post(SIGN, {alice.user_id: {alice.device_id: signature}})
        await alice.post("/keys/upload", {"device_keys": device_keys(alice, seed=2)})
        found = (await query(alice, alice.user_id))["device_keys"][alice.user_id][alice.device_id]
        assert found == device_keys(alice, seed=2)

    async def test_a_replaced_self_signing_key_takes_its_signatures_with_it(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        device = device_keys(alice)
        await alice.post("/keys/upload", {"device_keys": device})
        name = f"ed25519:{keys.self_signing.verify_key_base64}"
        signature = only_signature(device, alice.user_id, name, keys.self_signing)
        await alice.post(SIGN, {alice.user_id: {alice.device_id: signature}})
        await alice.confirmed("POST", UPLOAD, CrossSigning(alice.user_id, seed=40).upload())
        found = (await query(alice, alice.user_id))["device_keys"][alice.user_id][alice.device_id]
        assert found == device

    async def test_the_update_for_other_servers_has_the_new_signature(self, server: TestServer) -> None:
        alice, keys = await with_keys(server, "alice")
        await server.share_a_room(alice.user_id, REMOTE)
        device = device_keys(alice)
        await alice.post("/keys/upload", {"device_keys": device})
        name = f"ed25519:{keys.self_signing.verify_key_base64}"
        signature = only_signature(device, alice.user_id, name, keys.self_signing)
        await alice.post(SIGN, {alice.user_id: {alice.device_id: signature}})
        _, update = server.edus("m.device_list_update")[-1]
        assert update["keys"] == signed(device, alice.user_id, name, keys.self_signing)
