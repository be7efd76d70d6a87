# SPDX-License-Identifier: Apache-2.0
"""The certificate authority of the tests: one CA, one certificate for the names of the loopback interface."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Authority:
    ca_file: Path
    certificate: Path
    key: Path

    @classmethod
    def create(cls, folder: Path) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(made.ca_file))
        server = ca.issue_cert("localhost", "127.0.0.1", "::1")
        made.certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        server.private_key_pem.write_to_path(str(made.key))
        return made

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self.certificate), str(self.key))
        return context
