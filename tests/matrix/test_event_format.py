# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minihs.matrix import canonical
from minihs.matrix.event import Event, EventError
from minihs.matrix.event_format import MAX_OLD_REFERENCES
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from tests.matrix.events import ALICE, ALL_VERSIONS, SERVER, event_of, pdu_of, reference

V1, V5, V6, V11, V12 = (ROOM_VERSIONS[n] for n in ("1", "5", "6", "11", "12"))
STRICT = [version for version in ALL_VERSIONS if version.strict_json]
LOOSE = [version for version in ALL_VERSIONS if not version.strict_json]
NOT_STRINGS: list[Any] = [None, 5, True, 1.5, [], {}, ["x"]]


def refused(version: RoomVersion, match: str = "", **changes: Any) -> None:
    with pytest.raises(EventError, match=match):
        Event.from_wire(pdu_of(version, **changes), version)


def test_a_good_event_of_every_version_is_taken() -> None:
    for version in ALL_VERSIONS:
        event = event_of(version)
        assert event.type == "m.room.message"
        assert event.sender == ALICE
        assert event.content == {"body": "hello"}
        assert event.version is version


@pytest.mark.parametrize("thing", [None, [], "x", 5, True, b"{}"])
def test_what_is_not_an_object_is_no_event(thing: object) -> None:
    for version in ALL_VERSIONS:
        with pytest.raises(EventError, match="object"):
            Event.from_wire(thing, version)


REQUIRED = ["type", "sender", "room_id", "content", "depth", "origin_server_ts", "hashes", "signatures"]


@pytest.mark.parametrize("field", [*REQUIRED, "prev_events", "auth_events"])
def test_required_fields(field: str) -> None:
    for version in ALL_VERSIONS:
        pdu = pdu_of(version)
        del pdu[field]
        with pytest.raises(EventError, match=field):
            Event.from_wire(pdu, version)
        refused(version, field, **{field: None})
        refused(version, field, **{field: True})


class TestStrings:
    @pytest.mark.parametrize("bad", [*NOT_STRINGS, "x" * 256, "é" * 128, "\ud800"])
    def test_type_and_state_key(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "type", type=bad)
            refused(version, "state_key", state_key=bad)

    def test_255_bytes_are_allowed(self) -> None:
        for version in ALL_VERSIONS:
            for text in ("x" * 255, "é" * 127, "", "a\x00b"):
                assert event_of(version, type=text, state_key=text).key == (text, text)
            longest = "@" + "x" * (255 - len(f"@:{SERVER}")) + f":{SERVER}"
            assert event_of(version, sender=longest).sender == longest

    @pytest.mark.parametrize(
        "bad", [*NOT_STRINGS, "", "alice", "@alice", "@alice:", "@a:b_c", "@a\x00:b", "!a:b"]
    )
    def test_sender(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "sender", sender=bad)
            refused(version, "sender", sender="@" + "x" * 256 + ":b")

    def test_historical_senders_are_taken(self) -> None:
        for sender in ("@:hs.example", "@Alice B:hs.example", "@日本:hs.example"):
            for version in ALL_VERSIONS:
                assert event_of(version, sender=sender).sender == sender


class TestRoomIds:
    @pytest.mark.parametrize(
        "bad", [*NOT_STRINGS, "", "!", "room:hs", "!room", "!room:", "#a:hs", "!" + "x" * 255 + ":hs"]
    )
    def test_malformed(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "room_id", room_id=bad)

    def test_each_version_has_its_form(self) -> None:
        for version in ALL_VERSIONS:
            if version is V12:
                refused(version, "room_id", room_id="!room:hs")
                event_of(version, room_id="!" + "A-_9" * 10 + "xyz")
                for bad in ("!" + "x" * 42, "!" + "x" * 44, "!" + "x" * 42 + "+", "$" + "x" * 43):
                    refused(version, "room_id", room_id=bad)
            else:
                refused(version, "room_id", room_id="!" + "r" * 43)
                event_of(version, room_id="!:hs:1")

    def test_a_create_event_of_version_12_is_its_room(self) -> None:
        create = {"type": "m.room.create", "state_key": "", "prev_events": [], "auth_events": []}
        event = event_of(V12, **create, room_id=...)
        assert "room_id" not in event.json
        assert event.room_id == "!" + event.event_id[1:]
        refused(V12, "create event", **create)
        refused(V12, "create event", **create, room_id=None)
        refused(V11, "room_id", **create, room_id=...)

    def test_only_the_create_event_is_its_room(self) -> None:
        for state_key in (..., "x"):
            refused(V12, "room_id", type="m.room.create", state_key=state_key, room_id=...)
            # With a room id it is an event of that room, for the authorisation rules to refuse.
            assert event_of(V12, type="m.room.create", state_key=state_key).room_id == "!" + "r" * 43
        refused(V12, "room_id", type="m.room.member", state_key="", room_id=...)


class TestEventIds:
    @pytest.mark.parametrize("bad", [..., *NOT_STRINGS, "", "$", "$event", "$event:", "event:hs", "$e:h_s"])
    def test_stated_in_the_first_two_versions(self, bad: Any) -> None:
        for version in ALL_VERSIONS[:2]:
            refused(version, "event_id", event_id=bad)
            refused(version, "event_id", event_id="$" + "x" * 255 + ":hs")

    def test_kept_in_the_event_in_the_first_two_versions(self) -> None:
        for version in ALL_VERSIONS[:2]:
            event = event_of(version, event_id="$x:other")
            assert event.event_id == event.json["event_id"] == "$x:other"

    def test_not_stated_in_later_versions(self) -> None:
        for version in ALL_VERSIONS[2:]:
            right = event_of(version).event_id
            refused(version, "event_id", event_id=right)
            refused(version, "event_id", event_id=None)


class TestReferences:
    def test_no_more_than_twenty_previous_and_ten_auth_events(self) -> None:
        for version in ALL_VERSIONS:
            many = [reference(version, n) for n in range(21)]
            event = event_of(version, prev_events=many[:20], auth_events=many[:10])
            assert len(event.prev_events) == 20
            assert len(event.auth_events) == 10
            refused(version, "prev_events has more than 20", prev_events=many)
            refused(version, "auth_events has more than 10", auth_events=many[:11])

    def test_an_event_of_history_may_have_more(self) -> None:
        for version in ALL_VERSIONS:
            many = [reference(version, n) for n in range(MAX_OLD_REFERENCES + 1)]
            pdu = pdu_of(version, prev_events=many[:-1], auth_events=many[:-1])
            assert len(Event.from_wire(pdu, version, of_history=True).prev_events) == MAX_OLD_REFERENCES
            for field in ("prev_events", "auth_events"):
                with pytest.raises(EventError, match=f"{field} has more"):
                    Event.from_wire({**pdu, field: many}, version, of_history=True)

    @pytest.mark.parametrize(
        "bad", [None, 5, "x", {}, [None], [5], [[]], [{}], [""], ["x"], ["$"], ["$" + "x" * 255]]
    )
    def test_malformed(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "prev_events", prev_events=bad)
            refused(version, "auth_events", auth_events=bad)

    def test_pairs_in_the_first_two_versions(self) -> None:
        for version in ALL_VERSIONS[:2]:
            event = event_of(version, prev_events=[["$a:b", {"sha256": "x"}], ["$c:d", {}]])
            assert event.prev_events == ("$a:b", "$c:d")
            for bad in (
                "$a:b",
                ["$a:b"],
                ["$a:b", {}, {}],
                ["$a:b", "x"],
                ["$a:b", None],
                [5, {}],
                ["a:b", {}],
                {"$a:b": 1},
            ):
                refused(version, "prev_events", prev_events=[bad])

    def test_ids_in_later_versions(self) -> None:
        for version in ALL_VERSIONS[2:]:
            assert event_of(version, prev_events=["$a", "$b:c"]).prev_events == ("$a", "$b:c")
            refused(version, "prev_events", prev_events=[["$a:b", {"sha256": "x"}]])


class TestNumbers:
    @pytest.mark.parametrize("bad", [None, True, False, "5", 5.0, 1.5, -1, 2**63, 10**30, []])
    def test_depth(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "depth", depth=bad)

    def test_depth_is_clamped_where_old_rooms_may_exceed_the_limit(self) -> None:
        for version in LOOSE:
            event = event_of(version, depth=2**63 - 1)
            assert event.depth == canonical.MAX_INT
            assert event.json["depth"] == 2**63 - 1
        for version in STRICT:
            refused(version, "canonical", depth=2**53)
        for version in ALL_VERSIONS:
            assert event_of(version, depth=0).depth == 0
            assert event_of(version, depth=canonical.MAX_INT).depth == canonical.MAX_INT

    @pytest.mark.parametrize("bad", [None, True, "5", 5.0, 2**63, -(2**70), []])
    def test_time(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "origin_server_ts", origin_server_ts=bad)

    def test_time_fits_into_64_bits(self) -> None:
        for version in LOOSE:
            assert event_of(version, origin_server_ts=2**63 - 1).origin_server_ts == 2**63 - 1
        for version in ALL_VERSIONS:
            assert event_of(version, origin_server_ts=-5).origin_server_ts == -5

    @pytest.mark.parametrize("number", [1.0, 1.5, 1e300, 2**53, -(2**53), 2**64, 10**40])
    def test_numbers_in_content_are_strict_since_version_6(self, number: float) -> None:
        for where in ({"a": number}, {"a": [{"b": [number]}]}):
            for version in STRICT:
                refused(version, "canonical", content=where)
                refused(version, "canonical", unknown=where)
            for version in LOOSE:
                event = event_of(version, content=where)
                assert event.content == where
                assert event.event_id

    def test_what_no_json_can_hold_is_refused(self) -> None:
        for version in ALL_VERSIONS:
            for bad in ({"a": float("nan")}, {"a": "\ud800"}, {"\udfff": 1}, {"a": b"x"}):
                refused(version, "canonical", content=bad)


class TestObjects:
    @pytest.mark.parametrize("bad", [None, 5, True, "x", []])
    def test_content_and_signatures(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "content", content=bad)
            refused(version, "signatures", signatures=bad)

    @pytest.mark.parametrize("bad", [None, 5, "x", [], {}, {"sha256": None}, {"sha256": 5}, {"sha512": "x"}])
    def test_hashes(self, bad: Any) -> None:
        for version in ALL_VERSIONS:
            refused(version, "hashes", hashes=bad)

    def test_rubbish_among_the_signatures_is_dropped_not_the_event(self) -> None:
        good = {SERVER: {"ed25519:a": "c2ln"}}
        for version in ALL_VERSIONS:
            rubbish: dict[str, Any] = {**good, "a": None, "b": [], "c": {"k": 5, "l": "x"}}
            event = event_of(version, signatures=rubbish)
            assert event.json["signatures"] == {**good, "c": {"l": "x"}}
            assert event == event_of(version, signatures=good)
            assert event_of(version, signatures={}).json["signatures"] == {}

    @pytest.mark.parametrize("bad", [5, True, "", "alice", "@alice", [], {}])
    def test_who_authorised_a_join_must_be_a_user(self, bad: Any) -> None:
        content = {"membership": "join", "join_authorised_via_users_server": bad}
        for version in ALL_VERSIONS:
            if version.restricted_join:
                refused(version, "join_authorised", type="m.room.member", state_key=ALICE, content=content)
            else:
                event_of(version, type="m.room.member", state_key=ALICE, content=content)
            event_of(version, type="m.room.message", content=content)


class TestSize:
    def test_65536_bytes_are_allowed_and_no_more(self) -> None:
        for version in ALL_VERSIONS:
            base = len(canonical.encode(pdu_of(version, content={"body": ""})))
            pdu = pdu_of(version, content={"body": "x" * (65_536 - base)})
            assert len(canonical.encode(pdu)) == 65_536
            Event.from_wire(pdu, version)
            refused(version, "65537 bytes", content={"body": "x" * (65_537 - base)})

    def test_the_size_is_that_of_canonical_json(self) -> None:
        for version in ALL_VERSIONS:
            # 20,000 characters, 60,000 bytes; escaped as ASCII they would be 120,000.
            event_of(version, content={"body": "日" * 20_000})
            refused(version, "bytes", content={"body": "日" * 22_000})
            refused(version, "bytes", content={"body": "\x01" * 11_000})

    def test_signatures_count_and_unsigned_does_not(self) -> None:
        for version in ALL_VERSIONS:
            refused(version, "bytes", signatures={SERVER: {"ed25519:a": "x" * 66_000}})
            pdu = {**pdu_of(version), "unsigned": {"a": "x" * 66_000, "b": 1.5, "c": "\ud800"}}
            event = Event.from_wire(pdu, version)
            assert "unsigned" not in event.json
            assert event == event_of(version)

    def test_nesting_is_bounded(self) -> None:
        for version in ALL_VERSIONS:
            # The event and its content are two levels.
            event_of(version, content={"a": json.loads("[" * 98 + "]" * 98)})
            refused(version, "deep", content={"a": json.loads("[" * 99 + "]" * 99)})


def test_unknown_fields_are_kept_and_hashed() -> None:
    for version in ALL_VERSIONS:
        event = event_of(version, foo={"bar": 1}, origin="elsewhere")
        assert event.json["foo"] == {"bar": 1}
        assert event.origin == SERVER


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["$x", "@a:b", "!a:b", "\ud800"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)
FIELDS = ["type", "sender", "room_id", "content", "depth", "origin_server_ts", "hashes", "signatures"]
FIELDS += ["prev_events", "auth_events", "state_key", "event_id", "redacts", "unsigned", "membership", "foo"]


@settings(max_examples=400)
@given(st.sampled_from(ALL_VERSIONS), st.dictionaries(st.sampled_from(FIELDS), values, max_size=3))
def test_an_almost_good_event_is_taken_or_refused_and_can_be_written_again(
    version: RoomVersion, changes: dict[str, Any]
) -> None:
    pdu = {**pdu_of(version), **changes}
    before = copy.deepcopy(pdu)
    try:
        event = Event.from_wire(pdu, version)
    except EventError:
        return
    finally:
        assert repr(pdu) == repr(before)
    written = canonical.loads(canonical.dumps(event.json))
    again = Event.from_wire(written, version)
    assert again == event
    assert again.json == event.json
    assert event.redacted().json == Event.from_wire(event.redacted().json, version).json
    assert type(event.depth) is int
    assert 0 <= event.depth <= canonical.MAX_INT
