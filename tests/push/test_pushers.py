# SPDX-License-Identifier: Apache-2.0
"""Notifications that are sent to a push gateway, by a whole server."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.push.kit import Json, add_pusher, new_home, pusher, read, rest


async def test_a_message_is_pushed_with_all_that_a_gateway_may_show(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room(name="Lounge", room_alias_name="lounge")
        await alice.put(f"/profile/{quote(alice.user_id)}/displayname", {"displayname": "Alice"})
        event_id = await alice.send(room_id, "hello")
        await rest()
        (sent,) = home.gateway.take()
        device = sent.pop("devices")[0]
        assert sent == {
            "event_id": event_id,
            "room_id": room_id,
            "type": "m.room.message",
            "sender": alice.user_id,
            "sender_display_name": "Alice",
            "room_name": "Lounge",
            "room_alias": "#lounge:one.test",
            "content": {"msgtype": "m.text", "body": "hello"},
            "counts": {"unread": 1},
            "prio": "high",
        }
        assert device["pushkey_ts"] * 1000 <= home.world.clock.now_ms()
        assert {name: device[name] for name in device if name != "pushkey_ts"} == {
            "app_id": "org.example.app",
            "pushkey": "key",
            "data": {"custom": 1},
            "tweaks": {"sound": "default"},
        }
        assert await bob.get("/pushers") == {"pushers": [{**pusher()}]}


async def test_a_pusher_may_want_event_ids_only(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        await add_pusher(bob, data={"url": pusher()["data"]["url"], "format": "event_id_only"})
        event_id = await alice.send(room_id, "secret")
        await rest()
        (sent,) = home.gateway.take()
        assert sent.keys() == {"event_id", "room_id", "counts", "devices", "prio"}
        assert (sent["event_id"], sent["devices"][0]["data"]) == (event_id, {"format": "event_id_only"})


async def test_messages_come_in_order_with_the_count_of_the_unread(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        other = await alice.create_room(preset="public_chat")
        await bob.join(other)
        for number in range(3):
            await alice.send(room_id, str(number))
            await rest()
        await alice.send(other, "elsewhere")
        await rest()
        sent = home.gateway.take()
        assert [each["content"]["body"] for each in sent] == ["0", "1", "2", "elsewhere"]
        assert [each["counts"]["unread"] for each in sent] == [1, 2, 3, 4]


async def test_reading_clears_the_badge(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        first = await alice.send(room_id, "one")
        second = await alice.send(room_id, "two")
        await rest()
        home.gateway.take()
        for event_id, counts in ((first, {"unread": 1}), (second, {})):
            await read(bob, room_id, event_id)
            await rest()
            (sent,) = home.gateway.take()
            assert sent["counts"] == counts
            assert "event_id" not in sent
        await read(bob, room_id, second)
        await rest()
        assert home.gateway.take() == []


async def test_what_does_not_notify_is_not_pushed(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        await bob.send(room_id, "my own")
        await alice.send_event(room_id, "m.room.message", {"msgtype": "m.notice", "body": "a bot's"})
        await alice.set_state(room_id, "m.room.topic", {"topic": "new"})
        rule = f"/pushrules/global/room/{quote(room_id, safe='')}"
        await bob.put(rule, {"actions": []})
        await alice.send(room_id, "muted")
        await rest()
        assert home.gateway.take() == []
        # What came while it was muted is not pushed later on.
        await bob.do("DELETE", rule)
        await rest()
        await alice.send(room_id, "heard again")
        await rest()
        assert home.gateway.bodies() == ["heard again"]


async def test_what_was_there_before_the_pusher_is_not_pushed(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob = await home.user("alice"), await home.user("bob")
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id)
        await alice.send(room_id, "before")
        await add_pusher(bob)
        await rest()
        assert home.gateway.bodies() == []


async def test_ignored_users_are_not_pushed(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        path = f"/user/{quote(bob.user_id, safe='')}/account_data/m.ignored_user_list"
        await bob.put(path, {"ignored_users": {alice.user_id: {}}})
        await alice.send(room_id, "hello?")
        await rest()
        assert home.gateway.take() == []


async def test_a_gateway_that_fails_gets_everything_once_it_works(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        home.gateway.status = 502
        for number in range(3):
            event_id = await alice.send(room_id, str(number))
            await rest()
            if number == 0:
                await read(bob, room_id, event_id)
        await rest(3 * 3600)
        home.gateway.status = 200
        await rest(2 * 3600)
        assert home.gateway.bodies() == ["1", "2"]
        await alice.send(room_id, "at once again")
        await rest()
        assert home.gateway.bodies() == ["at once again"]


async def test_old_messages_are_no_news(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, _, room_id = await home.two_in_a_room()
        home.world.internet.host("push.test").down()
        await alice.send(room_id, "yesterday's")
        await rest(24 * 3600)
        await alice.send(room_id, "today's")
        home.world.internet.host("push.test").up()
        await rest(2 * 3600)
        assert home.gateway.bodies() == ["today's"]


@pytest.mark.parametrize("answer", [[], "no", {"rejected": "key"}, {}])
async def test_a_strange_answer_does_no_harm(tmp_path: Path, answer: Any) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        home.gateway.answer = answer
        await alice.send(room_id, "one")
        await rest()
        home.gateway.answer = {"rejected": []}
        await rest(20)
        await alice.send(room_id, "two")
        await rest()
        assert home.gateway.bodies()[-1] == "two"
        assert len((await bob.get("/pushers"))["pushers"]) == 1


async def test_a_rejected_key_is_removed(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        await add_pusher(bob, "another")
        home.gateway.answer = {"rejected": ["key"]}
        await alice.send(room_id, "one")
        await rest()
        assert [each["pushkey"] for each in (await bob.get("/pushers"))["pushers"]] == ["another"]
        home.gateway.take()
        await alice.send(room_id, "two")
        await rest()
        assert [each["devices"][0]["pushkey"] for each in home.gateway.take()] == ["another"]


async def test_pushing_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        await alice.send(room_id, "one")
        await rest()
        assert home.gateway.bodies() == ["one"]
        home.world.internet.host("push.test").down()
        last = await alice.send(room_id, "two")
        await home.world.stop("one.test")
        home.world.internet.host("push.test").up()
        await home.world.start("one.test")
        await rest(60)
        assert home.gateway.bodies() == ["two"]
        await read(bob, room_id, last)
        await rest()
        (sent,) = home.gateway.take()
        assert sent["counts"] == {}


async def test_a_pusher_ends_with_its_device_or_when_its_client_says_so(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        await bob.post("/pushers/set", {"kind": None, "app_id": "org.example.app", "pushkey": "key"})
        assert await bob.get("/pushers") == {"pushers": []}
        await alice.send(room_id, "one")
        await rest()
        assert home.gateway.take() == []
        await add_pusher(bob)
        await bob.post("/logout")
        await alice.send(room_id, "two")
        await rest()
        assert home.gateway.take() == []


async def test_a_key_belongs_to_one_user_unless_said_otherwise(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, _ = await home.two_in_a_room()
        await add_pusher(alice, append=True)
        assert len((await bob.get("/pushers"))["pushers"]) == 1
        await add_pusher(alice)
        assert await bob.get("/pushers") == {"pushers": []}
        assert len((await alice.get("/pushers"))["pushers"]) == 1


async def test_a_slow_gateway_holds_up_nobody_else(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, room_id = await home.two_in_a_room()
        await add_pusher(bob, "elsewhere", data={"url": "https://nowhere.test/_matrix/push/v1/notify"})
        await alice.send(room_id, "one")
        await rest()
        assert home.gateway.bodies() == ["one"]


async def test_without_tls_only_allowed_private_networks_are_told(tmp_path: Path) -> None:
    plain = {"url": "http://push.test/_matrix/push/v1/notify"}
    async with new_home(tmp_path / "a") as home:
        alice, bob, room_id = await home.two_in_a_room()
        await add_pusher(bob, data=plain)
        await alice.send(room_id, "one")
        await rest()
        assert home.gateway.take() == []
    async with new_home(tmp_path / "b") as home:
        home.world.internet.dns.addresses["push.test"] = []
        address = "10.1.2.3"
        host = home.world.internet.host("push.lan", address=address)
        host.listen(80, home.gateway.handle, tls=False)
        await home.world.add(
            "two.test",
            federation={
                "allow_networks": ["10.0.0.0/8"],
                "ca_file": home.world.internet.write_ca_file(tmp_path),
            },
        )
        alice, bob = await home.user("alice", "two.test"), await home.user("bob", "two.test")
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id)
        await add_pusher(bob, data={"url": "http://push.lan/_matrix/push/v1/notify"})
        await alice.send(room_id, "one")
        await rest()
        assert home.gateway.bodies() == ["one"]


async def test_an_invite_is_pushed_unless_it_is_from_a_stranger(tmp_path: Path) -> None:
    async with new_home(tmp_path, "one.test", "two.test") as home:
        alice, bob, room_id = await home.two_in_a_room()
        stranger = await home.user("stranger", "two.test")
        strange = await stranger.create_room(name="You have won")
        await stranger.invite(strange, bob.user_id)
        await rest()
        assert home.gateway.take() == []
        assert strange in (await bob.sync())["rooms"]["invite"]
        await stranger.join(room_id, "one.test")
        home.gateway.take()
        known = await stranger.create_room(name="Party")
        await stranger.invite(known, bob.user_id)
        private = await alice.create_room(name="At home")
        await alice.invite(private, bob.user_id)
        await rest()
        sent = home.gateway.take()
        assert [(each["room_name"], each["user_is_target"]) for each in sent] == [
            ("Party", True),
            ("At home", True),
        ]
        assert sent[0]["content"]["membership"] == "invite"


async def test_blocked_invites_are_not_pushed(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        alice, bob, _ = await home.two_in_a_room()
        private = await alice.create_room()
        home.gateway.status = 500
        await alice.invite(private, bob.user_id)
        await rest(0.5)  # the first attempt has failed
        path = f"/user/{quote(bob.user_id, safe='')}/account_data/m.invite_permission_config"
        await bob.put(path, {"default_action": "block"})
        home.gateway.status = 200
        await rest(60)
        assert home.gateway.take() == []


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"app_id": None}, "M_MISSING_PARAM"),
        ({"pushkey": 1}, "M_BAD_JSON"),
        ({"pushkey": "x" * 513}, "M_INVALID_PARAM"),
        ({"app_id": "x" * 65}, "M_INVALID_PARAM"),
        ({"kind": "email"}, "M_INVALID_PARAM"),
        ({"kind": 1}, "M_BAD_JSON"),
        ({"lang": None}, "M_MISSING_PARAM"),
        ({"app_display_name": []}, "M_BAD_JSON"),
        ({"device_display_name": None}, "M_MISSING_PARAM"),
        ({"profile_tag": 1}, "M_BAD_JSON"),
        ({"append": "yes"}, "M_BAD_JSON"),
        ({"data": None}, "M_MISSING_PARAM"),
        ({"data": {}}, "M_MISSING_PARAM"),
        ({"data": {"url": 1}}, "M_BAD_JSON"),
        ({"data": {"url": "https://push.test/other"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "ftp://push.test/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "https://[/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": pusher()["data"]["url"], "x": "y" * 20_000}}, "M_BAD_JSON"),
    ],
)
async def test_a_bad_pusher_is_refused(tmp_path: Path, change: Json, errcode: str) -> None:
    async with new_home(tmp_path) as home:
        bob = await home.user("bob")
        status, answer = await bob.ask("POST", "/pushers/set", {**pusher(), **change})
        assert (status, answer["errcode"]) == (400, errcode)
        assert await bob.get("/pushers") == {"pushers": []}


async def test_the_kind_of_a_pusher_must_be_said(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        bob = await home.user("bob")
        body = {name: value for name, value in pusher().items() if name != "kind"}
        status, answer = await bob.ask("POST", "/pushers/set", body)
        assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")


async def test_a_user_has_a_bounded_number_of_pushers(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        bob = await home.user("bob")
        for number in range(32):
            await add_pusher(bob, str(number))
        keys = [each["pushkey"] for each in (await bob.get("/pushers"))["pushers"]]
        assert keys == [str(number) for number in range(2, 32)]


async def test_pushers_can_be_tried(tmp_path: Path) -> None:
    async with new_home(tmp_path) as home:
        _, bob, _ = await home.two_in_a_room()
        pushers = home.world["one.test"].server.services.pushers
        assert await pushers.test(bob.user_id) == {"org.example.app": "accepts"}
        home.gateway.answer = {"rejected": ["key"]}
        assert await pushers.test(bob.user_id) == {"org.example.app": "rejects the key"}
        home.gateway.status = 500
        assert "500" in (await pushers.test(bob.user_id))["org.example.app"]
        assert await pushers.test("@nobody:one.test") == {}
