# SPDX-License-Identifier: Apache-2.0
"""Databases with one small table beside the real schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minihs.runtime import InlineThreads, Runtime
from minihs.store.database import Database
from minihs.store.migrations import Migration, shipped

ITEMS = Migration(
    9000,
    "items",
    "CREATE TABLE items (item INTEGER PRIMARY KEY, text TEXT UNIQUE, parent INTEGER "
    "REFERENCES items (item)) STRICT",
)


def with_items() -> list[Migration]:
    return [*shipped(), ITEMS]


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """With the writer's thread."""
    async with Database.open(tmp_path / "test.db", Runtime(), migrations=with_items()) as database:
        yield database


@pytest.fixture(params=["thread", "inline"])
async def either_db(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Once with the writer's thread, once with closures run on the loop."""
    inline = request.param == "inline"
    runtime = Runtime(threads=InlineThreads()) if inline else Runtime()
    async with Database.open(
        tmp_path / "test.db", runtime, inline=inline, migrations=with_items()
    ) as database:
        yield database
