# SPDX-License-Identifier: Apache-2.0
"""Finding the route of a path."""

from __future__ import annotations

import pytest

from minihs.matrix.errors import MatrixError
from minihs.web.routing import CLIENT, NONE, Routes
from minihs.web.url_map import UrlMap

APIS = frozenset({"client", "federation"})


def made(*paths: tuple[str, str]) -> UrlMap:
    routes, url_map = Routes(), UrlMap()
    for method, path in paths:
        routes.add(method, path, auth=CLIENT)(handler)
    for route in routes.all:
        url_map.add(route)
    return url_map


async def handler(_: object) -> dict[str, object]:
    return {}


def found(url_map: UrlMap, path: bytes, method: str = "GET") -> tuple[str, dict[str, str]]:
    route, arguments = url_map.find(method, path, APIS)
    return route.paths[0], arguments


def test_a_fixed_name_goes_before_a_parameter() -> None:
    url_map = made(("GET", "/a/{x}/c"), ("GET", "/a/b/{y}"), ("GET", "/a/b/c"))
    assert found(url_map, b"/a/b/c") == ("/a/b/c", {})
    assert found(url_map, b"/a/b/d") == ("/a/b/{y}", {"y": "d"})
    assert found(url_map, b"/a/z/c") == ("/a/{x}/c", {"x": "z"})


def test_a_fixed_path_of_another_method_or_listener_hides_nothing() -> None:
    url_map = made(
        ("GET", "/a/b"), ("PUT", "/a/{x}"), ("GET", "/_matrix/federation/b"), ("GET", "/_matrix/{x}/b")
    )
    assert found(url_map, b"/a/b", "HEAD") == ("/a/b", {})
    assert found(url_map, b"/a/b", "PUT") == ("/a/{x}", {"x": "b"})
    for apis, expected in ((APIS, "/_matrix/federation/b"), ({"client"}, "/_matrix/{x}/b")):
        assert url_map.find("GET", b"/_matrix/federation/b", frozenset(apis))[0].paths[0] == expected
    with pytest.raises(MatrixError) as refused:
        url_map.find("POST", b"/a/b", APIS)
    assert refused.value.status == 405


def test_a_dead_end_behind_a_fixed_name_is_left_again() -> None:
    url_map = made(("GET", "/a/b/{y}/d"), ("GET", "/a/{x}/c"), ("PUT", "/a/b/c"))
    assert found(url_map, b"/a/b/c") == ("/a/{x}/c", {"x": "b"})
    assert found(url_map, b"/a/b/c", "PUT") == ("/a/b/c", {})


def test_each_method_names_its_parameters_itself() -> None:
    url_map = made(("GET", "/rooms/{room_id}"), ("PUT", "/rooms/{alias}"))
    assert found(url_map, b"/rooms/%21a%2Fb")[1] == {"room_id": "!a/b"}
    assert found(url_map, b"/rooms/%23a", "PUT")[1] == {"alias": "#a"}


def test_a_parameter_is_never_empty() -> None:
    url_map = made(("GET", "/a/{x}"), ("GET", "/b/{x}/c"))
    for path in (b"/a/", b"/a", b"/b//c", b"/b/c"):
        with pytest.raises(MatrixError) as error:
            found(url_map, path)
        assert error.value.status == 404


def test_what_a_listener_does_not_serve_is_not_there_even_for_another_method() -> None:
    routes, url_map = Routes(), UrlMap()
    routes.put("/_matrix/federation/v1/send/{txn_id}", auth=NONE)(handler)
    url_map.add(routes.all[0])
    for apis, status in ((APIS, 405), (frozenset({"client"}), 404)):
        with pytest.raises(MatrixError) as error:
            url_map.find("GET", b"/_matrix/federation/v1/send/1", apis)
        assert error.value.status == status
