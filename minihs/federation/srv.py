# SPDX-License-Identifier: Apache-2.0
"""The order in which to try SRV records (RFC 2782): by priority, and within one by chance, in proportion to
weight."""

from __future__ import annotations

from collections.abc import Iterable

from minihs.federation.network import Srv
from minihs.runtime import Randomness


def in_order(records: Iterable[Srv], random: Randomness) -> list[Srv]:
    ordered: list[Srv] = []
    by_priority: dict[int, list[Srv]] = {}
    for record in records:
        by_priority.setdefault(record.priority, []).append(record)
    for priority in sorted(by_priority):
        rest = sorted(
            by_priority[priority], key=lambda record: record.weight
        )  # zero weights first, as the RFC says
        while rest:
            point = random.uniform(0, sum(record.weight for record in rest))
            position, running = 0, rest[0].weight
            while running < point:
                position += 1
                running += rest[position].weight
            ordered.append(rest.pop(position))
    return ordered
