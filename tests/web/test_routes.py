# SPDX-License-Identifier: Apache-2.0
"""All that is served, looked at as a whole."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import Counter

from minihs.web import rate_limits, routes
from minihs.web.route_modules import ROUTE_MODULES
from minihs.web.routing import Route, Routes

ALL: list[Route] = [route for module in ROUTE_MODULES for route in module.routes.all]


def test_every_route_module_is_served() -> None:
    names = [each.name for each in pkgutil.walk_packages(routes.__path__, routes.__name__ + ".")]
    modules = [importlib.import_module(name) for name in names]
    declaring = {each.__name__ for each in modules if isinstance(getattr(each, "routes", None), Routes)}
    assert {module.__name__ for module in ROUTE_MODULES} == declaring
    assert len(ROUTE_MODULES) == len(declaring)


def test_no_path_is_served_twice() -> None:
    served = Counter((route.method, re.sub(r"\{\w+\}", "{}", path)) for route in ALL for path in route.paths)
    assert [path for path, times in served.items() if times > 1] == []


def test_every_limit_that_a_route_names_exists() -> None:
    assert {route.limit for route in ALL if route.limit is not None} <= rate_limits.LIMITS.keys()


def test_every_handler_takes_what_its_paths_give() -> None:
    for route in ALL:
        parameters = inspect.signature(route.handler).parameters
        _, *names = parameters
        needed = {name for name in names if parameters[name].default is inspect.Parameter.empty}
        for path in route.paths:
            given = set(re.findall(r"\{(\w+)\}", path))
            assert needed <= given <= set(names), f"{route.method} {path}"


def test_federation_is_signed_except_for_what_must_be_open() -> None:
    open_paths = {
        path
        for route in ALL
        for path in route.paths
        if route.api == "federation" and route.auth.name != "FEDERATION"
    }
    allowed = (
        "/_matrix/key/",
        "/.well-known/",
        "/_matrix/federation/v1/version",
        "/_matrix/federation/v1/openid/",
        "/_matrix/federation/v1/3pid/onbind",  # by identity servers, which sign nothing
    )
    assert {path for path in open_paths if not path.startswith(allowed)} == set()
