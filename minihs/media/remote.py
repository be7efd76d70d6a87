# SPDX-License-Identifier: Apache-2.0
"""Media of other servers: fetched when somebody asks, kept in the cache (server-server-api, "Content
Repository").

1. What is in the cache is served from there; what could not be had a moment ago is refused again.
2. One fetch per media, whoever else asks meanwhile waits for it; a few per server at once, and no more bytes
   from one server than its leaky bucket lets through.
3. The signed endpoint, multipart, taken apart as it streams to disk; or where it redirects to; or, of servers
   before Matrix 1.11, the open endpoint.
4. Too large, too slow, cut short, not multipart: nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from minihs.matrix.errors import MatrixError, limit_exceeded, not_found
from minihs.matrix.federation_errors import FederationError, RemoteProtocolError, RemoteRefused
from minihs.media import names
from minihs.media.bounds import FailureMemory, KeyedLimit, LeakyBuckets
from minihs.media.cache import Cache
from minihs.media.files import Files, TooLong
from minihs.media.files import Incoming as IncomingFile
from minihs.media.multipart import MAX_JSON, BadMultipart, End, Parser, Part, boundary_of
from minihs.media.ports import Incoming, Peers, Web
from minihs.media.shared import SharedJobs
from minihs.runtime import Runtime
from minihs.store import media as store
from minihs.store.database import Database
from minihs.store.media import RemoteMedia

MAX_FETCHES = 16
MAX_FETCHES_PER_SERVER = 2
"""Fewer than the connections that we keep to a server: the others carry events."""

GRACE_SECONDS = 60.0
"""Until a fetch must have a pace, and how long it may pause."""
SLOWEST = 16 * 1024
"""Bytes a second, on average after the grace."""
LONGEST_SECONDS = 3600.0

MAX_REDIRECTS = 5

BUCKET_BYTES = 1024 * 1024 * 1024
"""What one server may give us at once; it leaks again at BUCKET_LEAK."""
BUCKET_LEAK = 1024 * 1024
"""Bytes a second."""
BYTES_PER_FETCH = 64 * 1024
"""What a fetch counts at least."""

REMEMBER_MISSING = 300.0
"""Seconds for which "not found" is believed."""
REMEMBER_FAILED = 60.0
REMEMBER_TOO_LARGE = 3600.0


@dataclass(frozen=True, slots=True)
class Described:
    """What the other server says about the media, made safe."""

    content_type: str
    filename: str | None
    location: str | None = None
    """Where the bytes are instead."""

    @classmethod
    def by(cls, headers: Mapping[str, str]) -> Described:
        return cls(
            names.content_type(headers.get("content-type")),
            names.filename_in(headers.get("content-disposition")),
            headers.get("location"),
        )


class Pace:
    """Moves a deadline on as bytes come."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._start = trio.current_time()
        self._bytes = 0
        self.got(0)

    def got(self, count: int) -> None:
        self._bytes += count
        seconds = min(GRACE_SECONDS + self._bytes / SLOWEST, LONGEST_SECONDS)
        self._scope.deadline = self._start + seconds


class Remote:
    """Fetches and caches."""

    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        files: Files,
        cache: Cache,
        jobs: SharedJobs,
        peers: Peers,
        web: Web,
        max_bytes: int,
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._files = files
        self._cache = cache
        self._jobs = jobs
        self._peers = peers
        self._web = web
        self._max_bytes = max_bytes
        self._slots = trio.Semaphore(MAX_FETCHES)
        self._per_server = KeyedLimit(MAX_FETCHES_PER_SERVER)
        self._buckets = LeakyBuckets(BUCKET_BYTES, BUCKET_LEAK)
        self._failures = FailureMemory()

    def cached(self, origin: str, media_id: str) -> RemoteMedia | None:
        media = store.remote(self._db.read, origin, media_id)
        if media is not None:
            self._cache.used_remote(media)
        return media

    async def get(self, origin: str, media_id: str, *, timeout_ms: int) -> RemoteMedia:
        """From the cache, or else from its server. MatrixError if it is not to be had."""
        media = self.cached(origin, media_id)
        if media is not None:
            return media
        self._failures.check((origin, media_id))
        return await self._jobs.result(
            ("fetch", origin, media_id), lambda: self._fetch(origin, media_id, timeout_ms)
        )

    async def forget(self, media: RemoteMedia) -> None:
        """Its file is gone."""
        await self._db.write(lambda tx: store.delete_remote(tx, media.origin, media.media_id))

    async def _fetch(self, origin: str, media_id: str, timeout_ms: int) -> RemoteMedia:
        if not self._buckets.has_room(origin):
            raise limit_exceeded(60_000, "Too much was fetched from that server just now.")
        try:
            async with self._per_server.slot(origin), self._slots:
                media = await self._fetch_now(origin, media_id, timeout_ms)
        except TooLong:
            self._buckets.add(origin, self._max_bytes)
            refusal = MatrixError(502, "M_TOO_LARGE", "The file is larger than this server takes.")
            raise self._failures.remember((origin, media_id), refusal, REMEMBER_TOO_LARGE) from None
        except FederationError as error:
            self._buckets.add(origin, BYTES_PER_FETCH)
            refusal, seconds = as_refusal(error)
            raise self._failures.remember((origin, media_id), refusal, seconds) from error
        self._buckets.add(origin, max(media.size, BYTES_PER_FETCH))
        await self._cache.shrink()
        return media

    async def _fetch_now(self, origin: str, media_id: str, timeout_ms: int) -> RemoteMedia:
        async with self._files.incoming(self._max_bytes) as incoming:
            described = None
            with trio.CancelScope() as scope:
                described = await self._download(origin, media_id, timeout_ms, incoming, Pace(scope))
            if described is None:
                raise RemoteProtocolError(origin, "sends the file too slowly")
            async with incoming.kept() as file:
                media = RemoteMedia(
                    origin,
                    media_id,
                    file.sha256,
                    file.size,
                    described.content_type,
                    described.filename,
                    self._runtime.clock.now_ms(),
                )
                await self._db.write(lambda tx: store.add_remote(tx, media))
                return media

    async def _download(
        self, origin: str, media_id: str, timeout_ms: int, incoming: IncomingFile, pace: Pace
    ) -> Described:
        pace.got(timeout_ms * SLOWEST // 1000)  # while the other server may wait for the upload
        try:
            async with self._peers.download(
                origin, media_id, timeout_ms=timeout_ms, within=LONGEST_SECONDS
            ) as answer:
                try:
                    described = await take_multipart(answer, incoming, pace)
                except BadMultipart as error:
                    raise RemoteProtocolError(origin, str(error)) from error
        except RemoteRefused as refusal:
            if not refusal.is_unrecognized:
                raise
            async with self._peers.download_legacy(
                origin, media_id, timeout_ms=timeout_ms, within=LONGEST_SECONDS
            ) as answer:
                return await take_all(answer, incoming, pace)
        if described.location is None:
            return described
        async with self._web.get(
            described.location, accept="*/*", within=LONGEST_SECONDS, max_redirects=MAX_REDIRECTS
        ) as answer:
            return await take_all(answer, incoming, pace)


async def take_all(answer: Incoming, incoming: IncomingFile, pace: Pace) -> Described:
    """The whole body is the file."""
    check_announced(answer.headers, incoming.cap)
    async for chunk in answer.body:
        pace.got(len(chunk))
        await incoming.write(chunk)
    described = Described.by(answer.headers)
    return Described(described.content_type, described.filename)


async def take_multipart(answer: Incoming, incoming: IncomingFile, pace: Pace) -> Described:
    """The second of two parts is the file, or says where it is."""
    check_announced(answer.headers, incoming.cap + 2 * MAX_JSON)
    parser = Parser(boundary_of(answer.headers.get("content-type")))
    parts: list[Described] = []
    json_bytes = 0
    async for chunk in answer.body:
        pace.got(len(chunk))
        for event in parser.feed(chunk):
            if isinstance(event, Part):
                parts.append(Described.by(event.headers))
                if len(parts) > 2:
                    raise BadMultipart("the answer has more than two parts")
            elif isinstance(event, End):
                if len(parts) != 2:
                    raise BadMultipart("the answer has no part with the media")
                return parts[1]
            elif len(parts) == 2:
                if parts[1].location is None:
                    await incoming.write(event)
            else:
                json_bytes += len(event)
                if json_bytes > MAX_JSON:
                    raise BadMultipart("the part about the media is too large")
    parser.close()
    raise BadMultipart("the answer ended too early")


def check_announced(headers: Mapping[str, str], cap: int) -> None:
    """Don't begin with what would not end."""
    text = headers.get("content-length", "")
    if text.isascii() and text.isdigit() and (len(text) > 18 or int(text) > cap):
        raise TooLong


def as_refusal(error: FederationError) -> tuple[MatrixError, float]:
    """What the client is told, and for how many seconds it holds."""
    if isinstance(error, RemoteRefused):
        if error.errcode == "M_NOT_YET_UPLOADED":
            return not_yet_uploaded(), 0.0
        if error.status == 404:
            return not_found("The server that should have this media does not have it."), REMEMBER_MISSING
        if error.errcode == "M_TOO_LARGE":
            return (
                MatrixError(502, "M_TOO_LARGE", "The file is larger than its server gives."),
                REMEMBER_TOO_LARGE,
            )
        if error.status == 429:
            return limit_exceeded(60_000, "Its server asks us to wait."), REMEMBER_FAILED
    return MatrixError(502, "M_UNKNOWN", f"The media could not be fetched: {error}"[:500]), REMEMBER_FAILED


def not_yet_uploaded() -> MatrixError:
    return MatrixError(504, "M_NOT_YET_UPLOADED", "The media has not been uploaded yet.")
