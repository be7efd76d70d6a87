# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import time
from typing import Any

import canonicaljson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minihs.matrix import canonical
from minihs.matrix.canonical import BadJson

# appendices, "Canonical JSON", "Examples"
SPEC_EXAMPLES = [
    ("{}", "{}"),
    ('{"one": 1, "two": "Two"}', '{"one":1,"two":"Two"}'),
    ('{"b": "2", "a": "1"}', '{"a":"1","b":"2"}'),
    ('{"b":"2","a":"1"}', '{"a":"1","b":"2"}'),
    (
        """{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
        "three_pids": [{"medium": "email", "address": "john.doe@example.org"},
        {"medium": "msisdn", "address": "123456789"}]}}}""",
        '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":'
        '[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},'
        '"success":true}}',
    ),
    ('{"a": "日本語"}', '{"a":"日本語"}'),
    ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
    ('{"a": "\\u65E5"}', '{"a":"日"}'),
    ('{"a": null}', '{"a":null}'),
    ('{"a": -0}', '{"a":0}'),
]

strict_values = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.MAX_INT, canonical.MAX_INT) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
any_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


class TestEncode:
    @pytest.mark.parametrize(("text", "expected"), SPEC_EXAMPLES)
    def test_the_examples_of_the_specification(self, text: str, expected: str) -> None:
        value = canonical.loads(text.encode(), strict=True)
        assert canonical.encode(value) == expected.encode()
        assert canonical.encode_checked(value) == expected.encode()

    def test_an_exponent_is_a_float_though_the_last_example_would_have_it_an_integer(self) -> None:
        # The example of the appendices turns 1e10 into 10000000000. No server does so: strict rooms refuse
        # it, and where floats are let through every server writes it as Python does.
        assert canonical.encode(canonical.loads(b'{"a":1e10}')) == b'{"a":10000000000.0}'
        with pytest.raises(BadJson):
            canonical.loads(b'{"a":1e10}', strict=True)

    @given(strict_values)
    def test_strict_values_become_the_bytes_of_canonicaljson(self, value: Any) -> None:
        canonical.check_strict(value)
        expected = canonicaljson.encode_canonical_json(value)
        assert canonical.encode(value) == canonical.encode_checked(value) == expected
        assert canonical.loads(expected, strict=True) == value

    @given(any_values)
    def test_values_of_old_rooms_become_the_bytes_of_canonicaljson(self, value: Any) -> None:
        assert canonical.encode(value) == canonicaljson.encode_canonical_json(value)

    def test_characters(self) -> None:
        every_ascii = "".join(map(chr, range(128)))
        assert canonical.encode(every_ascii) == (
            rb'"\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f'
            rb"\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f"
            rb" !\"#$%&"
            rb"'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
            b'\x7f"'
        )
        assert canonical.encode("\x80\u2028\ufeff\U0001f600") == '"\x80\u2028\ufeff\U0001f600"'.encode()

    def test_keys_are_ordered_by_code_point_also_beyond_the_basic_plane(self) -> None:
        # By UTF-16 units, U+1F600 would come before U+E000.
        value = {"\U0001f600": 5, "\uffff": 4, "\ue000": 3, "aa": 2, "a": 1, "B": 0, "": -1}
        assert (
            canonical.encode(value)
            == '{"":-1,"B":0,"a":1,"aa":2,"\ue000":3,"\uffff":4,"\U0001f600":5}'.encode()
        )

    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (0, b"0"),
            (-1, b"-1"),
            (2**53, b"9007199254740992"),
            (2**63, b"9223372036854775808"),
            (2**64, b"18446744073709551616"),
            (-(2**63) - 1, b"-9223372036854775809"),
            (10**400, b"1" + b"0" * 400),
            (1.0, b"1.0"),
            (-0.0, b"-0.0"),
            (1e16, b"1e+16"),
            (1e-7, b"1e-07"),
            (5e-324, b"5e-324"),
            (0.1, b"0.1"),
        ],
    )
    def test_numbers_of_old_rooms(self, number: float, text: bytes) -> None:
        assert canonical.encode({"n": [number]}) == b'{"n":[' + text + b"]}"
        assert canonical.dumps({"n": [number]}).startswith(b'{"n":[')

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, -math.inf, "\ud800", {"\udfff": 1}, {1: 2}, {None: 1}, b"x", {1, 2}, object],
    )
    def test_what_has_no_canonical_form_is_refused(self, value: Any) -> None:
        with pytest.raises(BadJson):
            canonical.encode([value])

    @pytest.mark.parametrize("value", ["\ud800", {1: 2}, b"x", 2**64])
    def test_what_check_strict_would_have_refused_is_refused_when_unchecked(self, value: Any) -> None:
        with pytest.raises(BadJson):
            canonical.encode_checked([value])

    def test_a_foreign_key_is_refused_even_beside_a_number_that_orjson_cannot_write(self) -> None:
        with pytest.raises(BadJson, match="key"):
            canonical.encode({1: 2**64})

    def test_deep_values_of_our_own_are_written_or_refused_but_never_crash(self) -> None:
        value: Any = []
        for _ in range(300):
            value = [value]
        assert canonical.encode(value) == nested(301)
        for _ in range(100_000):
            value = [value]
        with pytest.raises(BadJson):
            canonical.encode(value)
        with pytest.raises(BadJson):
            canonical.dumps(value)

    def test_a_tuple_is_a_list(self) -> None:
        canonical.check_strict((1, ("a",)))
        assert canonical.encode({"a": (1, 2.5)}) == b'{"a":[1,2.5]}'


class TestDumps:
    def test_keys_keep_their_order(self) -> None:
        assert canonical.dumps({"b": 1, "a": "ü"}) == '{"b":1,"a":"ü"}'.encode()

    def test_large_integers_are_written_exactly(self) -> None:
        assert canonical.dumps({"b": 2**70, "a": "ü"}) == '{"b":1180591620717411303424,"a":"ü"}'.encode()

    @pytest.mark.parametrize("value", ["\ud800", {1: 2}, b"x", {"a": 2**64, "b": b"x"}])
    def test_what_is_not_json_is_refused(self, value: Any) -> None:
        with pytest.raises(BadJson):
            canonical.dumps([value])

    def test_foreign_types_are_not_serialised_behind_our_back(self) -> None:
        class Text(str):
            __slots__ = ()

        with pytest.raises(BadJson):
            canonical.dumps(Text("x"))


class TestLoads:
    @pytest.mark.parametrize("strict", [True, False])
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b" ",
            b"{",
            b"[1,]",
            b"{'a':1}",
            b"01",
            b"+1",
            b".5",
            b"1.",
            b"NaN",
            b"[NaN]",
            b"Infinity",
            b"[-Infinity]",
            b"1e400",
            b'"\\ud800"',
            b'"\\udc00\\ud800"',
            b'{"\\ud800":1}',
            b'"\\x41"',
            b'"\x01"',
            b'"\n"',
            b'"\xff"',
            b'"\xed\xa0\x80"',
            b'"\xc0\x80"',
            b"\xef\xbb\xbf{}",
            "{}".encode("utf-16"),
            "{}".encode("utf-16-le"),
            b"{} {}",
            b"{}\x00",
            b"\xa0{}",
        ],
    )
    def test_what_is_not_json_is_refused(self, data: bytes, strict: bool) -> None:
        with pytest.raises(BadJson):
            canonical.loads(data, strict=strict)

    @pytest.mark.parametrize(
        "poison",
        [b"NaN", b"-Infinity", b'"\\ud800"', b'{"\\udfff":1}', b"1e400", b'"\xff"', b"[1,]", b'"\n"', b"01"],
    )
    def test_nothing_gets_past_the_parser_that_large_numbers_need(self, poison: bytes) -> None:
        huge = b"9" * 400
        assert canonical.loads(b"[" + huge + b"]") == [int(huge)]
        with pytest.raises(BadJson):
            canonical.loads(b"[" + huge + b"," + poison + b"]")
        with pytest.raises(BadJson):
            canonical.loads(b"\xef\xbb\xbf[" + huge + b"]")

    @pytest.mark.parametrize(
        "text",
        [
            "9007199254740993",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890",
            "9" * 309,
            "-" + "9" * 4000,
        ],
    )
    def test_integers_of_any_size_stay_exact(self, text: str) -> None:
        value = canonical.loads(b'{"a": [' + text.encode() + b', 1.5, "18446744073709551616"]}')
        assert value == {"a": [int(text), 1.5, "18446744073709551616"]}
        assert type(value["a"][0]) is int
        with pytest.raises(BadJson):
            canonical.loads(text.encode(), strict=True)

    def test_a_number_too_long_for_python_is_refused(self) -> None:
        with pytest.raises(BadJson):
            canonical.loads(b"9" * 5000)

    def test_floats_with_many_digits_are_floats(self) -> None:
        assert canonical.loads(b"[0.1234567890123456789012, 1.5]") == [0.1234567890123456789012, 1.5]

    def test_of_duplicate_keys_the_last_one_counts(self) -> None:
        assert canonical.loads(b'{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}
        assert canonical.loads(b'{"a":1,"b":18446744073709551616,"a":3}') == {"a": 3, "b": 2**64}

    def test_minus_zero_is_the_integer_zero(self) -> None:
        value = canonical.loads(b"[-0]", strict=True)
        assert value == [0]
        assert canonical.encode(value) == b"[0]"

    @given(any_values)
    def test_what_json_writes_is_read_back(self, value: Any) -> None:
        assert canonical.loads(json.dumps(value, ensure_ascii=False).encode()) == value
        assert canonical.loads(canonical.dumps(value)) == value

    @given(any_values)
    @example([1e-7])
    @example({"a": [1e-7, 2**70]})
    def test_what_is_known_of_floats_changes_no_byte(self, value: Any) -> None:
        read, floats = canonical.read(json.dumps(value, ensure_ascii=False).encode())
        assert canonical.encode(read, floats=floats) == canonicaljson.encode_canonical_json(read)

    @pytest.mark.parametrize("strict", [False, True])
    def test_without_floats_and_long_numbers_that_is_known(self, strict: bool) -> None:
        assert canonical.read(b'{"a": [1, "1.5", null]}', strict=strict) == ({"a": [1, "1.5", None]}, False)

    @given(st.text() | st.binary())
    def test_any_bytes_are_read_or_refused(self, data: str | bytes) -> None:
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        try:
            value = canonical.loads(raw)
        except BadJson:
            return
        assert json.loads(raw) == value

    def test_scalars_at_the_top_are_json(self) -> None:
        assert canonical.loads(b"null") is None
        assert canonical.loads(b' "x" ') == "x"


class TestDepth:
    @pytest.mark.parametrize("strict", [True, False])
    def test_a_hundred_and_ten_levels_are_allowed_and_no_more(self, strict: bool) -> None:
        canonical.loads(nested(110), strict=strict)
        canonical.loads(b'{"a":' * 110 + b"1" + b"}" * 110, strict=strict)
        for data in (nested(111), b'{"a":' * 111 + b"1" + b"}" * 111):
            with pytest.raises(BadJson, match="deep"):
                canonical.loads(data, strict=strict)

    def test_the_limit_holds_beside_large_numbers_too(self) -> None:
        for number in (b"18446744073709551616", b"9" * 400):
            canonical.loads(b"[" + number + b"," + nested(109) + b"]")
            with pytest.raises(BadJson, match="deep"):
                canonical.loads(b"[" + number + b"," + nested(110) + b"]")

    def test_what_carries_events_may_be_deeper_whichever_parser_reads_it(self) -> None:
        most = canonical.MAX_CARRIED_DEPTH
        for data in (b"1", b"18446744073709551616", b"9" * 400):
            deep = b"[" + data + b"," + nested(most - 1) + b"]"
            value = canonical.loads(deep, max_depth=most)
            with pytest.raises(BadJson, match="deep"):
                canonical.loads(b"[" + deep + b"]", max_depth=most)
            assert canonical.encode(value) == canonical.dumps(value) == deep
            objects = b'{"a":' * (most - 1) + b"[" + data + b"]" + b"}" * (most - 1)
            assert canonical.encode(canonical.loads(objects, max_depth=most)) == objects

    @pytest.mark.parametrize("more", [b"", b"," + b"9" * 400])
    def test_what_no_parser_reads_is_bad_whatever_the_limit(self, more: bytes) -> None:
        with pytest.raises(BadJson):
            canonical.loads(b"[" + nested(100_000) + more + b"]", max_depth=1_000_000)

    def test_brackets_in_strings_and_side_by_side_are_not_depth(self) -> None:
        canonical.loads(b'["' + b"[" * 1000 + b'", ' + b"9" * 400 + b', "\\"[[[["]', max_depth=1)
        canonical.loads(b"[" + b"[]," * 1000 + b"[]]", max_depth=2)

    def test_the_limit_can_be_chosen(self) -> None:
        canonical.loads(nested(3), max_depth=3)
        with pytest.raises(BadJson):
            canonical.loads(nested(4), max_depth=3)

    def test_a_body_of_brackets_is_refused_at_once(self) -> None:
        for data in (b"[" * 10_000_000, b'{"a":' * 2_000_000, b"[" * 10_000_000 + b"9" * 400):
            started = time.process_time()
            with pytest.raises(BadJson):
                canonical.loads(data)
            assert time.process_time() - started < 1


class TestCheckStrict:
    @pytest.mark.parametrize("value", [0, canonical.MAX_INT, -canonical.MAX_INT, "x", None, True, [], {}])
    def test_what_it_allows(self, value: Any) -> None:
        canonical.check_strict(value)
        canonical.check_strict({"a": [{"b": value}]})

    @pytest.mark.parametrize("value", [2**53, -(2**53), 1.0, 0.0, math.nan, b"x", {1}])
    def test_what_it_refuses(self, value: Any) -> None:
        for whole in (value, {"a": value}, [{"b": [value]}]):
            with pytest.raises(BadJson):
                canonical.check_strict(whole)

    def test_depth(self) -> None:
        canonical.check_strict(json.loads(nested(100)))
        canonical.check_depth(json.loads(nested(100)))
        with pytest.raises(BadJson):
            canonical.check_strict(json.loads(nested(101)))
        with pytest.raises(BadJson):
            canonical.check_depth(json.loads(nested(101)))
        assert not canonical.is_too_deep(json.loads(nested(100)))
        assert canonical.is_too_deep(json.loads(nested(101)))
        assert canonical.is_too_deep(json.loads(nested(9000)))


class TestLoadsChecked:
    """It may take the place of `loads` wherever `check_strict` decides in the end."""

    @given(any_values)
    def test_what_passes_is_read_alike_and_what_does_not_is_refused_alike(self, value: Any) -> None:
        data = json.dumps(value).encode()
        try:
            slowly = canonical.loads(data)
            canonical.check_strict(slowly)
        except BadJson:
            with pytest.raises(BadJson):
                canonical.check_strict(canonical.loads_checked(data))
        else:
            quickly = canonical.loads_checked(data)
            assert quickly == slowly
            assert canonical.encode(quickly) == canonical.encode(slowly)

    @pytest.mark.parametrize("number", [2**53, -(2**53), 2**63, 2**64, -(2**64), 10**400])
    def test_a_large_integer_is_refused_by_the_strict_check(self, number: int) -> None:
        with pytest.raises(BadJson):
            canonical.check_strict(canonical.loads_checked(b'{"depth":%d}' % number))

    def test_a_number_that_orjson_refuses_costs_nothing_where_it_is_not_looked_at(self) -> None:
        read = canonical.loads_checked(b'{"unsigned":{"age":1%s},"depth":5}' % (b"0" * 400))
        del read["unsigned"]
        canonical.check_strict(read)
        assert read == {"depth": 5}

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"NaN", b'"\\ud800"', b"1e999", nested(2000)])
    def test_what_is_no_json_is_refused(self, data: bytes) -> None:
        with pytest.raises(BadJson):
            canonical.loads_checked(data)

    def test_a_long_text_of_tiny_values_is_refused(self) -> None:
        with pytest.raises(BadJson, match="too many values"):
            canonical.loads_checked(b"[" + b"[]," * 2 * canonical.MAX_VALUES + b"1]")
