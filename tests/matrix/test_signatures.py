# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix import hashes, unpadded
from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import (
    SignatureError,
    SigningKey,
    servers_that_must_sign,
    sign_event,
    sign_json,
    signature_of,
    verify_event_signature,
    verify_json,
)
from tests.matrix.events import ALICE, ALL_VERSIONS, KEY, SERVER, built, event_of

# appendices, "Cryptographic Test Vectors"
SEED = unpadded.decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
SPEC_KEY = SigningKey.generate(SEED, "1")


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        (
            {},
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
        ),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_the_json_signing_vectors_of_the_appendices(value: dict[str, Any], signature: str) -> None:
    signed = sign_json(value, "domain", SPEC_KEY)
    assert signed == {**value, "signatures": {"domain": {"ed25519:1": signature}}}
    verify_json(signed, "domain", "ed25519:1", SPEC_KEY.verify_key)


@pytest.mark.parametrize(
    ("event", "content_hash", "signature"),
    [
        (
            {
                "room_id": "!x:domain",
                "sender": "@a:domain",
                "origin": "domain",
                "origin_server_ts": 1000000,
                "signatures": {},
                "hashes": {},
                "type": "X",
                "content": {},
                "prev_events": [],
                "auth_events": [],
                "depth": 3,
                "unsigned": {"age_ts": 1000000},
            },
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            {
                "content": {"body": "Here is the message content"},
                "event_id": "$0:domain",
                "origin": "domain",
                "origin_server_ts": 1000000,
                "type": "m.room.message",
                "room_id": "!r:domain",
                "sender": "@u:domain",
                "signatures": {},
                "unsigned": {"age_ts": 1000000},
            },
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ],
)
def test_the_event_signing_vectors_of_the_appendices(
    event: dict[str, Any], content_hash: str, signature: str
) -> None:
    for version in ALL_VERSIONS:
        signed = sign_event(hashes.with_content_hash(event), version, "domain", SPEC_KEY)
        assert signed["hashes"] == {"sha256": content_hash}
        # The vectors hold a top-level `origin`, which redaction drops since room version 11.
        holds = version.redaction != "v11"
        assert (signed["signatures"] == {"domain": {"ed25519:1": signature}}) is holds


def test_the_example_of_signing_details_does_not_verify_whatever_it_was_made_with() -> None:
    signature = "s76RUgajp8w172am0zQb/iPTHsRnb4SkrzGoeCOSFfcBY2V/1c8QfrmdXHpvnc2jK5BD1WiJIxiMW95fMjK7Bw"
    example = {
        "name": "example.org",
        "signing_keys": {"ed25519:1": "XSl0kuyvrXNj6A+7/tkrB9sxSbRi08Of5uRhxOqZtEQ"},
        "unsigned": {"age_ts": 922834800000},
        "signatures": {"example.org": {"ed25519:1": signature}},
    }
    key = unpadded.decode("XSl0kuyvrXNj6A+7/tkrB9sxSbRi08Of5uRhxOqZtEQ")
    with pytest.raises(SignatureError):
        verify_json(example, "example.org", "ed25519:1", key)


class TestKeys:
    def test_a_key_survives_its_file(self) -> None:
        assert KEY.to_text() == f"ed25519 a_1 {unpadded.encode(b'k' * 32)}\n"
        again = SigningKey.from_text(KEY.to_text())
        assert again.key_id == KEY.key_id == "ed25519:a_1"
        assert again.verify_key_base64 == KEY.verify_key_base64
        assert again.sign(b"x") == KEY.sign(b"x")

    def test_the_first_line_with_a_key_counts(self) -> None:
        text = f"\n  ed25519\ta_2 {unpadded.encode(b'z' * 32)}=  \r\nrubbish"
        assert SigningKey.from_text(text).key_id == "ed25519:a_2"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n",
            "ed25519 a_1",
            "ed25519 a_1 !!",
            "ed25519 a_1 eA",
            f"rsa a_1 {'A' * 43}",
            f"ed25519 a:1 {'A' * 43}",
            f"ed25519 a_1 {'A' * 43} more",
        ],
    )
    def test_other_files_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r".+"):
            SigningKey.from_text(text)

    def test_the_printed_form_does_not_give_the_key_away(self) -> None:
        assert repr(KEY) == "<SigningKey ed25519:a_1>"

    def test_the_published_half_is_unpadded_base64(self) -> None:
        assert unpadded.decode(KEY.verify_key_base64) == KEY.verify_key
        assert len(KEY.verify_key) == 32


class TestJson:
    def test_a_signature_is_added_to_those_that_are_there(self) -> None:
        value = {"a": 1, "unsigned": {"b": 2}, "signatures": {"other": {"k": "s"}, SERVER: {"old": "s"}}}
        signed = sign_json(value, SERVER, KEY)
        assert signed["unsigned"] == {"b": 2}
        assert signed["signatures"]["other"] == {"k": "s"}
        assert set(signed["signatures"][SERVER]) == {"old", KEY.key_id}
        assert value["signatures"] == {"other": {"k": "s"}, SERVER: {"old": "s"}}
        verify_json(signed, SERVER, KEY.key_id, KEY.verify_key)
        verify_json({**signed, "unsigned": "other"}, SERVER, KEY.key_id, KEY.verify_key)

    def test_what_was_changed_does_not_verify(self) -> None:
        signed = sign_json({"a": 1}, SERVER, KEY)
        for changed in ({**signed, "a": 2}, {**signed, "b": 1}, {"signatures": signed["signatures"]}):
            with pytest.raises(SignatureError):
                verify_json(changed, SERVER, KEY.key_id, KEY.verify_key)
        with pytest.raises(SignatureError):
            verify_json(signed, SERVER, KEY.key_id, SPEC_KEY.verify_key)

    @pytest.mark.parametrize(
        "signatures",
        [
            ...,
            None,
            [],
            "x",
            {},
            {SERVER: None},
            {SERVER: []},
            {SERVER: {}},
            {SERVER: {"ed25519:a_1": None}},
            {SERVER: {"ed25519:a_1": 5}},
            {SERVER: {"ed25519:a_1": "!"}},
            {SERVER: {"ed25519:a_1": ""}},
            {SERVER: {"ed25519:a_1": "eA"}},
            {SERVER: {"ed25519:a_1": "A" * 86}},
            {"other": {"ed25519:a_1": "A" * 86}},
        ],
    )
    def test_missing_and_malformed_signatures_are_errors_of_one_kind(self, signatures: Any) -> None:
        value = {"a": 1} if signatures is ... else {"a": 1, "signatures": signatures}
        with pytest.raises(SignatureError):
            verify_json(value, SERVER, KEY.key_id, KEY.verify_key)

    @pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33, b"\x00" * 32])
    def test_a_bad_key_verifies_nothing(self, key: bytes) -> None:
        with pytest.raises(SignatureError):
            verify_json(sign_json({}, SERVER, KEY), SERVER, KEY.key_id, key)

    def test_what_has_no_canonical_form_does_not_verify(self) -> None:
        signed = {**sign_json({}, SERVER, KEY), "a": "\ud800"}
        with pytest.raises(SignatureError, match="canonical"):
            verify_json(signed, SERVER, KEY.key_id, KEY.verify_key)

    def test_the_signature_can_be_had_by_itself(self) -> None:
        assert len(signature_of(sign_json({}, SERVER, KEY), SERVER, KEY.key_id)) == 64


class TestEvents:
    @pytest.mark.parametrize("change", [{"depth": 6}, {"sender": "@b:c"}, {"state_key": "x"}, {"hashes": {}}])
    def test_a_signature_holds_for_the_event_and_its_redacted_form_and_nothing_else(
        self, change: dict[str, Any]
    ) -> None:
        for version in ALL_VERSIONS:
            event = built(version, type="m.room.topic", state_key="", content={"topic": "t"})
            for same in (event, event.redacted(), Event.from_wire(event.redacted().json, version)):
                verify_event_signature(same, SERVER, KEY.key_id, KEY.verify_key)
            changed = Event.from_store({**event.json, **change}, version, event.event_id)
            with pytest.raises(SignatureError):
                verify_event_signature(changed, SERVER, KEY.key_id, KEY.verify_key)
            with pytest.raises(SignatureError):
                verify_event_signature(event, "other", KEY.key_id, KEY.verify_key)


class TestWhoMustSign:
    def test_the_server_of_the_sender(self) -> None:
        for version in ALL_VERSIONS:
            assert servers_that_must_sign(event_of(version)) == {SERVER}

    def test_also_the_server_of_the_event_id_in_the_first_two_versions(self) -> None:
        for number in ("1", "2"):
            event = event_of(ROOM_VERSIONS[number], event_id="$x:other.example:1")
            assert servers_that_must_sign(event) == {SERVER, "other.example:1"}

    def test_not_the_server_of_the_sender_if_a_third_party_invite_is_redeemed(self) -> None:
        content = {"membership": "invite", "third_party_invite": {"signed": {}}}
        for version in ALL_VERSIONS:
            event = event_of(version, type="m.room.member", state_key="@b:c", content=content)
            assert servers_that_must_sign(event) == ({SERVER} if version.event_format == 1 else set())
            joined = {**content, "membership": "join"}
            event = event_of(version, type="m.room.member", state_key=ALICE, content=joined)
            assert servers_that_must_sign(event) == {SERVER}
            event = event_of(version, type="m.room.message", content=content)
            assert servers_that_must_sign(event) == {SERVER}

    @pytest.mark.parametrize("membership", ["join", "leave"])
    def test_also_the_server_of_the_user_who_authorised_a_join(self, membership: str) -> None:
        content = {"membership": membership, "join_authorised_via_users_server": "@m:resident.example"}
        for version in ALL_VERSIONS:
            event = event_of(version, type="m.room.member", state_key=ALICE, content=content)
            expected = {SERVER, "resident.example"} if version.restricted_join else {SERVER}
            assert servers_that_must_sign(event) == expected
            assert servers_that_must_sign(event_of(version, content=content)) == {SERVER}
