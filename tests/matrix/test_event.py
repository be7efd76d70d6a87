# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix import canonical, hashes, unpadded
from minihs.matrix.event import Event, EventError, build_event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SigningKey, verify_event_signature
from tests.matrix.events import ALICE, ALL_VERSIONS, KEY, SERVER, built, event_of, pdu_of, room_id_of, some_id

V1, V3, V10, V11, V12 = (ROOM_VERSIONS[n] for n in ("1", "3", "10", "11", "12"))


class TestReading:
    def test_the_fields_mean_the_same_in_every_version(self) -> None:
        for version in ALL_VERSIONS:
            event = event_of(version, type="m.room.topic", state_key="", content={"topic": "t"})
            assert event.room_id == room_id_of(version)
            assert event.prev_events == (some_id(version, 1),)
            assert event.auth_events == (some_id(version, 2),)
            assert (event.type, event.sender, event.origin) == ("m.room.topic", ALICE, SERVER)
            assert (event.depth, event.origin_server_ts) == (5, 1_700_000_000_000)
            assert event.is_state
            assert event.key == ("m.room.topic", "")
            assert event.membership is None
            assert event.redacts is None

    def test_what_is_signed_is_at_hand_where_the_id_was_made_of_it(self) -> None:
        for version in ALL_VERSIONS:
            pdu = {**pdu_of(version, content={"body": "hello"}), "unsigned": {"age": 1}}
            event = Event.from_wire(pdu, version)
            signed = None if version.event_format == 1 else hashes.signed_bytes(pdu, version)
            assert event.signed == signed
            assert event.redacted().signed is None
            assert event.with_signatures({"other.test": {"ed25519:1": "x"}}).signed is None

    def test_its_text_is_at_hand_where_its_size_was_taken_of_it(self) -> None:
        for version in ALL_VERSIONS:
            pdu = {**pdu_of(version, content={"body": "hello"}), "unsigned": {"age": 1}}
            event = Event.from_wire(pdu, version)
            assert event.text == (canonical.dumps(event.json) if version.strict_json else None)
            assert event.redacted().text is None
            assert event.with_signatures({"other.test": {"ed25519:1": "x"}}).text is None

    def test_a_message_has_no_key(self) -> None:
        event = event_of(V10)
        assert not event.is_state
        assert event.state_key is None
        assert event.key is None

    def test_the_pdu_is_neither_changed_nor_shared_at_the_top(self) -> None:
        pdu = {**pdu_of(V10), "unsigned": {"age": 1}}
        event = Event.from_wire(pdu, V10)
        assert pdu["unsigned"] == {"age": 1}
        assert "unsigned" not in event.json
        assert event.json is not pdu

    def test_the_origin_keeps_its_port(self) -> None:
        assert event_of(V10, sender="@a:[::1]:8448").origin == "[::1]:8448"

    @pytest.mark.parametrize(
        ("type_", "content", "membership"),
        [
            ("m.room.member", {"membership": "join"}, "join"),
            ("m.room.member", {"membership": 5}, None),
            ("m.room.member", {}, None),
            ("m.room.message", {"membership": "join"}, None),
        ],
    )
    def test_membership(self, type_: str, content: dict[str, Any], membership: str | None) -> None:
        assert event_of(V10, type=type_, state_key=ALICE, content=content).membership == membership

    def test_what_a_redaction_redacts(self) -> None:
        for version in ALL_VERSIONS:
            both = {"redacts": "$top", "content": {"redacts": "$content"}}
            redaction = event_of(version, type="m.room.redaction", **both)
            assert redaction.redacts == ("$content" if version.redacts_in_content else "$top")
            assert event_of(version, type="m.room.message", **both).redacts is None
            assert event_of(version, type="m.room.redaction").redacts is None
            bad = event_of(version, type="m.room.redaction", redacts=5, content={"redacts": ["$x"]})
            assert bad.redacts is None

    def test_the_store_is_trusted(self) -> None:
        for version in ALL_VERSIONS:
            event = event_of(version)
            stored = canonical.loads(canonical.dumps(event.json))
            again = Event.from_store(stored, version, event.event_id)
            assert again == event
            assert all(
                getattr(again, field) == getattr(event, field)
                for field in Event.__slots__
                if field not in ("signed", "text")
            )


class TestIdentity:
    def test_two_events_with_one_id_are_equal(self) -> None:
        event = event_of(V10)
        again = event.with_signatures({"other": {"k": "s"}})
        assert event == again
        assert len({event, again}) == 1
        assert event != event_of(V10, depth=6)
        assert event != event.event_id

    def test_it_can_be_printed(self) -> None:
        event = event_of(V10, type="m.room.member", state_key="@b:c")
        assert repr(event) == (
            f"<Event {event.event_id} m.room.member '@b:c' by @alice:hs.example in !room:hs.example>"
        )
        assert " m.room.message by " in repr(event_of(V10))


class TestCopies:
    def test_redacted(self) -> None:
        for version in ALL_VERSIONS:
            event = event_of(version, type="m.room.topic", state_key="", content={"topic": "t"})
            redacted = event.redacted()
            assert redacted == event
            assert redacted.content == {}
            assert redacted.key == event.key
            assert redacted.room_id == event.room_id
            assert event.content == {"topic": "t"}
            assert Event.from_wire(redacted.json, version).event_id == event.event_id

    def test_a_redacted_redaction_forgets_its_target_where_that_is_not_kept(self) -> None:
        for version in ALL_VERSIONS:
            redaction = built(version, type="m.room.redaction", redacts="$x")
            assert redaction.redacts == "$x"
            assert redaction.redacted().redacts == ("$x" if version.redacts_in_content else None)

    def test_signatures_are_merged(self) -> None:
        event = event_of(V10, signatures={"a": {"k1": "s1"}})
        signed = event.with_signatures({"a": {"k2": "s2"}, "b": {"k3": "s3"}})
        assert signed.json["signatures"] == {"a": {"k1": "s1", "k2": "s2"}, "b": {"k3": "s3"}}
        assert event.json["signatures"] == {"a": {"k1": "s1"}}


class TestBuilding:
    def test_what_we_build_is_right_in_every_version(self) -> None:
        for version in ALL_VERSIONS:
            event = built(version, type="m.room.topic", state_key="", content={"topic": "t"})
            again = Event.from_wire(canonical.loads(canonical.dumps(event.json)), version)
            assert again.event_id == event.event_id
            assert hashes.has_right_content_hash(again)
            verify_event_signature(again, SERVER, KEY.key_id, KEY.verify_key)
            assert "unsigned" not in event.json
            assert event.prev_events == (some_id(version, 1),)

    def test_a_room_can_be_begun_in_every_version(self) -> None:
        for version in ALL_VERSIONS:
            room_id = None if version is V12 else room_id_of(version)
            content = {"room_version": version.version}
            create = built(
                version,
                type="m.room.create",
                state_key="",
                room_id=room_id,
                content=content,
                depth=1,
                prev_events=[],
                auth_events=[],
            )
            assert create.room_id == (room_id or "!" + create.event_id[1:])
            member = built(
                version,
                type="m.room.member",
                state_key=ALICE,
                content={"membership": "join"},
                room_id=create.room_id,
                depth=2,
                prev_events=[create.event_id],
                auth_events=[] if version is V12 else [create.event_id],
                prev_hashes={create.event_id: unpadded.encode(hashes.reference_hash(create.json, version))},
            )
            assert member.prev_events == (create.event_id,)

    def test_the_first_two_versions_name_events_at_random_and_quote_hashes(self) -> None:
        event = built(V1)
        assert event.event_id == "$random:hs.example"
        assert event.json["prev_events"] == [[some_id(V1, 1), {"sha256": "x" * 43}]]
        with pytest.raises(ValueError, match="random_id"):
            built(V1, random_id=None)
        with pytest.raises(ValueError, match="reference hash"):
            built(V1, prev_hashes={})
        with pytest.raises(ValueError, match="reference hash"):
            built(V1, prev_hashes=None)
        assert "event_id" not in built(V3, random_id=None, prev_hashes=None).json

    def test_a_redaction_names_its_target_where_the_version_wants_it(self) -> None:
        content: dict[str, Any] = {"reason": "spam"}
        for version in ALL_VERSIONS:
            event = built(version, type="m.room.redaction", content=content, redacts="$x")
            assert event.redacts == "$x"
            assert ("redacts" in event.json) is not version.redacts_in_content
            assert ("redacts" in event.content) is version.redacts_in_content
        assert content == {"reason": "spam"}

    def test_nothing_that_another_server_would_refuse_is_built(self) -> None:
        for version in ALL_VERSIONS:
            for content in ({"a": 1.5}, {"a": 2**53}, {"a": "\ud800"}, {"a": float("nan")}):
                with pytest.raises(EventError, match="canonical"):
                    built(version, content=content)
            with pytest.raises(EventError, match="canonical"):
                built(version, origin_server_ts=2**53)
            with pytest.raises(EventError, match="bytes"):
                built(version, content={"body": "x" * 65_536})
            with pytest.raises(EventError, match="type"):
                built(version, type="x" * 256)
            with pytest.raises(EventError, match="prev_events"):
                built(version, prev_events=[some_id(version, n) for n in range(21)])
            with pytest.raises(EventError, match="room_id"):
                built(version, room_id=None)

    def test_our_depth_never_exceeds_the_limit(self) -> None:
        for version in ALL_VERSIONS:
            for depth in (2**53 - 1, 2**53, 2**63, 10**30):
                assert built(version, depth=depth).json["depth"] == 2**53 - 1

    def test_what_fits_when_signed_fits_exactly(self) -> None:
        for version in (V1, V10, V12):
            base = len(canonical.encode(built(version, content={"body": ""}).json))
            event = built(version, content={"body": "x" * (65_536 - base)})
            assert len(canonical.encode(event.json)) == 65_536
            with pytest.raises(EventError, match="65537 bytes"):
                built(version, content={"body": "x" * (65_537 - base)})

    def test_another_key_makes_another_signature_but_not_another_event(self) -> None:
        other = built(V11, key=SigningKey.generate(b"o" * 32, "a_1"))
        assert other == built(V11)
        assert other.json["signatures"] != built(V11).json["signatures"]

    def test_arguments_are_keywords_only(self) -> None:
        with pytest.raises(TypeError):
            build_event(V10)  # type: ignore[call-arg]  # that is what is tested
