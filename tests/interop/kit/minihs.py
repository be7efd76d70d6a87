# SPDX-License-Identifier: Apache-2.0
"""minihs as its users run it: `minihs serve --config minihs.toml` in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.interop.kit.homeserver import Homeserver

SQLITE_MAGIC = b"SQLite format 3\0"


class Minihs(Homeserver):
    kind = "minihs"

    def command(self) -> list[str]:
        serve = ["serve", "--config", str(self.place.folder / "minihs.toml")]
        # MINIHS_BINARY: the same tests on a built single file.
        if binary := os.environ.get("MINIHS_BINARY"):
            return [binary, *serve]
        return [sys.executable, "-m", "minihs", *serve]

    @property
    def data_dir(self) -> Path:
        return self.place.folder / "data"

    @property
    def database_files(self) -> list[Path]:
        found = [file for file in self.data_dir.rglob("*") if file.is_file()]
        return [file for file in found if _first_bytes(file, len(SQLITE_MAGIC)) == SQLITE_MAGIC]

    def prepare(self) -> None:
        place = self.place

        def text(value: object) -> str:
            return json.dumps(str(value))  # a JSON string without exotic characters is a TOML string

        (place.folder / "minihs.toml").write_text(
            f"""\
server_name = {text(place.server_name)}
data_dir = {text(self.data_dir)}

[[listen]]
address = "127.0.0.1:{place.federation_port}"
tls_certificate = {text(place.authority.certificate)}
tls_key = {text(place.authority.key)}

[[listen]]
address = "127.0.0.1:{place.client_port}"

[registration]
shared_secret = {text(place.secret)}

[federation]
ca_file = {text(place.authority.ca_file)}
allow_networks = ["127.0.0.0/8", "::1/128"]

[rate_limits]
enabled = false
{place.options.get("minihs", "")}
"""
        )


def _first_bytes(file: Path, count: int) -> bytes:
    with file.open("rb") as handle:
        return handle.read(count)
