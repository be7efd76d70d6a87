# SPDX-License-Identifier: Apache-2.0
"""Server ACLs: which servers may take part in a room (spec: client-server-api, "m.room.server_acl")."""

from __future__ import annotations

from collections.abc import Iterable

from minihs.matrix.canonical import JsonObject
from minihs.matrix.globs import Glob
from minihs.matrix.ids import is_ip_literal, parse_server_name

_MAX_REMEMBERED = 1_000
"""Answers kept per ACL. A list may have thousands of entries and is asked for every PDU."""


class ServerAcl:
    """The rules of one `m.room.server_acl` event. A room without such an event lets everybody in."""

    def __init__(self, *, allow: Iterable[str], deny: Iterable[str], allow_ip_literals: bool) -> None:
        self._allow = _Patterns(allow)
        self._deny = _Patterns(deny)
        self._allow_ip_literals = allow_ip_literals
        self._answers: dict[str, bool] = {}

    @classmethod
    def from_content(cls, content: JsonObject) -> ServerAcl:
        """Malformed parts count as missing: without a list `allow` nobody is allowed."""
        return cls(
            allow=_strings(content.get("allow")),
            deny=_strings(content.get("deny")),
            allow_ip_literals=content.get("allow_ip_literals") is not False,
        )

    def allows(self, server_name: str) -> bool:
        """Whether that server may take part. The port does not matter, nor does case."""
        answer = self._answers.get(server_name)
        if answer is None:
            if len(self._answers) >= _MAX_REMEMBERED:
                self._answers.clear()
            answer = self._answers[server_name] = self._decide(server_name)
        return answer

    def _decide(self, server_name: str) -> bool:
        parsed = parse_server_name(server_name)
        if parsed is None:
            return False
        if not self._allow_ip_literals and is_ip_literal(parsed.host):
            return False
        host = parsed.host.lower()
        return not self._deny.match(host) and self._allow.match(host)


class _Patterns:
    """Case-insensitive globs. The two common kinds, a name and `*` with a suffix, cost no search."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._suffixes: set[str] = set()
        self._globs: list[Glob] = []
        for pattern in {pattern.lower() for pattern in patterns}:
            rest = pattern.lstrip("*")
            if "*" in rest or "?" in rest:
                self._globs.append(Glob(pattern))
            elif rest == pattern:
                self._names.add(pattern)
            else:
                self._suffixes.add(rest)

    def match(self, host: str) -> bool:
        if host in self._names:
            return True
        if self._suffixes and any(host[i:] in self._suffixes for i in range(len(host) + 1)):
            return True
        return any(glob.matches(host) for glob in self._globs)


def _strings(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
