# SPDX-License-Identifier: Apache-2.0
"""All outgoing traffic goes through the one dialler: no other module opens sockets or makes HTTP clients."""

from __future__ import annotations

import ast
from pathlib import Path

import minihs

ROOT = Path(minihs.__file__).parent

# What can reach the network, and the modules that may use it.
ALLOWED = {
    "trio.open_tcp_stream": {"federation/network.py"},
    "trio.open_ssl_over_tcp_stream": set(),
    "trio.socket": {"web/serving.py"},  # listens
    "httpcore2.AsyncConnectionPool": set(),
    "httpcore2.AsyncHTTP11Connection": set(),
    "httpcore2.ConnectionPool": set(),
    "httpcore2.request": set(),
    "httpcore2.stream": set(),
    "dns.asyncresolver": {"federation/resolver.py"},
    "dns.resolver": {"federation/resolver.py"},
}
FORBIDDEN_IMPORTS = {
    "http.client": {"cli/admin_socket.py"},  # over the unix socket of the running server
    "urllib.request": set(),
    "requests": set(),
    "httpx": set(),
    "aiohttp": set(),
    "urllib3": set(),
    "ftplib": set(),
    "smtplib": set(),
}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def test_no_other_module_reaches_the_network() -> None:
    offences = []
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used: list[str] = []
            if isinstance(node, ast.ImportFrom):
                used = [node.module or ""]
            elif isinstance(node, ast.Import):
                used = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute):
                used = [dotted(node)]
            for text in used:
                if name not in ALLOWED.get(text, {name}) & FORBIDDEN_IMPORTS.get(text, {name}):
                    offences.append(f"{name}: {text}")
    assert offences == []
