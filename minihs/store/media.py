# SPDX-License-Identifier: Apache-2.0
"""Media in the database: whose file is which, what is cached and when it was last used.

The bytes are files under the data folder (`media/files.py`), named by their SHA-256. `is_used` says whether a
file still has a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minihs.store.database import Reader, Tx


@dataclass(frozen=True, slots=True)
class LocalMedia:
    media_id: str
    user_id: str | None
    expires_ts: int | None
    sha256: bytes | None
    """None: the content is still to come."""
    size: int
    content_type: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class RemoteMedia:
    origin: str
    media_id: str
    sha256: bytes
    size: int
    content_type: str
    filename: str | None
    used_ts: int


@dataclass(frozen=True, slots=True)
class Thumbnail:
    source: bytes
    width: int
    height: int
    method: str
    sha256: bytes
    size: int
    content_type: str
    used_ts: int


# -- of our own users --

_LOCAL = "media_id, user_id, expires_ts, sha256, size, coalesce(content_type, ''), filename"


def local(db: Reader, media_id: str) -> LocalMedia | None:
    rows = db.execute(f"SELECT {_LOCAL} FROM local_media WHERE media_id = ?", (media_id,)).fetchall()
    return LocalMedia(*rows[0]) if rows else None


def reserve(tx: Tx, media_id: str, user_id: str, now_ms: int, expires_ms: int) -> None:
    """An id whose content is to come."""
    tx.execute(
        "INSERT INTO local_media (media_id, user_id, created_ts, expires_ts) VALUES (?, ?, ?, ?)",
        (media_id, user_id, now_ms, expires_ms),
    )


def pending(db: Reader, user_id: str, now_ms: int) -> int:
    """How many ids of the user wait for their content."""
    row = db.execute(
        "SELECT count(*) FROM local_media WHERE user_id = ? AND sha256 IS NULL AND expires_ts > ?",
        (user_id, now_ms),
    ).fetchall()[0]
    return int(row[0])


def stored_bytes(db: Reader, user_id: str) -> int:
    """What the user has uploaded, in all."""
    row = db.execute(
        "SELECT coalesce(sum(size), 0) FROM local_media WHERE user_id = ?", (user_id,)
    ).fetchall()[0]
    return int(row[0])


def add_local(tx: Tx, media: LocalMedia, now_ms: int) -> None:
    tx.execute(
        "INSERT INTO local_media (media_id, user_id, created_ts, expires_ts, sha256, size, content_type, "
        "filename) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            media.media_id,
            media.user_id,
            now_ms,
            media.expires_ts,
            media.sha256,
            media.size,
            media.content_type,
            media.filename,
        ),
    )


def fill(tx: Tx, media: LocalMedia, now_ms: int) -> bool:
    """Give a reserved id its content; False if it has some, or has expired, meanwhile."""
    cursor = tx.execute(
        "UPDATE local_media SET expires_ts = NULL, sha256 = ?, size = ?, content_type = ?, filename = ? "
        "WHERE media_id = ? AND sha256 IS NULL AND expires_ts > ?",
        (media.sha256, media.size, media.content_type, media.filename, media.media_id, now_ms),
    )
    return cursor.rowcount == 1


def delete_local(tx: Tx, media_id: str) -> list[bytes]:
    """Forget an id; the file that may have become unused."""
    rows = tx.execute("DELETE FROM local_media WHERE media_id = ? RETURNING sha256", (media_id,)).fetchall()
    return [sha256 for (sha256,) in rows if sha256 is not None]


def delete_expired(tx: Tx, now_ms: int) -> list[bytes]:
    """Forget ids that were never used, pictures of old previews, and the previews."""
    rows = tx.execute("DELETE FROM local_media WHERE expires_ts <= ? RETURNING sha256", (now_ms,)).fetchall()
    tx.execute("DELETE FROM url_previews WHERE expires_ts <= ?", (now_ms,))
    return [sha256 for (sha256,) in rows if sha256 is not None]


# -- of other servers --

_REMOTE = "origin, media_id, sha256, size, content_type, filename, used_ts"


def remote(db: Reader, origin: str, media_id: str) -> RemoteMedia | None:
    rows = db.execute(
        f"SELECT {_REMOTE} FROM remote_media WHERE origin = ? AND media_id = ?", (origin, media_id)
    ).fetchall()
    return RemoteMedia(*rows[0]) if rows else None


def add_remote(tx: Tx, media: RemoteMedia) -> None:
    tx.execute(
        f"INSERT OR REPLACE INTO remote_media ({_REMOTE}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            media.origin,
            media.media_id,
            media.sha256,
            media.size,
            media.content_type,
            media.filename,
            media.used_ts,
        ),
    )


def delete_remote(tx: Tx, origin: str, media_id: str) -> None:
    tx.execute("DELETE FROM remote_media WHERE origin = ? AND media_id = ?", (origin, media_id))


# -- thumbnails --

_THUMBNAIL = "source, width, height, method, sha256, size, content_type, used_ts"


def thumbnail(db: Reader, source: bytes, width: int, height: int, method: str) -> Thumbnail | None:
    rows = db.execute(
        f"SELECT {_THUMBNAIL} FROM thumbnails WHERE source = ? AND width = ? AND height = ? AND method = ?",
        (source, width, height, method),
    ).fetchall()
    return Thumbnail(*rows[0]) if rows else None


def count_thumbnails(db: Reader, source: bytes) -> int:
    row = db.execute("SELECT count(*) FROM thumbnails WHERE source = ?", (source,)).fetchall()[0]
    return int(row[0])


def add_thumbnail(tx: Tx, each: Thumbnail) -> None:
    tx.execute(
        f"INSERT OR REPLACE INTO thumbnails ({_THUMBNAIL}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            each.source,
            each.width,
            each.height,
            each.method,
            each.sha256,
            each.size,
            each.content_type,
            each.used_ts,
        ),
    )


def delete_thumbnail(tx: Tx, source: bytes, width: int, height: int, method: str) -> None:
    tx.execute(
        "DELETE FROM thumbnails WHERE source = ? AND width = ? AND height = ? AND method = ?",
        (source, width, height, method),
    )


# -- the cache as a whole --


def cached_bytes(db: Reader) -> int:
    """Size of what could be fetched or made again."""
    row = db.execute(
        "SELECT (SELECT coalesce(sum(size), 0) FROM remote_media) + "
        "(SELECT coalesce(sum(size), 0) FROM thumbnails)"
    ).fetchall()[0]
    return int(row[0])


def touch_remote(tx: Tx, used: Iterable[tuple[str, str]], now_ms: int) -> None:
    tx.executemany(
        "UPDATE remote_media SET used_ts = ? WHERE origin = ? AND media_id = ?",
        [(now_ms, origin, media_id) for origin, media_id in used],
    )


def touch_thumbnails(tx: Tx, used: Iterable[tuple[bytes, int, int, str]], now_ms: int) -> None:
    tx.executemany(
        "UPDATE thumbnails SET used_ts = ? WHERE source = ? AND width = ? AND height = ? AND method = ?",
        [(now_ms, *key) for key in used],
    )


def evict(tx: Tx, wanted: int, rows_at_once: int) -> tuple[int, list[bytes]]:
    """Forget the least recently used: (bytes let go, files that may have become unused).

    Stops when `wanted` bytes are reached, or after `rows_at_once` rows.
    """
    oldest = tx.execute(
        "SELECT used_ts, size, origin, media_id, NULL, NULL, NULL, NULL FROM "
        "(SELECT * FROM remote_media ORDER BY used_ts, size LIMIT ?1) "
        "UNION ALL SELECT used_ts, size, NULL, NULL, source, width, height, method FROM "
        "(SELECT * FROM thumbnails ORDER BY used_ts, size LIMIT ?1) ORDER BY 1, 2 LIMIT ?1",
        (rows_at_once,),
    ).fetchall()
    freed, files = 0, []
    for _, size, origin, media_id, *key in oldest:
        if freed >= wanted:
            break
        freed += size
        if origin is not None:
            rows = tx.execute(
                "DELETE FROM remote_media WHERE origin = ? AND media_id = ? RETURNING sha256",
                (origin, media_id),
            ).fetchall()
        else:
            rows = tx.execute(
                "DELETE FROM thumbnails WHERE source = ? AND width = ? AND height = ? AND method = ? "
                "RETURNING sha256",
                tuple(key),
            ).fetchall()
        files += [sha256 for (sha256,) in rows]
    return freed, files


def is_used(db: Reader, sha256: bytes) -> bool:
    """Whether any row has this file. (That it is its own thumbnail does not count.)"""
    return bool(
        db.execute(
            "SELECT EXISTS (SELECT 1 FROM local_media WHERE sha256 = ?1) OR "
            "EXISTS (SELECT 1 FROM remote_media WHERE sha256 = ?1) OR "
            "EXISTS (SELECT 1 FROM thumbnails WHERE sha256 = ?1 AND source != ?1)",
            (sha256,),
        ).fetchall()[0][0]
    )


def delete_thumbnails_of_unused(tx: Tx, files: Iterable[bytes]) -> list[bytes]:
    """Forget the thumbnails of pictures that are no longer there; `files`, and theirs."""
    all_files = list(dict.fromkeys(files))
    for source in list(all_files):
        if not is_used(tx, source):
            rows = tx.execute(
                "DELETE FROM thumbnails WHERE source = ? RETURNING sha256", (source,)
            ).fetchall()
            all_files += [sha256 for (sha256,) in rows]
    return list(dict.fromkeys(all_files))


# -- previews --


def preview(db: Reader, url: str, now_ms: int) -> str | None:
    rows = db.execute(
        "SELECT answer FROM url_previews WHERE url = ? AND expires_ts > ?", (url, now_ms)
    ).fetchall()
    return str(rows[0][0]) if rows else None


def add_preview(tx: Tx, url: str, answer: str, expires_ms: int) -> None:
    tx.execute(
        "INSERT INTO url_previews (url, answer, expires_ts) VALUES (?, ?, ?) "
        "ON CONFLICT (url) DO UPDATE SET answer = excluded.answer, expires_ts = excluded.expires_ts",
        (url, answer, expires_ms),
    )
