# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from tests.sync.conftest import world

__all__ = ["world"]
