# SPDX-License-Identifier: Apache-2.0
"""Under a clock that jumps."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from minihs.testing.clock import run_virtual


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        test = getattr(item, "function", None)
        if inspect.iscoroutinefunction(test) and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.trio(run=run_virtual))
