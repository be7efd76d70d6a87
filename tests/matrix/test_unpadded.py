# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.matrix import unpadded

SPEC_EXAMPLES = [
    (b"", ""),
    (b"f", "Zg"),
    (b"fo", "Zm8"),
    (b"foo", "Zm9v"),
    (b"foob", "Zm9vYg"),
    (b"fooba", "Zm9vYmE"),
    (b"foobar", "Zm9vYmFy"),
]


@pytest.mark.parametrize(("data", "text"), SPEC_EXAMPLES)
def test_the_examples_of_the_specification(data: bytes, text: str) -> None:
    assert unpadded.encode(data) == text
    assert unpadded.decode(text) == data


@given(st.binary())
def test_both_alphabets_padded_or_not_decode_to_the_same_bytes(data: bytes) -> None:
    standard, urlsafe = unpadded.encode(data), unpadded.encode_urlsafe(data)
    padding = "=" * (-len(standard) % 4)
    for text in (standard, urlsafe, standard + padding, urlsafe + padding):
        assert unpadded.decode(text) == data


def test_the_alphabets_differ_in_their_last_two_characters() -> None:
    assert unpadded.encode(b"\xfb\xff") == "+/8"
    assert unpadded.encode_urlsafe(b"\xfb\xff") == "-_8"


@pytest.mark.parametrize(
    "text", ["Z", "Zm9vY", "Zg===", "Zm 9v", "Zm9v\n", "Zm9v!", "Zg=Zg", "é", "Zm9v\x00"]
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpadded.decode(text)
