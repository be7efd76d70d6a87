# SPDX-License-Identifier: Apache-2.0
"""The user directory: finding people by name (client-server-api, "User Directory")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import invalid_param, missing_param
from minihs.matrix.fields import number, optional_text
from minihs.requester import Requester
from minihs.store import user_directory
from minihs.store.database import Database

DEFAULT_LIMIT = 10
MAX_LIMIT = 50


class Directory:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def search(self, requester: Requester, body: JsonObject) -> JsonObject:
        """POST /user_directory/search."""
        term = optional_text(body, "search_term")
        if term is None:
            raise missing_param("search_term is missing.")
        limit = number(body, "limit", DEFAULT_LIMIT)
        if limit < 1:
            raise invalid_param("limit must be at least 1.")
        wanted = term.strip().lower()
        if not wanted:
            return {"results": [], "limited": False}
        found, limited = await self._db.scan(
            lambda db: user_directory.search(db, requester.user_id, wanted, min(limit, MAX_LIMIT))
        )
        results = [
            {name: value for name, value in user._asdict().items() if value is not None} for user in found
        ]
        return {"results": results, "limited": limited}
