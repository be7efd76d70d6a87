# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from typing import Any

import pytest

from minihs.matrix.acl import ServerAcl


def acl(**content: Any) -> ServerAcl:
    return ServerAcl.from_content(content)


def test_what_is_allowed_and_not_denied_may_take_part() -> None:
    rules = acl(allow=["*"], deny=["evil.com", "*.evil.com"])
    assert rules.allows("good.com")
    assert rules.allows("notevil.com")
    assert not rules.allows("evil.com")
    assert not rules.allows("a.b.evil.com")


def test_deny_goes_before_allow() -> None:
    assert not acl(allow=["evil.com", "*"], deny=["evil.com"]).allows("evil.com")


def test_what_is_not_allowed_is_denied() -> None:
    rules = acl(allow=["good.com", "*.good.com", "a?.example", "x*y.example", "*mid*"])
    for name in ("good.com", "a.good.com", "ab.example", "x.y.example", "xy.example", "amidst.org"):
        assert rules.allows(name)
    for name in ("bad.com", "notgood.com", "abc.example", "a.example", "y.example", "xy.exampl"):
        assert not rules.allows(name)


@pytest.mark.parametrize("name", ["evil.com", "evil.com:8448", "evil.com:1", "EVIL.com", "eViL.CoM:443"])
def test_ports_and_case_do_not_matter(name: str) -> None:
    assert not acl(allow=["*"], deny=["Evil.COM"]).allows(name)
    assert not acl(allow=["*"], deny=["*.COM"]).allows(name)
    assert not acl(allow=["*"], deny=["e?il.*"]).allows(name)
    assert acl(allow=["EVIL.com"]).allows(name)


def test_an_entry_with_a_port_matches_nobody() -> None:
    assert acl(allow=["*"], deny=["evil.com:8448"]).allows("evil.com:8448")


@pytest.mark.parametrize("name", ["1.2.3.4", "1.2.3.4:8448", "[::1]", "[2001:db8::1]:8448"])
def test_ip_literals_can_be_denied_as_such(name: str) -> None:
    assert acl(allow=["*"]).allows(name)
    assert acl(allow=["*"], allow_ip_literals=True).allows(name)
    assert not acl(allow=["*"], allow_ip_literals=False).allows(name)
    assert not acl(allow=[name.removesuffix(":8448")], allow_ip_literals=False).allows(name)
    not_booleans: list[Any] = [0, None, "false", [], {}]
    for not_a_boolean in not_booleans:
        assert acl(allow=["*"], allow_ip_literals=not_a_boolean).allows(name)


def test_names_that_only_look_like_addresses_are_names() -> None:
    assert acl(allow=["*"], allow_ip_literals=False).allows("1.2.3.example")


def test_ip_literals_are_matched_as_they_are_written() -> None:
    rules = acl(allow=["*"], deny=["[::1]", "10.*"])
    assert not rules.allows("[::1]:8448")
    assert not rules.allows("10.1.2.3")
    assert rules.allows("[::2]")


@pytest.mark.parametrize(
    "content", [{}, {"allow": []}, {"deny": []}, {"allow": None}, {"allow": "*"}, {"allow": {"*": 1}}]
)
def test_without_a_list_of_the_allowed_nobody_is_allowed(content: dict[str, Any]) -> None:
    rules = ServerAcl.from_content(content)
    assert not rules.allows("good.com")
    assert not rules.allows("1.2.3.4")


def test_malformed_entries_count_for_nothing() -> None:
    rules = acl(allow=[None, 5, ["*"], {"*": 1}, "good.com"], deny="good.com")
    assert rules.allows("good.com")
    assert not rules.allows("other.com")
    assert acl(allow=["*"], deny=[None, "", "evil.com"]).allows("good.com")


@pytest.mark.parametrize("name", ["", "evil.com.", "a..b", "a b", "evil.com:99999", "[::1", "a/b", "é.com"])
def test_what_is_not_a_server_name_is_never_allowed(name: str) -> None:
    assert not acl(allow=["*"]).allows(name)


def test_stars_alone_match_everybody() -> None:
    assert acl(allow=["**"]).allows("a")
    assert not acl(allow=["*"], deny=["***"]).allows("a")


def test_the_same_question_gets_the_same_answer_however_many_are_asked() -> None:
    rules = acl(allow=["*"], deny=["*.evil.com"])
    for n in range(1_500):
        for _ in range(2):
            assert rules.allows(f"s{n}.good.com")
            assert not rules.allows(f"s{n}.evil.com")
    assert not rules.allows("s0.evil.com")


def test_ten_thousand_entries_against_ten_thousand_servers() -> None:
    # As much as fits into an event: CVE-2023-45129 was about lists like these.
    rules = acl(allow=["*"], deny=[f"*{n:x}.e" for n in range(5_000)] + [f"{n:x}.ex" for n in range(5_000)])
    started = time.process_time()
    for n in range(10_000):
        rules.allows(f"server{n}.example")
    assert time.process_time() - started < 2
    assert not rules.allows("server1f.e")
    assert not rules.allows("1f.ex")


def test_a_list_of_hostile_globs_costs_little_a_server() -> None:
    globs = (
        ["*a?" * 20 + "b"] * 3
        + [f"*a{n}*b?c" for n in range(5_000)]
        + ["*?a" * 80 + f"z{n}" for n in range(200)]
    )
    rules = acl(allow=["*"], deny=globs)
    started = time.process_time()
    for n in range(10):
        assert rules.allows("a" * 240 + str(n))
    assert time.process_time() - started < 2
