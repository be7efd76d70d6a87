# SPDX-License-Identifier: Apache-2.0
"""Sending out files (client-server-api, "Content repository"): so that no browser takes them for a page of
this server, in bounded memory, with ranges and conditions (RFC 9110, 13 and 14).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from werkzeug.datastructures import Headers

from minihs.media import names
from minihs.media.multipart import Frame
from minihs.media.service import Download
from minihs.web.routing import Answer, Call

SAFETY_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
        "style-src 'unsafe-inline'; object-src 'self';"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
}
KEEP = "private, max-age=31536000, immutable"
"""Media never change under their address; only the one who was allowed to see them may keep them."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def send_file(call: Call, download: Download, *, filename: str | None = None) -> Answer:
    """The answer to a client. `filename` replaces the file's own."""
    name = names.filename(filename) if filename is not None else download.filename
    media_type = names.served_type(download.content_type)
    size = download.file.size
    headers = {
        **SAFETY_HEADERS,
        "Content-Type": media_type,
        "Content-Disposition": names.disposition_for(media_type, name),
        "Cache-Control": KEEP,
        "ETag": etag(download),
        "Accept-Ranges": "bytes",
    }
    if is_known(call.headers, headers["ETag"]):
        return Answer(304, body=nothing(), headers=headers)
    part = wanted_range(call.headers, size, headers["ETag"])
    if part is None:
        start, end, status = 0, size, 200
    elif part[0] >= part[1]:
        return Answer(416, body=b"", headers={**SAFETY_HEADERS, "Content-Range": f"bytes */{size}"})
    else:
        (start, end), status = part, 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    body = nothing() if call.method == "HEAD" else download.file.stream(start, end)
    return Answer(status, body=body, headers=headers)


def send_to_server(download: Download, boundary: str) -> Answer:
    """The answer to another server: multipart, the part about the media first."""
    frame = Frame(
        boundary,
        {
            "Content-Type": download.content_type,
            "Content-Disposition": names.disposition_for(download.content_type, download.filename),
        },
    )
    headers = {
        "Content-Type": frame.content_type,
        "Content-Length": str(frame.size + download.file.size),
    }
    return Answer(200, body=framed(frame, download), headers=headers)


async def framed(frame: Frame, download: Download) -> AsyncIterator[bytes]:
    yield frame.before
    async for chunk in download.file.stream():
        yield chunk
    yield frame.after


async def nothing() -> AsyncIterator[bytes]:
    """A body that leaves the headers about its length as they are."""
    return
    yield b""


def etag(download: Download) -> str:
    return f'"{download.sha256.hex()[:32]}"'


def is_known(headers: Headers, tag: str) -> bool:
    known = headers.get("If-None-Match")
    if known is None:
        return False
    return known.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(","))


def wanted_range(headers: Headers, size: int, tag: str) -> tuple[int, int] | None:
    """The one range that is asked for, as (start, end); start ≥ end if there is nothing of it. None: all.

    Several ranges at once are answered with all, as a server may.
    """
    match = _RANGE.fullmatch(headers.get("Range", "").strip())
    if match is None or headers.get("If-Range", tag) != tag:
        return None
    first, last = match.groups()
    if first:
        end = min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None  # not a range at all
        return int(first), end
    if last:
        return (max(0, size - int(last)), size) if int(last) else (size, size)
    return None
