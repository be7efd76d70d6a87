# SPDX-License-Identifier: Apache-2.0
"""One process per database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minihs.store.errors import DatabaseInUse, StoreError
from minihs.store.lock import lock


def test_the_same_process_can_not_lock_twice(tmp_path: Path) -> None:
    with lock(tmp_path / "test.db"), pytest.raises(DatabaseInUse, match=rf"process {os.getpid()}"):
        lock(tmp_path / "test.db").__enter__()


def test_another_process_is_told_who_has_it_and_what_to_do(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from minihs.store.lock import lock
lock(Path({str(tmp_path / "test.db")!r})).__enter__()
"""
    with lock(tmp_path / "test.db"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode != 0
    assert f"(process {os.getpid()}). Stop that one first" in done.stderr


def test_the_lock_is_free_after_use_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path / "test.db"):
        raise KeyError
    for _ in range(2):
        with lock(tmp_path / "test.db"):
            pass


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from minihs.store.lock import lock
held = lock(Path({str(tmp_path / "test.db")!r}))
held.__enter__()
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -9
    with lock(tmp_path / "test.db"):
        pass


def test_two_databases_have_two_locks(tmp_path: Path) -> None:
    with lock(tmp_path / "a.db"), lock(tmp_path / "b.db"):
        pass


def test_a_missing_folder_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must exist and be writable"):
        lock(tmp_path / "nowhere" / "a.db").__enter__()
