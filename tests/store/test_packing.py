# SPDX-License-Identifier: Apache-2.0
"""The packed form of event JSON."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.store.packing import pack, unpack
from minihs.store.packing_words import WORDS_1

EVENT = (
    b'{"auth_events":["$Wl1yC0ZYYjAWDLFVIZOFwNO5tZmmpn7HmAD7xyeXYzA",'
    b'"$0rA0gwwUzbOZT2qyBYv1mCcnUQnGhW4Rf7kkMKZfbOM"],"content":{"body":"See you at the station",'
    b'"m.mentions":{},"msgtype":"m.text"},"depth":4711,"hashes":{"sha256":'
    b'"IGs2TNmkUDrxnHRnIRyFUqNxnUhYGy8ZTLRCIuMpOOk"},"origin_server_ts":1763883000000,"prev_events":'
    b'["$CQtYnBCkQaN5mXB8FLBQ9BWRcmhhJOtL4KnyIXhjKtE"],"room_id":"!mUkUqZvCLSRbGlqhRX:example.org","sender":'
    b'"@alice:example.org","signatures":{"example.org":{"ed25519:a_1":"YhGZoYnDCRbkmvVmBnqPcWqTVwSkhcRvGnSRVJ0rQ5V'
    b'wTTkXyWrOqSyH9QzYtCSEr9b8kZ4xW1vhMIyrS0gXCQ"}},"type":"m.room.message"}'
)


@given(st.binary(max_size=3000))
def test_what_is_packed_comes_back(data: bytes) -> None:
    assert unpack(pack(data)) == data
    assert len(pack(data)) <= len(data) + 1


def test_a_message_takes_half_of_its_size() -> None:
    assert len(pack(EVENT)) < 0.55 * len(EVENT)
    assert unpack(pack(EVENT)) == EVENT


def test_the_largest_event_comes_back() -> None:
    data = EVENT + b"x" * 65_536 + EVENT
    assert unpack(pack(data)) == data


def test_the_dictionary_of_the_first_format_never_changes() -> None:
    """Databases were written with it; a better one gets the next tag."""
    assert (
        hashlib.sha256(WORDS_1).hexdigest()
        == "482eaf2c93e36061e7fd1aa26a8c3cf3d12f16007af2e67ae9708dd48f787019"
    )


@pytest.mark.parametrize(
    "damage", [b"", b"\x07abc", pack(EVENT)[:-3], pack(EVENT) + b"x", b"\x01\xff\xff\xff"]
)
def test_damage_is_an_error_and_not_another_event(damage: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(damage)
