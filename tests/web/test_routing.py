# SPDX-License-Identifier: Apache-2.0
"""Declaring routes and reading query strings."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from minihs.matrix.errors import MatrixError
from minihs.web.routing import (
    CLIENT,
    DEFAULT_BODY_CAP,
    FEDERATION,
    MAX_QUERY_FIELDS,
    NONE,
    QueryArgs,
    Routes,
    api_of,
)


class TestQuery:
    def test_values_are_decoded(self) -> None:
        query = QueryArgs(b"a=%C3%A9+b%2Bc&empty=&server_name=x&server_name=y")
        assert query.get("a") == "é b+c"
        assert query.get("empty") == ""
        assert query.get("missing") is None
        assert query.get("missing", "default") == "default"
        assert query.getlist("server_name") == ["x", "y"]
        assert query.getlist("missing") == []

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a",
            "a=",
            "=b",
            "=",
            "&",
            "&&",
            "a=b&",
            "&a=b",
            "a=b=c",
            "a=b&a=c",
            "a;b=c",
            "a=%41",
            "a=b+c",
            "%",
            "a&" * (MAX_QUERY_FIELDS - 1),
        ],
    )
    def test_it_is_read_as_forms_are(self, text: str) -> None:
        expected: dict[str, list[str]] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            expected.setdefault(name, []).append(value)
        assert QueryArgs(text.encode())._values == expected

    def test_a_required_value_must_be_there(self) -> None:
        assert QueryArgs(b"a=1").require("a") == "1"
        with pytest.raises(MatrixError, match="M_MISSING_PARAM"):
            QueryArgs(b"").require("a")

    @pytest.mark.parametrize(
        ("text", "value"), [(b"", 7), (b"n=0", 0), (b"n=5", 5), (b"n=999", 100), (b"n=" + b"9" * 20, 100)]
    )
    def test_whole_numbers_are_clamped_from_above(self, text: bytes, value: int) -> None:
        assert QueryArgs(text).get_int("n", 7, max=100) == value

    @pytest.mark.parametrize(
        "text",
        [b"n=", b"n=-1", b"n=x", b"n=1.5", b"n=1e3", b"n=%D9%A1", b"n=" + b"9" * 21, b"n=--1", b"n=+1"],
    )
    def test_what_is_no_whole_number_is_refused(self, text: bytes) -> None:
        with pytest.raises(MatrixError, match="M_INVALID_PARAM"):
            QueryArgs(text).get_int("n", 7, max=100)

    def test_a_lower_bound_may_be_given(self) -> None:
        assert QueryArgs(b"n=-3").get_int("n", 0, min=-5) == -3
        assert QueryArgs(b"").get_int("n") is None

    def test_truth_is_spelt_true(self) -> None:
        assert QueryArgs(b"a=true").get_bool("a")
        assert not QueryArgs(b"a=false").get_bool("a", default=True)
        assert QueryArgs(b"").get_bool("a", default=True)
        with pytest.raises(MatrixError, match="M_INVALID_PARAM"):
            QueryArgs(b"a=1").get_bool("a")

    @pytest.mark.parametrize(
        "text", [b"a=%ff", b"%ff=a", b"a=\xff", b"&".join([b"a=1"] * (MAX_QUERY_FIELDS + 1))]
    )
    def test_what_can_not_be_read_is_refused(self, text: bytes) -> None:
        with pytest.raises(MatrixError, match="M_INVALID_PARAM"):
            QueryArgs(text)

    def test_the_largest_number_of_fields_is_taken(self) -> None:
        assert len(QueryArgs(b"&".join([b"a=1"] * MAX_QUERY_FIELDS)).getlist("a")) == MAX_QUERY_FIELDS


class TestDeclaring:
    def test_the_old_prefixes_come_by_themselves(self) -> None:
        routes = Routes()
        routes.get("/_matrix/client/v3/x", auth=CLIENT, also=["/_matrix/client/unstable/x"])(handler)
        routes.post("/_matrix/media/v3/y", auth=CLIENT)(handler)
        routes.put("/_matrix/client/v1/z", auth=CLIENT)(handler)
        routes.delete("/_matrix/client/v1/z", auth=CLIENT)(handler)
        first, second, third, fourth = routes.all
        assert first.paths == ("/_matrix/client/v3/x", "/_matrix/client/r0/x", "/_matrix/client/unstable/x")
        assert second.paths == ("/_matrix/media/v3/y", "/_matrix/media/r0/y", "/_matrix/media/v1/y")
        assert third.paths == ("/_matrix/client/v1/z",)
        assert [route.method for route in routes.all] == ["GET", "POST", "PUT", "DELETE"]
        assert fourth.body_cap == DEFAULT_BODY_CAP[CLIENT]

    def test_the_body_cap_follows_from_who_may_ask_unless_it_is_given(self) -> None:
        routes = Routes()
        routes.post("/a", auth=NONE)(handler)
        routes.post("/b", auth=FEDERATION)(handler)
        routes.post("/c", auth=NONE, body_cap=5)(handler)
        assert [route.body_cap for route in routes.all] == [
            DEFAULT_BODY_CAP[NONE],
            DEFAULT_BODY_CAP[FEDERATION],
            5,
        ]

    @pytest.mark.parametrize(
        ("path", "api"),
        [
            ("/_matrix/federation/v1/send/{txn}", "federation"),
            ("/_matrix/key/v2/server", "federation"),
            ("/.well-known/matrix/server", "federation"),
            ("/.well-known/matrix/client", "client"),
            ("/_matrix/client/versions", "client"),
            ("/_matrix/media/v3/upload", "client"),
            ("/_synapse/admin/v1/register", "client"),
            ("/_minihs/admin/users", "admin"),
        ],
    )
    def test_the_listener_follows_from_the_path(self, path: str, api: str) -> None:
        assert api_of(path) == api


async def handler(_: object) -> dict[str, object]:
    return {}
