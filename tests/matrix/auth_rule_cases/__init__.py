# SPDX-License-Identifier: Apache-2.0
"""Events for every point of the authorisation rules; see registry.py."""

from __future__ import annotations

from tests.matrix.auth_rule_cases import create, levels, members, membership, third_party
from tests.matrix.auth_rule_cases.registry import CASES

__all__ = ["CASES", "create", "levels", "members", "membership", "third_party"]
