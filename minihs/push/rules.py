# SPDX-License-Identifier: Apache-2.0
"""A user's push rules: reading and changing them (client-server-api, "Push Rules: API").

The rules themselves are in matrix/push_rules.py, the matching of events in matrix/push_conditions.py.
"""

from __future__ import annotations

from collections.abc import Callable

from minihs.matrix import push_rules
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import missing_param
from minihs.matrix.fields import flag
from minihs.store import push_rules as store
from minihs.store.database import Database, Tx


class PushRules:
    """The push rules of one server's users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self, user_id: str) -> dict[str, list[JsonObject]]:
        """The `global` ruleset."""
        return store.ruleset(self._db.read, user_id)

    def get(self, user_id: str, kind: str, rule_id: str) -> JsonObject:
        return push_rules.rule_of(user_id, store.changes(self._db.read, user_id)[0], kind, rule_id)

    async def put(
        self,
        user_id: str,
        kind: str,
        rule_id: str,
        body: JsonObject,
        *,
        before: str | None,
        after: str | None,
    ) -> None:
        await self._change(
            user_id,
            lambda changes: push_rules.put_rule(changes, kind, rule_id, body, before=before, after=after),
        )

    async def delete(self, user_id: str, kind: str, rule_id: str) -> None:
        await self._change(user_id, lambda changes: push_rules.delete_rule(changes, kind, rule_id))

    async def set_enabled(self, user_id: str, kind: str, rule_id: str, body: JsonObject) -> None:
        if "enabled" not in body:
            raise missing_param("enabled is missing.")
        enabled = flag(body, "enabled")
        await self._change(
            user_id,
            lambda changes: push_rules.edit_rule(user_id, changes, kind, rule_id, enabled=enabled),
        )

    async def set_actions(self, user_id: str, kind: str, rule_id: str, body: JsonObject) -> None:
        actions = push_rules.checked_actions(body)
        await self._change(
            user_id,
            lambda changes: push_rules.edit_rule(user_id, changes, kind, rule_id, actions=actions),
        )

    async def _change(self, user_id: str, edit: Callable[[JsonObject], JsonObject]) -> None:
        def write(tx: Tx) -> None:
            before = store.changes(tx, user_id)[0]
            after = edit(before)
            if after != before:
                store.put(tx, user_id, after)

        await self._db.write(write)
