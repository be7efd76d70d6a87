# SPDX-License-Identifier: Apache-2.0
"""Account data, tags, filters, push rules: what clients keep on the server."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from minihs.matrix.push_rules import predefined
from minihs.store import account_data
from minihs.store.filters import MAX_FILTERS

from .kit import TestServer, refused

ROOM = "!room:example.org"


class TestAccountData:
    @pytest.mark.parametrize("place", ["", f"/rooms/{ROOM}"])
    async def test_it_is_kept_and_read_back(self, server: TestServer, place: str) -> None:
        alice = await server.user("alice")
        path = f"{alice.path}{place}/account_data/org.example.settings"
        assert refused(await alice.get(path), 404, "M_NOT_FOUND")
        for content in ({"a": [1, "x", None, 1.5]}, {}):
            assert (await alice.put(path, content)).json == {}
            assert (await alice.get(path)).json == content

    async def test_global_and_room_data_are_apart(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await alice.put(f"{alice.path}/account_data/x", {"global": True})
        assert refused(await alice.get(f"{alice.path}/rooms/{ROOM}/account_data/x"), 404, "M_NOT_FOUND")

    async def test_a_change_gets_a_position_and_wakes_the_user(self, server: TestServer) -> None:
        alice = await server.user("alice")
        woken: list[frozenset[str]] = []
        server.db.on_commit(woken.append)
        before = server.pos()
        await alice.put(f"{alice.path}/account_data/a", {"n": 1})
        await alice.put(f"{alice.path}/rooms/{ROOM}/account_data/b", {"n": 2})
        changed = account_data.changed(server.db.read, alice.user_id, before, server.pos())
        assert changed == [("", "a", {"n": 1}), (ROOM, "b", {"n": 2})]
        assert [f"user:{alice.user_id}" in keys for keys in woken] == [True, True]

    async def test_types_and_rooms_may_need_escaping(self, server: TestServer) -> None:
        alice = await server.user("alice")
        kind, room = quote("a/b %ü", safe=""), quote("!r/x:example.org", safe="")
        path = f"{alice.path}/rooms/{room}/account_data/{kind}"
        await alice.put(path, {"x": 1})
        assert (await alice.get(path)).json == {"x": 1}
        assert server.rows("SELECT room_id, type FROM account_data") == [("!r/x:example.org", "a/b %ü")]

    @pytest.mark.parametrize("place", ["", f"/rooms/{ROOM}"])
    @pytest.mark.parametrize("kind", ["m.fully_read", "m.push_rules"])
    async def test_what_the_server_manages_can_not_be_set(
        self, server: TestServer, place: str, kind: str
    ) -> None:
        alice = await server.user("alice")
        assert refused(await alice.put(f"{alice.path}{place}/account_data/{kind}", {}), 405, "M_BAD_JSON")

    async def test_push_rules_can_be_read_as_account_data(self, server: TestServer) -> None:
        alice = await server.user("alice")
        content = (await alice.get(f"{alice.path}/account_data/m.push_rules")).json
        assert content == {"global": predefined(alice.user_id)}

    async def test_other_users_data_are_forbidden(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        await bob.put(f"{bob.path}/account_data/x", {})
        for path in (f"{bob.path}/account_data/x", f"{bob.path}/rooms/{ROOM}/account_data/x"):
            assert refused(await alice.get(path), 403, "M_FORBIDDEN")
            assert refused(await alice.put(path, {}), 403, "M_FORBIDDEN")

    @pytest.mark.parametrize(
        ("place", "body", "status", "errcode"),
        [
            ("/account_data/x", [], 400, "M_BAD_JSON"),
            ("/account_data/x", b"x", 400, "M_NOT_JSON"),
            ("/account_data/x", b"", 400, "M_NOT_JSON"),
            ("/account_data/" + "x" * 300, {}, 400, "M_INVALID_PARAM"),
            ("/account_data/%00", {}, 400, "M_INVALID_PARAM"),
            ("/account_data/x", {"x": "y" * 300_000}, 413, "M_TOO_LARGE"),
            ("/rooms/rubbish/account_data/x", {}, 400, "M_INVALID_PARAM"),
            ("/rooms/@a:example.org/account_data/x", {}, 400, "M_INVALID_PARAM"),
        ],
    )
    async def test_bad_requests_are_refused(
        self, server: TestServer, place: str, body: Any, status: int, errcode: str
    ) -> None:
        alice = await server.user("alice")
        assert refused(await alice.put(alice.path + place, body), status, errcode)

    async def test_ignored_users_are_read_whatever_the_client_wrote(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = f"{alice.path}/account_data/m.ignored_user_list"
        for content, expected in [
            ({"ignored_users": {"@spam:x.org": {}}}, {"@spam:x.org"}),
            ({"ignored_users": ["@spam:x.org"]}, set()),
            ({}, set()),
        ]:
            await alice.put(path, content)
            assert account_data.ignored_users(server.db.read, alice.user_id) == expected


class TestTags:
    async def test_tags_are_set_listed_removed_and_synced(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = f"{alice.path}/rooms/{ROOM}/tags"
        assert (await alice.get(path)).json == {"tags": {}}
        assert (await alice.put(f"{path}/m.favourite", {"order": 0.25})).json == {}
        assert (await alice.put(f"{path}/u.Work", b"")).json == {}
        tags = {"tags": {"m.favourite": {"order": 0.25}, "u.Work": {}}}
        assert (await alice.get(path)).json == tags
        assert account_data.get(server.db.read, alice.user_id, "m.tag", ROOM) == tags
        assert (await alice.delete(f"{path}/m.favourite")).json == {}
        assert (await alice.delete(f"{path}/m.favourite")).json == {}
        assert (await alice.get(path)).json == {"tags": {"u.Work": {}}}

    @pytest.mark.parametrize(
        ("tag", "body"),
        [
            ("x" * 256, {}),
            ("x", {"order": "first"}),
            ("x", {"order": True}),
            ("x", []),
            ("x", {"y": "z" * 2000}),
        ],
    )
    async def test_bad_tags_are_refused(self, server: TestServer, tag: str, body: Any) -> None:
        alice = await server.user("alice")
        answer = await alice.put(f"{alice.path}/rooms/{ROOM}/tags/{tag}", body)
        assert answer.status in (400, 413)

    async def test_other_users_tags_are_forbidden(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        path = f"{bob.path}/rooms/{ROOM}/tags"
        assert refused(await alice.get(path), 403, "M_FORBIDDEN")
        assert refused(await alice.put(f"{path}/x", {}), 403, "M_FORBIDDEN")
        assert refused(await alice.delete(f"{path}/x"), 403, "M_FORBIDDEN")

    async def test_malformed_tags_of_a_client_do_not_hurt(self, server: TestServer) -> None:
        alice = await server.user("alice")
        await alice.put(f"{alice.path}/rooms/{ROOM}/account_data/m.tag", {"tags": [1]})
        path = f"{alice.path}/rooms/{ROOM}/tags"
        assert (await alice.get(path)).json == {"tags": {}}
        assert (await alice.put(f"{path}/x", {})).status == 200


class TestFilters:
    async def test_a_filter_is_kept_and_the_same_one_keeps_its_id(self, server: TestServer) -> None:
        alice = await server.user("alice")
        filter = {"room": {"timeline": {"limit": 20}, "state": {"lazy_load_members": True}}}
        filter_id = (await alice.post(f"{alice.path}/filter", filter)).json["filter_id"]
        assert isinstance(filter_id, str)
        assert not filter_id.startswith("{")
        assert (await alice.get(f"{alice.path}/filter/{filter_id}")).json == filter
        again = await alice.post(f"{alice.path}/filter", filter)
        assert again.json == {"filter_id": filter_id}

    @pytest.mark.parametrize("filter_id", ["0", "999", "x", "-1", "1.5", "%C2%B2", "9" * 30])
    async def test_unknown_filters_are_not_found(self, server: TestServer, filter_id: str) -> None:
        alice = await server.user("alice")
        assert refused(await alice.get(f"{alice.path}/filter/{filter_id}"), 404, "M_NOT_FOUND")

    async def test_other_users_filters_are_out_of_reach(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        filter_id = (await bob.post(f"{bob.path}/filter", {})).json["filter_id"]
        assert refused(await alice.get(f"{bob.path}/filter/{filter_id}"), 403, "M_FORBIDDEN")
        assert refused(await alice.get(f"{alice.path}/filter/{filter_id}"), 404, "M_NOT_FOUND")
        assert refused(await alice.post(f"{bob.path}/filter", {}), 403, "M_FORBIDDEN")

    @pytest.mark.parametrize(
        "filter", [[], {"room": 1}, {"room": {"timeline": {"limit": "x"}}}, {"event_format": "x"},
                   {"room": {"state": {"types": "m.room.name"}}}, {"event_fields": [1]}]
    )  # fmt: skip
    async def test_malformed_filters_are_refused(self, server: TestServer, filter: Any) -> None:
        alice = await server.user("alice")
        assert refused(await alice.post(f"{alice.path}/filter", filter), 400, "M_BAD_JSON")

    async def test_the_oldest_filter_gives_way(self, server: TestServer) -> None:
        alice = await server.user("alice")
        first = (await alice.post(f"{alice.path}/filter", {"room": {"rooms": ["!0:x"]}})).json["filter_id"]
        for i in range(1, MAX_FILTERS + 1):
            await server.users.data.add_filter(
                _requester(alice), alice.user_id, {"room": {"rooms": [f"!{i}:x"]}}
            )
        assert server.rows("SELECT COUNT(*) FROM filters") == [(MAX_FILTERS,)]
        assert refused(await alice.get(f"{alice.path}/filter/{first}"), 404, "M_NOT_FOUND")


def _requester(client: Any) -> Any:
    return client.server.users.requester_for_token(client.token)


class TestPushRules:
    async def test_all_predefined_rules_are_served(self, server: TestServer) -> None:
        alice = await server.user("alice")
        expected = predefined(alice.user_id)
        for path in ("/pushrules/", "/pushrules", "/_matrix/client/r0/pushrules/"):
            assert (await alice.get(path)).json == {"global": expected}
        assert (await alice.get("/pushrules/global/")).json == expected

    async def test_a_rule_is_made_read_changed_and_removed(self, server: TestServer) -> None:
        alice = await server.user("alice")
        path = "/pushrules/global/content/nocake"
        assert refused(await alice.get(path), 404, "M_NOT_FOUND")
        assert (await alice.put(path, {"pattern": "cake*lie", "actions": ["notify"]})).json == {}
        assert (await alice.get(path)).json == {
            "rule_id": "nocake",
            "pattern": "cake*lie",
            "actions": ["notify"],
            "enabled": True,
            "default": False,
        }
        assert (await alice.put(f"{path}/enabled", {"enabled": False})).json == {}
        assert (await alice.get(f"{path}/enabled")).json == {"enabled": False}
        assert (await alice.put(f"{path}/actions", {"actions": []})).json == {}
        assert (await alice.get(f"{path}/actions")).json == {"actions": []}
        assert (await alice.delete(path)).json == {}
        assert refused(await alice.delete(path), 404, "M_NOT_FOUND")

    async def test_predefined_rules_are_switched(self, server: TestServer) -> None:
        alice, bob = await server.user("alice"), await server.user("bob")
        path = "/pushrules/global/override/.m.rule.master/enabled"
        assert (await alice.get(path)).json == {"enabled": False}
        await alice.put(path, {"enabled": True})
        assert (await alice.get(path)).json == {"enabled": True}
        assert (await bob.get(path)).json == {"enabled": False}

    async def test_a_room_rule_has_its_room_id_in_the_path(self, server: TestServer) -> None:
        alice = await server.user("alice")
        room = quote("!r:example.org", safe="")
        await alice.put(f"/pushrules/global/room/{room}", {"actions": []})
        rules = (await alice.get("/pushrules/global/")).json["room"]
        assert [rule["rule_id"] for rule in rules] == ["!r:example.org"]
        assert refused(
            await alice.put("/pushrules/global/room/%21r%2Fx", {"actions": []}), 400, "M_INVALID_PARAM"
        )

    async def test_order_by_query(self, server: TestServer) -> None:
        alice = await server.user("alice")
        for rule, query in [("a", ""), ("b", "?after=a"), ("c", "?before=b")]:
            answer = await alice.put(f"/pushrules/global/sender/{rule}{query}", {"actions": []})
            assert answer.status == 200
        rules = (await alice.get("/pushrules/global/")).json["sender"]
        assert [rule["rule_id"] for rule in rules] == ["a", "c", "b"]

    async def test_a_change_is_seen_by_sync_and_repeating_it_is_not(self, server: TestServer) -> None:
        alice = await server.user("alice")
        start = server.pos()
        path = "/pushrules/global/underride/.m.rule.message/enabled"
        await alice.put(path, {"enabled": False})
        (change,) = account_data.changed(server.db.read, alice.user_id, start, server.pos())
        assert change.type == "m.push_rules"
        assert change.content["global"]["underride"][3]["enabled"] is False
        after = server.pos()
        await alice.put(path, {"enabled": False})
        assert account_data.changed(server.db.read, alice.user_id, after, server.pos() + 1) == []

    async def test_an_initial_sync_has_the_rules_though_nothing_was_changed(self, server: TestServer) -> None:
        alice = await server.user("alice")
        (rules,) = account_data.changed(server.db.read, alice.user_id, 0, server.pos())
        assert rules == ("", "m.push_rules", {"global": predefined(alice.user_id)})

    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("PUT", "/pushrules/global/nothing/x", {"actions": []}, 400),
            ("PUT", "/pushrules/global/override/.mine", {"actions": []}, 400),
            ("PUT", "/pushrules/global/override/x", {}, 400),
            ("PUT", "/pushrules/global/override/x", {"actions": "notify"}, 400),
            ("PUT", "/pushrules/global/override/x?before=nothing", {"actions": []}, 400),
            ("PUT", "/pushrules/global/override/x/enabled", {"enabled": True}, 404),
            ("PUT", "/pushrules/global/override/.m.rule.master/enabled", {"enabled": 1}, 400),
            ("PUT", "/pushrules/global/override/.m.rule.master/enabled", {}, 400),
            ("PUT", "/pushrules/global/override/.m.rule.master/actions", {"actions": [1]}, 400),
            ("DELETE", "/pushrules/global/override/.m.rule.master", b"", 400),
            ("GET", "/pushrules/global/nothing/x", b"", 404),
            ("GET", "/pushrules/device/override/x", b"", 404),
        ],
    )
    async def test_bad_requests_are_refused(
        self, server: TestServer, method: str, path: str, body: Any, status: int
    ) -> None:
        alice = await server.user("alice")
        assert (await alice.ask(method, path, body)).status == status
