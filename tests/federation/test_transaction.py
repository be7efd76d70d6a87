# SPDX-License-Identifier: Apache-2.0
"""A batch, and how it is taken apart when a destination refuses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.federation.transaction import Batch, Item, Transaction, make_transaction
from minihs.matrix import canonical


def item(number: int, *, is_pdu: bool = True) -> Item:
    return Item(canonical.encode({"n": number}), is_pdu, number, f"${number}")


def batch_of(numbers: Sequence[int], *, is_full: bool = False) -> Batch:
    return Batch("us.test", 5, tuple(item(number) for number in numbers), 99, is_full)


def numbers_of(transaction: Transaction) -> list[int]:
    return [pdu["n"] for pdu in json.loads(transaction.content)["pdus"]]


class Destination:
    """Takes a transaction if it holds none of the poison."""

    def __init__(self, takes: Callable[[list[int]], bool]) -> None:
        self.takes = takes
        self.got: list[int] = []
        self.sent: list[Transaction] = []

    def drive(self, batch: Batch) -> bool:
        """Send until the batch is through (True) or the destination is found to be at fault (False)."""
        for _ in range(1000):
            transaction = batch.current
            if transaction is None:
                return True
            self.sent.append(transaction)
            if self.takes(numbers_of(transaction)):
                self.got += numbers_of(transaction)
                going = batch.accept()
            else:
                going = batch.refuse()
            if not going:
                return False
        raise AssertionError("it never ends")


def test_the_bytes_are_canonical_json() -> None:
    items = [item(1), item(2, is_pdu=False), item(3)]
    transaction = make_transaction("us.test", 5, items)
    assert transaction.content == canonical.encode(
        {"origin": "us.test", "origin_server_ts": 5, "pdus": [{"n": 1}, {"n": 3}], "edus": [{"n": 2}]}
    )
    assert make_transaction("us.test", 5, []).content == canonical.encode(
        {"origin": "us.test", "origin_server_ts": 5, "pdus": []}
    )


def test_what_is_taken_goes_in_one_transaction() -> None:
    destination, batch = Destination(lambda numbers: True), batch_of(range(50))
    assert destination.drive(batch)
    assert len(destination.sent) == 1
    assert destination.got == list(range(50))
    assert batch.suspects == []


@pytest.mark.parametrize("poison", [{0}, {49}, {7}, {0, 49}, {3, 4}, set(range(0, 50, 7))])
def test_poison_is_found_and_all_else_is_delivered_in_order(poison: set[int]) -> None:
    destination = Destination(lambda numbers: not poison & set(numbers))
    batch = batch_of(range(50))
    assert destination.drive(batch)
    assert destination.got == [number for number in range(50) if number not in poison]
    assert {suspect.seq for suspect in batch.suspects} == poison


def test_a_lone_item_is_poison_if_an_empty_transaction_passes() -> None:
    destination, batch = Destination(lambda numbers: not numbers), batch_of([1])
    assert destination.drive(batch)
    assert [suspect.seq for suspect in batch.suspects] == [1]


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_destination_that_takes_nothing_is_at_fault_itself(count: int) -> None:
    destination, batch = Destination(lambda numbers: False), batch_of(range(count), is_full=count == 50)
    assert not destination.drive(batch)
    # Nothing is given up: all of it is tried again.
    assert batch.current is not None
    assert numbers_of(batch.current) == list(range(count))


def test_several_items_that_are_all_refused_wait_while_nothing_else_waits() -> None:
    destination, batch = Destination(lambda numbers: not numbers), batch_of([1, 2])
    assert not destination.drive(batch)
    assert batch.suspects == []


def test_a_full_batch_of_poison_does_not_hold_up_the_rest_for_ever() -> None:
    destination, batch = Destination(lambda numbers: not numbers), batch_of(range(50), is_full=True)
    assert destination.drive(batch)
    assert len(batch.suspects) == 50


def test_too_large_a_transaction_is_split_until_it_fits() -> None:
    destination, batch = Destination(lambda numbers: len(numbers) <= 3), batch_of(range(50))
    assert destination.drive(batch)
    assert destination.got == list(range(50))
    assert batch.suspects == []


@given(
    st.integers(1, 60),
    st.sets(st.integers(0, 59)),
    st.integers(0, 60),
    st.booleans(),
)
def test_an_id_never_stands_for_two_contents(count: int, poison: set[int], largest: int, full: bool) -> None:
    def takes(numbers: list[int]) -> bool:
        return len(numbers) <= largest and not poison & set(numbers)

    destination, batch = Destination(takes), batch_of(range(count), is_full=full)
    for _ in range(3):
        if destination.drive(batch):
            break
    contents: dict[str, bytes] = {}
    for sent in destination.sent:
        assert contents.setdefault(sent.txn_id, sent.content) == sent.content
    assert destination.got == sorted(destination.got)
    if batch.current is None:
        missing = {suspect.seq or 0 for suspect in batch.suspects}
        assert sorted([*destination.got, *missing]) == list(range(count))


def test_the_same_content_has_the_same_id_and_another_has_another() -> None:
    first = make_transaction("us.test", 5, [item(1), item(2)])
    assert make_transaction("us.test", 5, [item(1), item(2)]) == first
    others = [
        make_transaction("us.test", 6, [item(1), item(2)]),
        make_transaction("us.test", 5, [item(1)]),
        make_transaction("us.test", 5, [item(2), item(1)]),
        make_transaction("us.test", 5, [item(1), item(2, is_pdu=False)]),
        make_transaction("them.test", 5, [item(1), item(2)]),
    ]
    assert len({first.txn_id, *(other.txn_id for other in others)}) == 6
    assert re.fullmatch("[A-Za-z0-9_-]{43}", first.txn_id)
