# SPDX-License-Identifier: Apache-2.0
"""CVE-2021-29471: patterns of push rules that took for ever to match."""

from __future__ import annotations

from pathlib import Path

from minihs.matrix.push_rules import MAX_TEXT
from tests.advisories.kit import cpu_budget, siege

EVIL = ["a*" * 400 + "b", "*" * 900, "?" * 900, ("*a" * 200) + "?" * 300 + "z", "a?" * 300 + "*b"]


async def test_no_pattern_takes_long(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for number, pattern in enumerate(EVIL):
            await at.alice.put(
                f"/pushrules/global/content/c{number}", {"pattern": pattern, "actions": ["notify"]}
            )
            condition = {"kind": "event_match", "key": "content.body", "pattern": pattern}
            rule = {"conditions": [condition] * 5, "actions": ["notify"]}
            await at.alice.put(f"/pushrules/global/override/o{number}", rule)
        bodies = ["a" * 60_000, "ab " * 20_000, "a\n" * 25_000]
        pdus = [at.event(content={"msgtype": "m.text", "body": body}) for body in bodies * 3]
        with cpu_budget(20):
            await at.send(*pdus)
            synced = await at.alice.sync()
        assert synced["rooms"]["join"][at.room]["unread_notifications"]["notification_count"] >= 0
        await at.unharmed()


async def test_a_pattern_has_a_length(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for length, expected in ((MAX_TEXT, 200), (MAX_TEXT + 1, 400)):
            rule = {"pattern": "x" * length, "actions": []}
            status, _ = await at.alice.ask("PUT", "/pushrules/global/content/long", rule)
            assert status == expected
