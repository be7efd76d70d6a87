# SPDX-License-Identifier: Apache-2.0
"""Password, deactivation, devices, locking and suspension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.errors import MatrixError

from .kit import PASSWORD, Client, RecordingRooms, TestServer, open_server, refused

NEW_PASSWORD = "something quite different"


async def admin(server: TestServer) -> Client:
    await server.users.create_account("root", PASSWORD, admin=True)
    return await server.login("root")


class TestPassword:
    async def test_changing_it_logs_other_devices_out(self, server: TestServer) -> None:
        alice, other = await server.user("alice"), await server.login("alice")
        answer = await alice.confirmed("POST", "/account/password", {"new_password": NEW_PASSWORD})
        assert answer.status == 200
        assert (await alice.get("/account/whoami")).status == 200
        assert refused(await other.get("/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        await server.login("alice", NEW_PASSWORD)

    async def test_other_devices_may_stay(self, server: TestServer) -> None:
        alice, other = await server.user("alice"), await server.login("alice")
        body = {"new_password": NEW_PASSWORD, "logout_devices": False}
        assert (await alice.confirmed("POST", "/account/password", body)).status == 200
        assert (await other.get("/account/whoami")).status == 200

    async def test_the_old_password_is_gone(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await alice.confirmed("POST", "/account/password", {"new_password": NEW_PASSWORD})
        body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
        assert refused(await server.ask("POST", "/login", body), 403, "M_FORBIDDEN")

    async def test_a_wrong_password_may_be_tried_again(self, server: TestServer) -> None:
        alice = await server.user("alice")
        body = {"new_password": NEW_PASSWORD}
        answer = await alice.confirmed("POST", "/account/password", body, password="wrong")
        assert refused(answer, 401, "M_FORBIDDEN")
        assert answer.json["flows"] == [{"stages": ["m.login.password"]}]
        await server.login("alice")

    async def test_another_users_password_does_not_do(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await server.users.create_account("bob", "password of bob")
        auth = {"type": "m.login.password", "user": "bob", "password": "password of bob"}
        answer = await alice.post("/account/password", {"new_password": NEW_PASSWORD, "auth": auth})
        assert refused(answer, 401, "M_FORBIDDEN")

    async def test_another_users_session_does_not_do(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        challenge = await alice.post("/account/password", {"new_password": NEW_PASSWORD})
        auth = {
            "type": "m.login.password",
            "user": "bob",
            "password": PASSWORD,
            "session": challenge.json["session"],
        }
        answer = await bob.post("/account/password", {"new_password": NEW_PASSWORD, "auth": auth})
        assert refused(answer, 401, "M_UNKNOWN")

    async def test_a_session_for_one_thing_is_not_good_for_another(self, server: TestServer) -> None:
        alice = await server.user("alice")
        challenge = await alice.post("/account/password", {"new_password": NEW_PASSWORD})
        auth = {
            "type": "m.login.password",
            "user": "alice",
            "password": PASSWORD,
            "session": challenge.json["session"],
        }
        assert refused(await alice.post("/account/deactivate", {"auth": auth}), 401, "M_UNKNOWN")
        assert (await alice.get("/account/whoami")).status == 200

    @pytest.mark.parametrize(
        ("body", "errcode"),
        [({}, "M_MISSING_PARAM"), ({"new_password": 1}, "M_BAD_JSON"),
         ({"new_password": "x" * 2000}, "M_INVALID_PARAM"),
         ({"new_password": "x", "logout_devices": 1}, "M_BAD_JSON")],
    )  # fmt: skip
    async def test_malformed_requests_are_refused(
        self, server: TestServer, body: dict[str, Any], errcode: str
    ) -> None:
        alice = await server.user("alice")
        assert refused(await alice.post("/account/password", body), 400, errcode)

    async def test_it_takes_a_token(self, server: TestServer) -> None:
        answer = await server.ask("POST", "/account/password", {"new_password": NEW_PASSWORD})
        assert refused(answer, 401, "M_MISSING_TOKEN")


class TestDeactivation:
    async def test_everything_is_refused_afterwards(self, server: TestServer) -> None:
        alice, other = await server.user("alice", refresh_token=True), await server.login("alice")
        bob = await server.user("bob")
        openid = (await alice.post(f"{alice.path}/openid/request_token", {})).json["access_token"]
        await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
        answer = await alice.confirmed("POST", "/account/deactivate", {"erase": True})
        assert answer.json == {"id_server_unbind_result": "success"}
        for client in (alice, other):
            assert refused(await client.get("/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
        assert refused(await server.ask("POST", "/login", body), 403, "M_USER_DEACTIVATED")
        refresh = {"refresh_token": alice.login["refresh_token"]}
        assert refused(await server.ask("POST", "/refresh", refresh), 401, "M_UNKNOWN_TOKEN")
        assert refused(await bob.get(f"/profile/{alice.user_id}"), 404, "M_NOT_FOUND")
        assert server.users.openid_user(openid) is None
        keys = await bob.post("/keys/query", {"device_keys": {alice.user_id: []}})
        assert keys.json["device_keys"] == {}

    async def test_the_account_leaves_its_rooms(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await server.share_a_room(alice.user_id, "@bob:example.org")
        await alice.confirmed("POST", "/account/deactivate", {})
        assert server.rooms.left == [(alice.user_id, "!shared:example.org")]

    async def test_a_leaving_cut_short_is_finished_after_the_next_start(self, tmp_path: Path) -> None:
        async with open_server(tmp_path) as server:
            alice = await server.user("alice")
            await server.share_a_room(alice.user_id)
            await server.db.write(
                lambda tx: tx.execute("UPDATE users SET deactivated = 1, leaving = 1").rowcount
            )
        for times in (1, 0):
            async with open_server(tmp_path) as server:
                await trio.testing.wait_all_tasks_blocked()
                assert server.rooms.left == [(alice.user_id, "!shared:example.org")] * times

    async def test_rooms_that_do_not_let_go_are_not_waited_for(
        self, tmp_path: Path, autojump_clock: trio.testing.MockClock
    ) -> None:
        class Stuck(RecordingRooms):
            async def leave(self, user_id: str, room_id: str, reason: str | None = None) -> object:
                await trio.sleep(600)
                return await super().leave(user_id, room_id)

        async with open_server(tmp_path, rooms=Stuck()) as server:
            alice = await server.user("alice")
            await server.share_a_room(alice.user_id)
            started = trio.current_time()
            assert (await alice.confirmed("POST", "/account/deactivate", {})).status == 200
            assert trio.current_time() - started < 30
            assert server.rooms.left == []
            await trio.sleep(600)
            assert server.rooms.left == [(alice.user_id, "!shared:example.org")]

    async def test_a_room_that_refuses_does_not_keep_the_account_in_others(self, tmp_path: Path) -> None:
        class Refusing(RecordingRooms):
            async def leave(self, user_id: str, room_id: str, reason: str | None = None) -> object:
                if room_id == "!a:example.org":
                    raise MatrixError(403, "M_FORBIDDEN", "No.")
                return await super().leave(user_id, room_id)

        async with open_server(tmp_path, rooms=Refusing()) as server:
            alice = await server.user("alice")
            for room_id in ("!a:example.org", "!b:example.org"):
                await server.share_a_room(alice.user_id, room_id=room_id)
            assert (await alice.confirmed("POST", "/account/deactivate", {})).status == 200
            assert server.rooms.left == [(alice.user_id, "!b:example.org")]
            assert server.rows("SELECT leaving FROM users") == [(0,)]

    async def test_the_password_is_asked_for(self, server: TestServer) -> None:
        alice = await server.user("alice")
        answer = await alice.confirmed("POST", "/account/deactivate", {}, password="wrong")
        assert refused(answer, 401, "M_FORBIDDEN")
        assert (await alice.get("/account/whoami")).status == 200


class TestDevices:
    async def test_a_device_is_renamed(self, server: TestServer) -> None:
        alice = await server.user("alice", device_id="PHONE")
        assert (await alice.put("/devices/PHONE", {"display_name": "New name"})).json == {}
        assert (await alice.get("/devices/PHONE")).json["display_name"] == "New name"
        assert (await alice.put("/devices/PHONE", {})).status == 200
        assert (await alice.get("/devices/PHONE")).json["display_name"] == "New name"

    async def test_what_is_not_known_of_a_device_is_null(self, server: TestServer) -> None:
        alice = await server.user("alice")
        [device] = (await alice.get("/devices")).json["devices"]
        assert device.keys() == {"device_id", "display_name", "last_seen_ts", "last_seen_ip"}
        assert device["display_name"] is None
        assert (await alice.get(f"/devices/{alice.device_id}")).json == device

    async def test_the_last_use_is_shown(self, server: TestServer) -> None:
        alice = await server.user("alice", device_id="PHONE")
        device = (await alice.get("/devices/PHONE")).json
        assert device["last_seen_ip"] == "192.0.2.1"
        server.clock.step(3_600_000)
        await alice.get("/account/whoami")
        await trio.testing.wait_all_tasks_blocked()
        assert (await alice.get("/devices/PHONE")).json["last_seen_ts"] >= device["last_seen_ts"] + 3_600_000

    @pytest.mark.parametrize("device_id", ["NOTHING", "a%2Fb", "%00"])
    async def test_unknown_devices_are_not_found(self, server: TestServer, device_id: str) -> None:
        alice = await server.user("alice")
        assert refused(await alice.get(f"/devices/{device_id}"), 404, "M_NOT_FOUND")
        assert refused(await alice.put(f"/devices/{device_id}", {}), 404, "M_NOT_FOUND")

    async def test_another_users_device_is_not_found(self, server: TestServer) -> None:
        alice, _ = await server.user("alice"), await server.user("bob", device_id="BOBS")
        assert refused(await alice.get("/devices/BOBS"), 404, "M_NOT_FOUND")
        assert (await alice.confirmed("DELETE", "/devices/BOBS", {})).status == 200
        assert server.rows("SELECT user_id FROM devices WHERE device_id = 'BOBS'") == [("@bob:example.org",)]

    @pytest.mark.parametrize("name", [1, [], "x" * 300])
    async def test_bad_names_are_refused(self, server: TestServer, name: Any) -> None:
        alice = await server.user("alice", device_id="PHONE")
        assert (await alice.put("/devices/PHONE", {"display_name": name})).status == 400

    async def test_deleting_takes_a_password_and_ends_the_session(self, server: TestServer) -> None:
        alice, other = await server.user("alice"), await server.login("alice", device_id="OLD")
        assert (await alice.delete("/devices/OLD")).status == 401
        assert (await other.get("/account/whoami")).status == 200
        assert (await alice.confirmed("DELETE", "/devices/OLD", {})).json == {}
        assert refused(await other.get("/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        assert (await alice.confirmed("DELETE", "/devices/OLD", {})).json == {}

    async def test_a_confirmation_is_for_one_device(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await server.login("alice", device_id="A")
        await server.login("alice", device_id="B")
        challenge = await alice.delete("/devices/A", {})
        auth = {
            "type": "m.login.password",
            "user": "alice",
            "password": PASSWORD,
            "session": challenge.json["session"],
        }
        assert refused(await alice.delete("/devices/B", {"auth": auth}), 401, "M_UNKNOWN")

    async def test_several_are_deleted_at_once(self, server: TestServer) -> None:
        alice = await server.user("alice", device_id="MINE")
        await server.login("alice", device_id="A")
        await server.login("alice", device_id="B")
        answer = await alice.confirmed("POST", "/delete_devices", {"devices": ["A", "B", "NOTHING"]})
        assert answer.json == {}
        assert [device["device_id"] for device in (await alice.get("/devices")).json["devices"]] == ["MINE"]

    @pytest.mark.parametrize("devices", [None, "A", [1], {"A": 1}])
    async def test_malformed_lists_are_refused(self, server: TestServer, devices: Any) -> None:
        alice = await server.user("alice")
        assert refused(await alice.post("/delete_devices", {"devices": devices}), 400, "M_BAD_JSON")


class TestModeration:
    async def test_administrators_are_told_that_they_may(self, server: TestServer) -> None:
        root, alice = await admin(server), await server.user("alice")
        told = (await root.get("/capabilities")).json["capabilities"]["m.account_moderation"]
        assert told == {"suspend": True, "lock": True}
        assert "m.account_moderation" not in (await alice.get("/capabilities")).json["capabilities"]

    async def test_a_locked_user_can_only_log_out(self, server: TestServer) -> None:
        root, alice = await admin(server), await server.user("alice")
        lock = f"/_matrix/client/v1/admin/lock/{alice.user_id}"
        assert (await root.get(lock)).json == {"locked": False}
        assert (await root.put(lock, {"locked": True})).json == {"locked": True}
        answer = await alice.get("/account/whoami")
        assert refused(answer, 401, "M_USER_LOCKED")
        assert answer.json["soft_logout"] is True
        body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
        assert refused(await server.ask("POST", "/login", body), 401, "M_USER_LOCKED")
        await root.put(lock, {"locked": False})
        assert (await alice.get("/account/whoami")).status == 200
        await root.put(lock, {"locked": True})
        assert (await alice.post("/logout", {})).status == 200
        assert server.rows("SELECT * FROM devices WHERE user_id = ?", alice.user_id) == []

    async def test_a_suspended_user_reads_but_does_not_change_the_profile(self, server: TestServer) -> None:
        root, alice = await admin(server), await server.user("alice")
        suspend = f"/_matrix/client/v1/admin/suspend/{alice.user_id}"
        assert (await root.put(suspend, {"suspended": True})).json == {"suspended": True}
        assert (await root.get(suspend)).json == {"suspended": True}
        assert (await alice.get("/account/whoami")).status == 200
        answer = await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "A"})
        assert refused(answer, 403, "M_USER_SUSPENDED")

    @pytest.mark.parametrize("what", ["lock", "suspend"])
    async def test_only_administrators_moderate_and_not_each_other(
        self, server: TestServer, what: str
    ) -> None:
        root, alice = await admin(server), await server.user("alice")
        path = f"/_matrix/client/v1/admin/{what}/"
        for user in (alice.user_id, "@nobody:example.org", "@x:other.example", "rubbish"):
            assert refused(await alice.get(path + user), 403, "M_FORBIDDEN")
        body = {f"{what}ed": True}
        assert refused(await root.put(path + root.user_id, body), 403, "M_FORBIDDEN")
        assert refused(await root.get(path + "@nobody:example.org"), 404, "M_NOT_FOUND")
        assert refused(await root.get(path + "@x:other.example"), 400, "M_INVALID_PARAM")
        assert refused(await root.put(path + alice.user_id, {}), 400, "M_MISSING_PARAM")
        assert refused(await root.put(path + alice.user_id, {f"{what}ed": 1}), 400, "M_BAD_JSON")

    async def test_whois_is_for_oneself_and_administrators(self, server: TestServer) -> None:
        root, alice = await admin(server), await server.user("alice", device_id="PHONE")
        for asker in (root, alice):
            answer = (await asker.get(f"/admin/whois/{alice.user_id}")).json
            (connection,) = answer["devices"]["PHONE"]["sessions"][0]["connections"]
            assert connection["ip"] == "192.0.2.1"
        assert refused(await alice.get(f"/admin/whois/{root.user_id}"), 403, "M_FORBIDDEN")


async def test_there_are_no_third_party_ids(server: TestServer) -> None:
    alice = await server.user("alice")
    assert (await alice.get("/account/3pid")).json == {"threepids": []}
    for path in ("/account/3pid/add", "/account/3pid/delete", "/account/3pid/email/requestToken"):
        assert refused(await alice.post(path, {}), 403, "M_THREEPID_DENIED")
    assert refused(await server.ask("POST", "/register/email/requestToken", {}), 403, "M_THREEPID_DENIED")
