# SPDX-License-Identifier: Apache-2.0
"""Event JSON as it lies on disk: a tag of one byte, then zstd with a dictionary of what most events have in
common.

A PDU is short (about 1 kB) and mostly the same words as every other; what is left are the random ids, the
hash and the signature. The dictionary is part of the format: it must never change. A better one gets the next
tag. Tag 1 was deflate with the same words: nothing is written in it any more, for it took four times as long
and is no smaller.
"""

from __future__ import annotations

import threading
import zlib

import zstandard

from minihs.store.packing_words import TABLES_2, WORDS_1

_PLAIN = b"\0"
_DEFLATED_1 = b"\1"
_ZSTD_2 = b"\2"

_LEVEL = 3
_USUAL_SIZE = 1000
_WINDOW_1 = -13
"""Raw deflate, without header and checksum."""

_WORDS_2 = zstandard.ZstdCompressionDict(TABLES_2 + WORDS_1, dict_type=zstandard.DICT_TYPE_FULLDICT)


class _Tools(threading.local):
    """What packs and unpacks: each is for one thread at a time."""

    def __init__(self) -> None:
        bare = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL,
            source_size=_USUAL_SIZE,
            dict_size=len(_WORDS_2),
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_dict_id=False,
        )
        self.pack = zstandard.ZstdCompressor(dict_data=_WORDS_2, compression_params=bare).compress
        self.unpack = zstandard.ZstdDecompressor(
            dict_data=_WORDS_2, format=zstandard.FORMAT_ZSTD1_MAGICLESS
        ).decompress


_TOOLS = _Tools()


def pack(data: bytes) -> bytes:
    """The form for the disk; never more than a byte longer than `data`."""
    packed = _TOOLS.pack(data)
    return _ZSTD_2 + packed if len(packed) < len(data) else _PLAIN + data


def unpack(packed: bytes) -> bytes:
    """What `pack` was given. ValueError if it was written by a later version, or damaged."""
    tag, body = packed[:1], packed[1:]
    if tag == _ZSTD_2:
        try:
            return _TOOLS.unpack(body, allow_extra_data=False)
        except (zstandard.ZstdError, MemoryError) as error:  # (it states its size)
            raise ValueError(f"damaged: {error}") from error
    if tag == _PLAIN:
        return body
    if tag == _DEFLATED_1:
        return _inflate(body)
    raise ValueError(f"unknown packing {tag!r}")


def _inflate(body: bytes) -> bytes:
    inflate = zlib.decompressobj(_WINDOW_1, WORDS_1)
    try:
        data = inflate.decompress(body)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("damaged: cut off, or followed by something else")
    return data
