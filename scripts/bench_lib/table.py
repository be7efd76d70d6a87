# SPDX-License-Identifier: Apache-2.0
"""The table: one line per figure, both servers, the ratio between them and the budget (docs/design.md,
"Budgets").
"""

from __future__ import annotations

from dataclasses import dataclass

type Figures = dict[str, dict[str, float]]  # figure -> server -> value


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    title: str
    unit: str
    budget: float | None = None  # at most, in `unit`; or at least, when `more_is_better`
    reference: float | None = None
    """What Synapse took where the budget was set: a slower machine is slower for both."""
    ratio_budget: float | None = None  # a budget that is a ratio in the first place: minihs / Synapse
    more_is_better: bool = False
    digits: int = 2


ROWS = [
    Row("start_s", "cold start to first answer", "s", 0.9, 1.5),
    Row("idle_rss_mib", "memory at rest (RSS), {rooms} rooms", "MiB", 75, digits=0),
    Row("idle_cpu_percent", "CPU at rest", "%", 0.1),
    Row("send_ms", "local send, p50", "ms"),
    Row("send_cpu_ms", "CPU per local message, one sync woken", "ms", 2, 24.7),
    Row("sends_per_s_1", "local sends, 1 sender", "/s", ratio_budget=8, more_is_better=True, digits=0),
    Row("sends_per_s_8", "local sends, 8 senders", "/s", ratio_budget=8, more_is_better=True, digits=0),
    Row("wake_ms", "send until another's long poll returns, p50", "ms", ratio_budget=1 / 6),
    Row("inbound_cpu_ms", "CPU per inbound PDU, batches of 50", "ms", 0.4, 39),
    Row("inbound_per_s", "inbound PDUs", "/s", more_is_better=True, digits=0),
    Row("quiet_ms", "a quiet server's event until a client has it, p50", "ms", digits=1),
    Row("loud_factor", "the same beside a server that sends without end", "×", 2),
    Row("loud_here_factor", "the same in the room that it sends into", "×", 2),
    Row("outbound_ms", "send until the other server has it, p50", "ms"),
    Row("outbound_1_cpu_ms", "CPU per event sent to 1 destination", "ms", 2.5, 18.5),
    Row("outbound_20_cpu_ms", "CPU per event sent to 20 destinations", "ms", 18, 60),
    Row("backfill_per_s", "/backfill served", "events/s", 12_000, 6350, more_is_better=True, digits=0),
    Row("backfill_cpu_us", "CPU per event of /backfill", "µs", digits=0),
    Row("join_1000_cpu_s", "join of 1,000 members: CPU", "s", 0.4, 1.0),
    Row("join_1000_peak_mib", "the same: peak memory", "MiB", 100, digits=0),
    Row("join_10000_cpu_s", "join of 10,000 members: CPU", "s", 4, 10.7),
    Row("join_10000_peak_mib", "the same: peak memory", "MiB", 150, digits=0),
    Row("join_1000_total_cpu_s", "join of 1,000 members: CPU with what follows", "s"),
    Row("join_10000_total_cpu_s", "join of 10,000 members: CPU with what follows", "s"),
    Row("join_1000_wall_s", "join of 1,000 members: until answered", "s"),
    Row("join_10000_wall_s", "join of 10,000 members: until answered", "s"),
    *(
        Row(f"partial_{members}_{key}", title.format(members=f"{members:,}"), unit, digits=digits)
        for members in (1_000, 10_000)
        for key, title, unit, digits in (
            ("wall_s", "join of {members} members that are left out: until answered", "s", 2),
            ("cpu_s", "the same: CPU", "s", 2),
            ("whole_wall_s", "the same: until all members are known", "s", 2),
            ("whole_cpu_s", "the same: CPU", "s", 2),
            ("peak_mib", "the same: peak memory", "MiB", 0),
        )
    ),
    Row("branches_cpu_s", "{branch} + {branch} state events on two branches, merged: CPU", "s", 0.5, 36.5),
    Row("returning_s", "a server back from {missed} messages, until it has the newest", "s"),
    Row("returning_cpu_s", "the same: CPU", "s"),
    Row("returning_given", "the same: messages that it was given", "", digits=0),
    Row("unheard_s", "{missed} events while we were down, until a client has paged to the first", "s"),
    Row("unheard_cpu_s", "the same: CPU", "s"),
    Row(
        "crowd_first_s", "{crowd} servers, {dead} just died: until the last of the living has a message", "s"
    ),
    Row("crowd_first_cpu_ms", "the same: CPU", "ms", digits=0),
    Row("crowd_s", "the next messages, p50", "s"),
    Row("crowd_cpu_ms", "the same: CPU per message", "ms", digits=0),
    Row("crowd_peak_mib", "the same: peak memory", "MiB", digits=0),
    Row("crowd_knocks", "connections to the {dead} in the {after_seconds:g} s after", "/min", digits=0),
    Row("crowd_after_cpu_percent", "the same: CPU", "%", digits=1),
    Row("initial_sync_first_ms", "initial /sync, {sync_rooms} rooms, the first", "ms", digits=0),
    Row("initial_sync_ms", "the same, p50 of the next", "ms", ratio_budget=1 / 6, digits=1),
    Row("first_window_ms", "first window of sliding sync, {sync_rooms} rooms, p50", "ms", digits=1),
    Row("disk_bytes_per_event", "disk per message", "bytes", 1_800, digits=0),
]


def table(figures: Figures, sizes: dict[str, object]) -> str:
    lines = [("what", "Synapse", "minihs", "minihs / Synapse", "budget", "")]
    for row in ROWS:
        values = figures.get(row.key)
        if values is None:
            continue
        synapse, minihs = values.get("synapse"), values.get("minihs")
        ratio = minihs / synapse if synapse and minihs is not None else None
        lines.append(
            (
                row.title.format_map(sizes),
                _number(synapse, row),
                _number(minihs, row),
                "" if ratio is None else f"{ratio:.3g} ({_plain(ratio)})",
                _budget(row),
                _verdict(row, minihs, ratio),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _number(value: float | None, row: Row) -> str:
    return "" if value is None else f"{value:,.{row.digits}f} {row.unit}"


def _plain(ratio: float) -> str:
    if ratio == 0:
        return "0"
    return f"{ratio:.1f} ×" if ratio >= 1 else f"1/{1 / ratio:.1f}"


def _limit(row: Row) -> float | None:
    """The budget as a ratio."""
    if row.budget is not None and row.reference is not None:
        return row.budget / row.reference
    return row.ratio_budget


def _budget(row: Row) -> str:
    sign, limit = "≥" if row.more_is_better else "≤", _limit(row)
    parts = [] if row.budget is None else [f"{row.budget:,g} {row.unit}"]
    parts += [] if limit is None else [_plain(limit)]
    return f"{sign} {' or '.join(parts)}" if parts else ""


def _verdict(row: Row, minihs: float | None, ratio: float | None) -> str:
    """A budget in figures is met in figures. The ratio tells whether the machine is to blame: where
    everything is slower, Synapse is too.
    """
    held = [
        value >= limit if row.more_is_better else value <= limit
        for value, limit in ((minihs, row.budget), (ratio, _limit(row)))
        if value is not None and limit is not None
    ]
    if not held:
        return ""
    if held[0]:
        return "met"
    return "met by ratio only" if any(held) else "MISSED"
