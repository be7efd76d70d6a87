# SPDX-License-Identifier: Apache-2.0
"""A user's push rules: reading and changing them, and matching events against them.

(client-server-api, "Push Rules".) The rules themselves are in matrix/push_rules.py, the conditions in
matrix/push_conditions.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from minihs.matrix import push_rules
from minihs.matrix.errors import missing_param, not_found
from minihs.matrix.fields import flag
from minihs.matrix.push_conditions import CompiledRules
from minihs.store import push_rules as store
from minihs.store.database import Database, Tx

type JsonObject = dict[str, Any]

MAX_COMPILED = 200
"""Users whose compiled rules are kept, some 10 KiB each."""


class PushRules:
    """The push rules of one server's users."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._compiled: OrderedDict[str, tuple[int, CompiledRules]] = OrderedDict()

    def all(self, user_id: str) -> dict[str, list[JsonObject]]:
        """The `global` ruleset."""
        return store.ruleset(self._db.read, user_id)

    def get(self, user_id: str, kind: str, rule_id: str) -> JsonObject:
        return push_rules.rule_of(user_id, store.changes(self._db.read, user_id)[0], kind, rule_id)

    def of_kind(self, user_id: str, kind: str) -> list[JsonObject]:
        if kind not in push_rules.KINDS:
            raise not_found("There is no such kind of push rule.")
        return self.all(user_id)[kind]

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

    def compiled(self, user_id: str) -> CompiledRules:
        """The user's rules, ready to be matched against events."""
        pos = store.last_change(self._db.read, user_id)
        known = self._compiled.get(user_id)
        if known is None or known[0] != pos:
            known = (pos, CompiledRules(self.all(user_id)))
        self._compiled[user_id] = known
        self._compiled.move_to_end(user_id)
        if len(self._compiled) > MAX_COMPILED:
            self._compiled.popitem(last=False)
        return known[1]
