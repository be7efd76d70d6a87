# SPDX-License-Identifier: Apache-2.0
"""`minihs limits` says what is in force."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minihs.cli import limits, parser
from minihs.rooms import transactions
from minihs.web import rate_limits


def test_the_whole_table_is_printed_with_the_numbers_in_force(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MAX_INBOX", 12_345)
    assert parser.run(["limits"]) == 0
    printed = capsys.readouterr().out
    rows = list(limits.table(limits.text()))
    assert len(rows) > 100
    for row in rows:
        assert f"{row.what}: {row.said}" in printed
    assert "rooms/transactions.py MAX_INBOX = 12345" in printed
    assert "web/routing.py DEFAULT_BODY_CAP[NONE] = 65536" in printed
    for name in rate_limits.LIMITS:
        assert f"  {name}: " in printed


def test_for_tools_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert parser.run(["limits", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    (inbox,) = [row for row in rows if "rooms/transactions.py MAX_INBOX" in row.get("constants", {})]
    assert inbox["constants"]["rooms/transactions.py MAX_INBOX"] == transactions.MAX_INBOX
    assert {row["section"] for row in rows} >= {"The edge", "How often", "Media"}


def test_the_text_comes_along_in_the_package() -> None:
    root = Path(limits.__file__).parent.parent.parent
    assert '"docs/limits.md" = "minihs/limits.md"' in (root / "pyproject.toml").read_text()
    assert "docs/limits.md:minihs" in (root / "scripts" / "build-binary").read_text()
