# SPDX-License-Identifier: Apache-2.0
"""That the crash tests would notice a loss."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from minihs.store.migrations import open_for_writing
from minihs.store.writer import Tx
from tests.crash import ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "test.db"
    with closing(open_for_writing(path, ledger.MIGRATIONS)) as connection:
        for number in (1, 2, 3):
            ledger.enter(Tx(connection), 7, number, 10)
    return path


def test_a_sound_database_passes(path: Path) -> None:
    assert ledger.inspect(path, {7: 3}) == []
    assert ledger.entries_of_copy(path) == {(7, 1), (7, 2), (7, 3)}


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("DELETE FROM entries WHERE number = 3", "task 7: 2 entries up to 2, but 3 noted"),
        ("DELETE FROM entries WHERE number = 2", "task 7: 2 entries up to 3, but 3 noted"),
        ("UPDATE lasts SET last = 2", "task 7: 3 entries up to 3, but 2 noted"),
        ("DELETE FROM lasts", "task 7: 3 was acknowledged, 0 is there"),
    ],
)
def test_a_lost_or_torn_write_is_noticed(path: Path, damage: str, complaint: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    assert complaint in ledger.inspect(path, {7: 3})


def test_a_lost_commit_is_noticed(path: Path) -> None:
    assert ledger.inspect(path, {7: 4}) == ["task 7: 4 was acknowledged, 3 is there"]
