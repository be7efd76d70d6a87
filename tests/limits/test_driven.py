# SPDX-License-Identifier: Apache-2.0
"""Every row of docs/limits.md has a test: one that names the constant, or that of the list below."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minihs.cli import limits

TESTS = Path(__file__).parent.parent
TEXTS = {path: path.read_text() for path in TESTS.rglob("*.py") if path != Path(__file__)}

BY_ITS_NUMBER = {
    "web/body.py CHUNKS_IN_FLIGHT": "web/test_bodies.py::test_memory_is_bounded_whatever_is_sent",
    "rooms/policy.py DOWN_MS": (
        "rooms/test_policy.py::test_a_policy_server_that_is_down_is_not_asked_about_everything"
    ),
    "federation/pools.py CONNECTIONS_PER_SERVER": (
        "federation/test_transport.py::test_four_requests_to_one_server_run_at_once_and_a_fifth_waits_its_turn"
    ),
    "federation/request_auth.py MAX_SIGNATURES": (
        "federation/test_request_auth.py::test_more_signatures_than_make_sense_are_refused"
    ),
    "federation/outgoing.py MAX_PDUS": (
        "federation/test_senders.py::test_transactions_hold_at_most_50_pdus_and_100_edus_in_order"
    ),
    "federation/outgoing.py MAX_EDUS": (
        "federation/test_senders.py::test_transactions_hold_at_most_50_pdus_and_100_edus_in_order"
    ),
    "federation/sender.py MAX_FLEETING": "federation/test_senders.py::test_fleeting_edus_have_an_end",
    "push/pushers.py MAX_AGE_MS": "push/test_pushers.py::test_old_messages_are_no_news",
    "push/pushers.py FIRST_PAUSE_MS": (
        "push/test_pushers.py::test_a_gateway_that_fails_gets_everything_once_it_works"
    ),
    "push/pushers.py LONGEST_PAUSE_MS": (
        "push/test_pushers.py::test_a_gateway_that_fails_gets_everything_once_it_works"
    ),
    "federation/gateway.py TIMEOUT": "push/test_pushers.py::test_a_slow_gateway_holds_up_nobody_else",
    "federation/gateway.py MAX_ANSWER": "push/test_pushers.py::test_a_strange_answer_does_no_harm",
    "media/shrinker.py MAX_PIXELS": "media/test_thumbnails.py::test_a_decompression_bomb_is_too_large",
    "media/shrinker.py CPU_SECONDS": (
        "media/test_thumbnails.py::test_the_process_has_no_more_time_than_it_is_given"
    ),
    "users/logins.py LOGIN_TOKEN_LIFETIME_MS": "web/client/test_login.py::test_it_expires",
    "users/accounts.py MAX_INVITATION_DAYS": "cli/test_user.py::test_an_invitation_has_an_end",
    "store/database.py MAX_BATCH": "store/test_database.py::test_writes_that_wait_together_share_one_commit",
}
"""Constant → the test that goes beyond it without naming it."""


def names(module: str, name: str) -> bool:
    """Whether a test names the constant of that module."""
    dotted = "minihs." + module.removesuffix(".py").replace("/", ".")
    package, _, last = dotted.rpartition(".")
    imported = re.compile(
        rf"{re.escape(dotted)}\b|from {re.escape(package)} import (\([^)]*|[^\n]*)\b{last}\b", re.S
    )
    word = re.compile(rf"\b{name}\b")
    return any(word.search(text) and imported.search(text) for text in TEXTS.values())


@pytest.mark.parametrize(
    ("module", "name"),
    [constant for row in limits.table(limits.text()) for constant in row.constants],
)
def test_every_limit_is_driven_to_one_more(module: str, name: str) -> None:
    where = f"{module} {name}"
    if where in BY_ITS_NUMBER:
        path, _, test = BY_ITS_NUMBER[where].partition("::")
        assert f"def {test}(" in (TESTS / path).read_text()
    else:
        assert names(module, name), (
            f"no test names {where}, which has a row in docs/limits.md. If one goes beyond it all the same, "
            "put it into BY_ITS_NUMBER"
        )


def test_nothing_is_listed_that_is_no_limit() -> None:
    rows = {f"{m} {n}" for row in limits.table(limits.text()) for m, n in row.constants}
    assert rows >= BY_ITS_NUMBER.keys()
