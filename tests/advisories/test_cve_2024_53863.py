# SPDX-License-Identifier: Apache-2.0
"""CVE-2024-53863: thumbnails had rare decoders opened for what strangers sent; CVE-2023-4863: one of those
that are not rare could be made to write where it should not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from minihs.testing.hostile import Reply
from tests.advisories.kit import V1, siege


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int = 30_000) -> bytes:
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side // 8 + 1) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


PICTURES = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(%pipe%id) (r) file\n",
    "TIFF": b"II*\0\x08\0\0\0" + bytes(200),
    "PSD": b"8BPS\0\1" + bytes(200),
    "BMP": b"BM" + bytes(200),
    "ICO": b"\0\0\1\0\1\0" + bytes(200),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "PDF": b"%PDF-1.4\n" + bytes(100),
    "FLI": bytes(4) + b"\x11\xaf" + bytes(200),
    "WebP whose tables lie": b"RIFF\x80\0\0\0WEBPVP8L\x70\0\0\0\x2f\xff\xff\xff\xff" + b"\xff" * 110,
    "GIF cut short": b"GIF89a\xff\xff\xff\xff\xf7\0\0",
    "bomb": bomb(),
}


@pytest.mark.parametrize("name", PICTURES)
async def test_nothing_but_four_formats_is_opened(tmp_path: Path, name: str) -> None:
    async with siege(tmp_path) as at:
        part = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: image/png\r\n\r\n"
        whole = part + PICTURES[name] + b"\r\n--b--\r\n"
        headers = [("Content-Type", "multipart/mixed; boundary=b")]
        at.peer.on("GET", f"{V1}/media/download/", Reply(body=whole, headers=headers))
        path = "/_matrix/client/v1/media/thumbnail/peer.test/m1?width=64&height=64"
        status, answer = await at.alice.ask("GET", path)
        assert status in (400, 404, 413, 502), answer
        await at.unharmed()
