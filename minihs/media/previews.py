# SPDX-License-Identifier: Apache-2.0
"""Previews of links (client-server-api, "GET /media/preview_url"). Off unless configured.

The server asks for an address that a client names, so: only through the dialler that refuses private
addresses, at each redirect; ten seconds for all of it; the type of the answer is looked at before its body,
of which a megabyte is read; the page is scanned, not parsed; pictures are stored as media of this server,
which go again after a week.
"""

from __future__ import annotations

from contextlib import aclosing
from urllib.parse import urljoin

import trio

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, invalid_param
from minihs.matrix.federation_errors import FederationError
from minihs.media import html_scan, names
from minihs.media.bounds import FailureMemory
from minihs.media.files import TooLong
from minihs.media.ports import Incoming, Web
from minihs.media.shared import SharedJobs
from minihs.media.shrinker import HEAD_BYTES, PICTURE_TYPES, picture_format
from minihs.media.uploads import Uploads
from minihs.runtime import Runtime
from minihs.store import media as store
from minihs.store.database import Database

SECONDS = 10.0
"""For everything: look-ups, redirects, page and picture."""
MAX_REDIRECTS = 5
MAX_PAGE = 1024 * 1024
"""Bytes of a page that are read."""
MAX_URL = 2048
AT_ONCE = 4

KEPT_MS = 3600_000
"""How long an answer is given again."""
PICTURE_KEPT_MS = 7 * 24 * 3600_000
"""How long its picture stays; clients keep answers for a while."""
REMEMBER_FAILED = 300.0

PAGES = ("text/html", "application/xhtml+xml")
WANTED = (
    "og:title", "og:description", "og:site_name", "og:type", "og:url", "og:locale",
    "og:image:alt", "og:image:width", "og:image:height",
)  # fmt: skip
"""Properties that are handed on as they are."""
PICTURES = ("og:image:secure_url", "og:image", "og:image:url", "twitter:image", "twitter:image:src")


class Previews:
    def __init__(
        self, db: Database, runtime: Runtime, web: Web, uploads: Uploads, jobs: SharedJobs, server_name: str
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._web = web
        self._uploads = uploads
        self._jobs = jobs
        self._server_name = server_name
        self._slots = trio.Semaphore(AT_ONCE)
        self._failures = FailureMemory()

    async def get(self, url: str) -> JsonObject:
        """What a page says about itself. {} if that is nothing; MatrixError if it can't be had."""
        url = url.partition("#")[0]
        if not url.lower().startswith(("http://", "https://")) or len(url) > MAX_URL:
            raise invalid_param("url must be an http or https address.")
        kept = store.preview(self._db.read, url, self._runtime.clock.now_ms())
        if kept is not None:
            answer: JsonObject = canonical.loads(kept.encode())
            return answer
        self._failures.check(url)
        return await self._jobs.result(("preview", url), lambda: self._make(url))

    async def _make(self, url: str) -> JsonObject:
        answer: JsonObject | None = None
        try:
            async with self._slots:
                with trio.move_on_after(SECONDS):
                    answer = await self._look(url)
            if answer is None:
                raise MatrixError(502, "M_UNKNOWN", "The page did not come in time.")
        except FederationError as error:
            refusal = MatrixError(502, "M_UNKNOWN", f"The page could not be fetched: {error.message}"[:300])
            raise self._failures.remember(url, refusal, REMEMBER_FAILED) from error
        except MatrixError as error:
            self._failures.remember(url, error, REMEMBER_FAILED)
            raise
        text = canonical.dumps(answer).decode()
        expires_ms = self._runtime.clock.now_ms() + KEPT_MS
        await self._db.write(lambda tx: store.add_preview(tx, url, text, expires_ms))
        return answer

    async def _look(self, url: str) -> JsonObject:
        async with self._web.get(
            url, accept="text/html,image/*;q=0.8", within=SECONDS, max_redirects=MAX_REDIRECTS
        ) as answer:
            kind = names.essence(answer.headers.get("content-type", ""))
            if kind.startswith("image/"):
                return await self._picture_of(answer)
            if kind not in PAGES:
                return {}
            data = await read_up_to(answer, MAX_PAGE)
            charset = names.parameters_of(answer.headers.get("content-type", "")).get("charset")
            base = answer.url
        page = await self._runtime.threads.run(lambda: html_scan.scan(html_scan.decode(data, charset)))
        about = describe(page)
        picture = next((page.properties[name] for name in PICTURES if name in page.properties), None)
        if picture is not None:
            about |= await self._picture_at(base, picture)
        if "og:image" not in about:
            about = {name: value for name, value in about.items() if not name.startswith("og:image")}
        return about

    async def _picture_at(self, base: str, reference: str) -> JsonObject:
        """The picture that the page names; {} if it can't be had: the rest of the preview is still good."""
        try:
            async with self._web.get(
                urljoin(base, reference), accept="image/*", within=SECONDS, max_redirects=MAX_REDIRECTS
            ) as answer:
                return await self._picture_of(answer)
        except (FederationError, ValueError):
            return {}

    async def _picture_of(self, answer: Incoming) -> JsonObject:
        """Store it, if it is one by its first bytes."""
        async with aclosing(Peeked(answer)) as peeked:
            kind = picture_format(await peeked.head(HEAD_BYTES))
            if kind is None:
                return {}
            expires_ms = self._runtime.clock.now_ms() + PICTURE_KEPT_MS
            try:
                media = await self._uploads.add_picture(peeked, PICTURE_TYPES[kind], expires_ms)
            except TooLong:
                return {}
        return {
            "og:image": f"mxc://{self._server_name}/{media.media_id}",
            "og:image:type": media.content_type,
            "matrix:image:size": media.size,
        }


class Peeked:
    """A body whose beginning was looked at."""

    def __init__(self, answer: Incoming) -> None:
        self._body = answer.body
        self._first = b""

    async def head(self, size: int) -> bytes:
        while len(self._first) < size:
            chunk = await anext(self._body, b"")
            if not chunk:
                break
            self._first += chunk
        return self._first[:size]

    def __aiter__(self) -> Peeked:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        return first or await anext(self._body)

    async def aclose(self) -> None:
        self._first = b""


async def read_up_to(answer: Incoming, size: int) -> bytes:
    """The beginning of a body. That there is more is no error: what we look for comes first."""
    data = bytearray()
    async for chunk in answer.body:
        data += chunk
        if len(data) >= size:
            break
    return bytes(data[:size])


def describe(page: html_scan.Page) -> JsonObject:
    about: JsonObject = {name: page.properties[name] for name in WANTED if name in page.properties}
    for name in ("og:image:width", "og:image:height"):
        text = str(about.pop(name, ""))
        if text.isascii() and text.isdigit() and len(text) <= 5:
            about[name] = int(text)
    title = page.properties.get("twitter:title") or page.title
    if title:
        about.setdefault("og:title", title)
    said = page.properties.get("twitter:description") or page.properties.get("description")
    if said:
        about.setdefault("og:description", said)
    return about
