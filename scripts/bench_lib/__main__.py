# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from scripts.bench_lib.scenarios import absence, crowd, fairness, federation, joining, local, standing
from scripts.bench_lib.subject import QUICK, Sizes, Subject
from scripts.bench_lib.table import Figures, table
from tests.interop.kit.authority import Authority
from tests.interop.kit.group import KINDS
from tests.interop.kit.homeserver import Homeserver, Place, log_shown_on_failure
from tests.interop.kit.ports import free_port

type Scenario = Callable[[Subject], Awaitable[dict[str, float]]]
# name -> (scenario, how often in a full run; the median counts)
SCENARIOS: dict[str, tuple[Scenario, int]] = {
    "standing": (standing.standing, 1),
    "send": (local.send, 3),
    "wake": (local.wake, 3),
    "sync": (local.initial_sync, 1),
    "inbound": (federation.inbound, 3),
    "fairness": (fairness.fairness, 3),
    "outbound": (federation.outbound, 3),
    "backfill": (federation.backfill, 3),
    "join": (joining.join, 1),
    "partial": (joining.partial_join, 1),
    "branches": (federation.branches, 1),
    "returning": (absence.returning, 1),
    "unheard": (absence.unheard, 1),
    "crowd": (crowd.crowd, 1),
    "disk": (standing.disk, 1),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller run, for a rough idea")
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="this scenario; may be repeated"
    )
    parser.add_argument(
        "--server", action="append", choices=list(KINDS), help="this server only; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help="how often each scenario runs on each server")
    parser.add_argument("--json", action="store_true", help="figures as JSON in place of the table")
    return parser.parse_args()


def make_server(kind: str, folder: Path, authority: Authority) -> Homeserver:
    port = free_port()
    options: dict[str, object] = {"log_level": "WARNING"}
    return KINDS[kind](Place(f"localhost:{port}", folder, port, free_port(), authority, options=options))


async def run_one(scenario: Scenario, kind: str, sizes: Sizes, authority: Authority) -> dict[str, float]:
    """A scenario on a server of its own: what one leaves behind shall not slow down the next."""
    with tempfile.TemporaryDirectory(prefix="minihs-bench-") as folder:
        server = make_server(kind, Path(folder), authority)
        with log_shown_on_failure(server):
            async with server, trio.open_nursery() as nursery:
                subject = Subject(server, authority, nursery, sizes)
                try:
                    return await scenario(subject)
                finally:
                    await subject.hang_up()
                    nursery.cancel_scope.cancel()


async def run(options: argparse.Namespace) -> tuple[Figures, list[str]]:
    sizes = QUICK if options.quick else Sizes()
    samples: dict[str, dict[str, list[float]]] = {}
    failures: list[str] = []
    kinds = options.server or list(KINDS)
    with tempfile.TemporaryDirectory(prefix="minihs-bench-ca-") as folder:
        authority = Authority.create(Path(folder))
        for name in options.only or SCENARIOS:
            scenario, rounds = SCENARIOS[name]
            for number in range(options.rounds or (1 if options.quick else rounds)):
                for kind in kinds if number % 2 == 0 else reversed(kinds):
                    print(f"{name} on {kind} …", file=sys.stderr, flush=True)
                    try:
                        measured = await run_one(scenario, kind, sizes, authority)
                    except Exception:  # noqa: BLE001 - a scenario that fails shall not cost the others' figures
                        traceback.print_exc()
                        failures.append(f"{name} on {kind}")
                        continue
                    for figure, value in measured.items():
                        samples.setdefault(figure, {}).setdefault(kind, []).append(value)
    figures = {
        figure: {kind: statistics.median(values) for kind, values in by_kind.items()}
        for figure, by_kind in samples.items()
    }
    return figures, failures


def main() -> None:
    options = arguments()
    figures, failures = trio.run(run, options)
    if options.json:
        print(json.dumps({"figures": figures, "failures": failures}, indent=2))
    else:
        sizes = QUICK if options.quick else Sizes()
        print(f"{platform.machine()}, Python {platform.python_version()}, Synapse with SQLite; medians\n")
        print(table(figures, dataclasses.asdict(sizes)))
        print("".join(f"\nfailed: {failure}" for failure in failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
