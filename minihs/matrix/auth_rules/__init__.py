# SPDX-License-Identifier: Apache-2.0
"""The authorisation rules: who may do what in a room (spec: rooms/v1 … v12, "Authorisation rules")."""

from __future__ import annotations

from minihs.matrix.auth_rules.check import allowing_rule, check_auth, redaction_allowed
from minihs.matrix.auth_rules.errors import AuthError
from minihs.matrix.auth_rules.levels import (
    INFINITE,
    Level,
    PowerLevels,
    StateView,
    creators_of,
    parse_level,
)
from minihs.matrix.auth_rules.membership import membership_of
from minihs.matrix.auth_rules.selection import AUTH_TYPES, auth_types_for, check_auth_events

__all__ = [
    "AUTH_TYPES",
    "INFINITE",
    "AuthError",
    "Level",
    "PowerLevels",
    "StateView",
    "allowing_rule",
    "auth_types_for",
    "check_auth",
    "check_auth_events",
    "creators_of",
    "membership_of",
    "parse_level",
    "redaction_allowed",
]
