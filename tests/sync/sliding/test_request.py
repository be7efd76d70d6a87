# SPDX-License-Identifier: Apache-2.0
"""Requests: what is understood, and what is refused with which error."""

from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.sync.filters import MAX_TIMELINE_LIMIT
from minihs.sync.sliding.request import (
    MAX_CONN_ID,
    MAX_LIST_NAME,
    MAX_LISTS,
    MAX_NAMES,
    MAX_RANGES,
    MAX_SUBSCRIPTIONS,
    MAX_TO_DEVICE,
    SlidingRequest,
    parse,
)
from tests.sync.world import ALICE, Json


def parsed(body: Json) -> SlidingRequest:
    return parse(body, ALICE, pos="", timeout_ms=0)


def in_list(**fields: Any) -> Json:
    return {"lists": {"all": {"timeline_limit": 1, **fields}}}


def filtered(**filters: Any) -> Json:
    return in_list(filters=filters)


def extension(**fields: Any) -> Json:
    return {"extensions": {"to_device": {"enabled": True, **fields}}}


@pytest.mark.parametrize(
    "body",
    [
        {"conn_id": 1},
        {"lists": []},
        {"lists": {"all": 1}},
        {"room_subscriptions": []},
        {"room_subscriptions": {"!r:here.test": []}},
        {"extensions": []},
        {"extensions": {"typing": True}},
        {"extensions": {"typing": {"enabled": "yes"}}},
        {"extensions": {"typing": {"enabled": True, "lists": "all"}}},
        {"extensions": {"typing": {"enabled": True, "rooms": [1]}}},
        in_list(timeline_limit="1"),
        in_list(timeline_limit=True),
        in_list(timeline_limit=1.5),
        in_list(ranges=1),
        in_list(ranges=[[0]]),
        in_list(ranges=[[0, "9"]]),
        in_list(range=9),
        in_list(required_state=1),
        filtered(is_dm=1),
        filtered(room_types="m.space"),
        filtered(room_types=[1]),
        filtered(tags=[None]),
        in_list(filters=[]),
        extension(since=1),
        extension(limit="1"),
    ],
)
def test_wrong_types(body: Json) -> None:
    with pytest.raises(MatrixError) as caught:
        parsed(body)
    assert (caught.value.status, caught.value.errcode) == (400, "M_BAD_JSON")


@pytest.mark.parametrize(
    "body",
    [
        {"room_subscriptions": {"#alias:here.test": {}}},
        in_list(timeline_limit=-1),
        in_list(ranges=[[-1, 5]]),
        in_list(ranges=[[5, 4]]),
        extension(since="s1_2"),
        extension(since="-1"),
        extension(since="1" * 19),
        extension(limit=0),
    ],
)
def test_wrong_values(body: Json) -> None:
    with pytest.raises(MatrixError) as caught:
        parsed(body)
    assert (caught.value.status, caught.value.errcode) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("limit", "make"),
    [
        (MAX_CONN_ID, lambda count: {"conn_id": "c" * count}),
        (MAX_LISTS, lambda count: {"lists": {str(number): {} for number in range(count)}}),
        (MAX_LIST_NAME, lambda count: {"lists": {"l" * count: {}}}),
        (
            MAX_SUBSCRIPTIONS,
            lambda count: {"room_subscriptions": {f"!{number}:here.test": {} for number in range(count)}},
        ),
        (MAX_RANGES, lambda count: in_list(ranges=[[0, 1]] * count)),
        (MAX_NAMES, lambda count: filtered(spaces=["!s:here.test"] * count)),
        (MAX_NAMES, lambda count: {"extensions": {"typing": {"enabled": True, "rooms": ["*"] * count}}}),
    ],
)
def test_too_much(limit: int, make: Any) -> None:
    parsed(make(limit))
    with pytest.raises(MatrixError) as caught:
        parsed(make(limit + 1))
    assert (caught.value.status, caught.value.errcode) == (400, "M_INVALID_PARAM")


def test_larger_limits_count_as_the_largest() -> None:
    request = parsed(in_list(timeline_limit=MAX_TIMELINE_LIMIT + 1) | extension(limit=MAX_TO_DEVICE + 1))
    assert request.lists["all"].rooms.timeline_limit == MAX_TIMELINE_LIMIT
    assert request.extensions.to_device is not None
    assert request.extensions.to_device.limit == MAX_TO_DEVICE


def test_what_js_sdk_sends() -> None:
    request = parsed(
        {
            "lists": {
                "all": {
                    "ranges": [[0, 20]],
                    "sort": ["by_recency"],
                    "timeline_limit": 1,
                    "required_state": [["m.room.member", "$LAZY"]],
                    "filters": {},
                    "slow_get_all_rooms": True,
                }
            },
            "unsubscribe_rooms": ["!r:here.test"],
            "txn_id": "5",
            "extensions": {
                "to_device": {"limit": 100, "enabled": True},
                "e2ee": {"enabled": True},
                "org.matrix.msc4354.sticky_events": {"enabled": True, "limit": 100},
            },
        }
    )
    assert request.lists["all"].ranges == ((0, 20),)
    assert request.extensions.e2ee is True
    assert request.extensions.account_data is None


def test_the_same_rooms_have_the_same_digest() -> None:
    assert parsed(in_list() | extension(since="1")).digest == parsed(in_list() | extension(since="2")).digest
    assert parsed(in_list()).digest != parsed(in_list(timeline_limit=2)).digest
    typing = {"extensions": {"typing": {"enabled": True}}}
    assert parsed(in_list() | typing).digest != parsed(in_list()).digest
