# SPDX-License-Identifier: Apache-2.0
"""The packed form of event JSON."""

from __future__ import annotations

import base64
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.store.packing import pack, unpack
from minihs.store.packing_words import TABLES_2, WORDS_1

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


def test_the_dictionary_never_changes() -> None:
    """Databases were written with it; a better one gets the next tag."""
    assert (
        hashlib.sha256(WORDS_1).hexdigest()
        == "482eaf2c93e36061e7fd1aa26a8c3cf3d12f16007af2e67ae9708dd48f787019"
    )
    assert (
        hashlib.sha256(TABLES_2 + WORDS_1).hexdigest()
        == "86bc05630ce23f55987fd4ff296d7fe94989684bbc64701ffbc8f5e28a56dde3"
    )


def test_what_was_written_by_earlier_versions_comes_back() -> None:
    deflate = zlib.compressobj(3, zlib.DEFLATED, -13, 5, zlib.Z_DEFAULT_STRATEGY, WORDS_1)
    first = b"\1" + deflate.compress(EVENT) + deflate.flush()
    assert unpack(first) == EVENT
    with pytest.raises(ValueError):
        unpack(first[:-3])
    with pytest.raises(ValueError):
        unpack(first + b"x")
    second = base64.b64decode("AiAkvQAAYEhlbGxvIXRleHQifQL8yLuIAF118QQ=")
    assert unpack(second) == b'{"body":"Hello!","msgtype":"m.text"}'


def test_threads_pack_and_unpack_at_the_same_time() -> None:
    """zstd lets other threads run meanwhile, and its contexts are for one at a time."""
    several = [bytes(Random(n).choices(EVENT, k=300_000)) for n in range(8)]

    def there_and_back(data: bytes) -> bool:
        return all(unpack(pack(data)) == data for _ in range(3))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(there_and_back, several))


@pytest.mark.parametrize(
    "damage", [b"", b"\x07abc", pack(EVENT)[:-3], pack(EVENT) + b"x", b"\x01\xff\xff\xff", b"\x02\xff"]
)
def test_damage_is_an_error_and_not_another_event(damage: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(damage)
