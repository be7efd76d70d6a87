# SPDX-License-Identifier: Apache-2.0
"""`minihs serve` as outside tools see it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import stat
import time
from pathlib import Path

import pytest
import trustme

import minihs as package

from .kit import VERSIONS, free_port, get, minihs, serving


def write_config(folder: Path, port: int, more: str = "") -> Path:
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost")
    (folder / "certificate.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    path = folder / "minihs.toml"
    path.write_text(
        f"""
        server_name = "localhost:{port}"
        data_dir = "data"
        [[listen]]
        address = "127.0.0.1:{port}"
        tls_certificate = "certificate.pem"
        tls_key = "key.pem"
        {more}
        """
    )
    return path


def trust(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "ca.pem")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_over_tls_and_stops_with_status_0(tmp_path: Path, number: int) -> None:
    port = free_port()
    write_config(tmp_path, port)
    with serving(tmp_path, "--config", "minihs.toml") as server:
        answer = server.wait_until_ready(port, trust(tmp_path))
        assert "v1.11" in answer["versions"]
        started = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - started < 3.5
        assert "Traceback" not in server.log


def test_an_idle_connection_and_a_long_request_do_not_hold_it_up(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, port)
    with serving(tmp_path) as server:
        server.wait_until_ready(port, trust(tmp_path))
        idle = http.client.HTTPSConnection("localhost", port, timeout=10, context=trust(tmp_path))
        idle.request("GET", VERSIONS)
        idle.getresponse().read()
        with socket.create_connection(("127.0.0.1", port)):  # a handshake that never comes
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 3.5
        idle.close()


def test_a_long_poll_is_answered_when_it_stops(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "minihs.toml").write_text(
        f"""
        server_name = "localhost:{port}"
        data_dir = "data"
        [[listen]]
        address = "127.0.0.1:{port}"
        [registration]
        mode = "open"
        """
    )
    with serving(tmp_path) as server:
        server.wait_until_ready(port)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        body = {"username": "ann", "password": "open sesame", "auth": {"type": "m.login.dummy"}}
        client.request("POST", "/_matrix/client/v3/register", json.dumps(body))
        headers = {"Authorization": f"Bearer {json.loads(client.getresponse().read())['access_token']}"}
        client.request("GET", "/_matrix/client/v3/sync", headers=headers)
        since = json.loads(client.getresponse().read())["next_batch"]
        client.request("GET", f"/_matrix/client/v3/sync?timeout=30000&since={since}", headers=headers)
        time.sleep(0.5)  # until it waits
        server.process.send_signal(signal.SIGTERM)
        response = client.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["next_batch"]
        assert server.process.wait(10) == 0
        client.close()


def test_two_listeners_and_a_unix_socket_serve_their_own_apis(tmp_path: Path) -> None:
    port, clients = free_port(), free_port()
    write_config(
        tmp_path,
        port,
        f"""
        apis = ["federation"]
        [[listen]]
        address = "127.0.0.1:{clients}"
        apis = ["client"]
        [[listen]]
        address = "unix:minihs.sock"
        apis = ["client"]
        """,
    )
    with serving(tmp_path) as server:
        server.wait_until_ready(clients)
        assert get(port, VERSIONS, trust(tmp_path))[0] == 404
        assert get(clients, "/_matrix/federation/v1/version")[0] == 404
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "minihs.sock"))
            sock.sendall(f"GET {VERSIONS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
    assert not (tmp_path / "minihs.sock").exists()


def test_a_certificate_is_reloaded_on_sighup(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, port)
    with serving(tmp_path) as server:
        old = trust(tmp_path)
        server.wait_until_ready(port, old)
        write_config(tmp_path, port)  # of another authority
        server.process.send_signal(signal.SIGHUP)
        new, deadline = trust(tmp_path), time.monotonic() + 10
        while True:
            try:
                assert get(port, VERSIONS, new)[0] == 200
                break
            except ssl.SSLCertVerificationError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with pytest.raises(ssl.SSLCertVerificationError):
            get(port, VERSIONS, old)


def test_the_signing_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, port)
    path = tmp_path / "data" / "signing.key"
    texts = []
    for _ in range(2):
        with serving(tmp_path) as server:
            server.wait_until_ready(port, trust(tmp_path))
            assert server.stop() == 0
        texts.append(path.read_text())
    assert re.fullmatch(r"ed25519 a_\w{4} [A-Za-z0-9+/]{43}\n", texts[0])
    assert texts[0] == texts[1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_configuration_it_is_a_local_server_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8448)) == 0:
            pytest.skip("port 8448 is in use on this machine")
    with serving(tmp_path) as server:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        server.wait_until_ready(8448, context)
        # The certificate is its own authority, for those who want to trust it.
        trusting = ssl.create_default_context(cafile=tmp_path / "minihs-data" / "self-signed.pem")
        assert get(8448, VERSIONS, trusting)[0] == 200
        assert "localhost:8448" in server.log
        assert "self-signed" in server.log
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('server_name = "a"\ncolour = "red"', "colour"),
        ('server_name = "a"\n[[listen]]\naddress = "192.0.2.1:1"', "192.0.2.1:1"),
        ('server_name = "a"\n[[listen]]\naddress = "a:1"\ntls_certificate="x"\ntls_key="y"', "/x"),
    ],
)
def test_a_configuration_that_can_not_work_ends_with_one_clear_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "minihs.toml").write_text(text)
    result = minihs("serve", cwd=tmp_path)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, port)
    with serving(tmp_path) as server:
        server.wait_until_ready(port, trust(tmp_path))
        result = minihs("serve", cwd=tmp_path)
        assert result.returncode == 1
        assert "in use" in result.stderr
        assert "Traceback" not in result.stderr


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    result = minihs("--version", cwd=tmp_path)
    assert result.stdout == f"minihs {package.__version__}\n"
    assert f'version = "{package.__version__}"' in (Path(__file__).parents[2] / "pyproject.toml").read_text()
