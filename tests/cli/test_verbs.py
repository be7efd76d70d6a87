# SPDX-License-Identifier: Apache-2.0
"""The verbs, run within the tests' own process: which configuration they find, what they say and do."""

from __future__ import annotations

import io
import os
import resource
import signal
import ssl
import stat
from pathlib import Path

import pytest
import trio

from minihs import config
from minihs.cli import logs, parser, self_signed, serve, settings, user
from minihs.config import ConfigError
from minihs.server import Server

from .kit import free_port

TOML = 'server_name = "example.org"\n[[listen]]\naddress = "127.0.0.1:{port}"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestWhichConfiguration:
    def test_the_one_named_wins(self, folder: Path) -> None:
        (folder / "minihs.toml").write_text(TOML.format(port=1))
        (folder / "other.toml").write_text('server_name = "other.example"')
        found = settings.find(Path("other.toml"), {})
        assert found is not None
        assert found.server_name == "other.example"

    def test_the_one_of_this_folder_comes_next(self, folder: Path) -> None:
        assert settings.find(None, {}) is None
        (folder / "minihs.toml").write_text(TOML.format(port=1))
        found = settings.find(None, {})
        assert found is not None
        assert found.server_name == "example.org"

    def test_the_local_server_listens_on_this_machine_only(self, folder: Path) -> None:
        local = settings.local(folder, {})
        assert local.server_name == "localhost:8448"
        assert [listen.tcp for listen in local.listen] == [("localhost", 8448)]
        assert local.registration.mode == "closed"

    def test_the_environment_counts_for_the_local_server_too(self, folder: Path) -> None:
        assert settings.local(folder, {"MINIHS_REGISTRATION_MODE": "open"}).registration.mode == "open"

    def test_a_verb_for_an_existing_server_needs_one(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="minihs init"):
            settings.require(None)
        (folder / "minihs-data").mkdir()
        (folder / "minihs-data" / "signing.key").touch()
        assert settings.require(None).server_name == "localhost:8448"


class TestSelfSigned:
    def test_the_certificate_is_made_once_and_works(self, folder: Path) -> None:
        local = settings.local(folder, {})
        self_signed.ensure_self_signed(local)
        certificate, key = Path(local.listen[0].tls_certificate), Path(local.listen[0].tls_key)
        before = certificate.read_bytes()
        self_signed.ensure_self_signed(local)
        assert certificate.read_bytes() == before
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


class TestServe:
    async def test_it_reloads_on_sighup_and_stops_on_sigterm(self, folder: Path) -> None:
        (folder / "minihs.toml").write_text(TOML.format(port=free_port()))
        loaded = config.load(folder / "minihs.toml", {})
        reloads: list[bool] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve.run, loaded)
            with trio.fail_after(30):
                while not loaded.admin_socket_path.exists():  # noqa: ASYNC110 - another task makes it
                    await trio.sleep(0.05)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("minihs.web.serving.Edge.reload_tls", lambda _: reloads.append(True))
                os.kill(os.getpid(), signal.SIGHUP)
                await trio.sleep(0.2)
                os.kill(os.getpid(), signal.SIGTERM)
        assert reloads == [True]
        assert not loaded.admin_socket_path.exists()

    def test_without_a_configuration_it_says_what_it_does(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        served: list[object] = []
        monkeypatch.setattr(trio, "run", lambda _, loaded: served.append(loaded))
        monkeypatch.setattr(serve, "set_up_logs", lambda _: None)
        assert parser.run(["serve"]) == 0
        assert isinstance(served[0], config.Config)
        assert served[0].server_name == "localhost:8448"
        said = capsys.readouterr().err
        assert "self-signed" in said
        assert str(folder / "minihs-data") in said
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(
            serve.OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        )

    def test_a_clock_that_is_wrong_is_said(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "minihs.toml").write_text(TOML.format(port=1))
        monkeypatch.setattr(trio, "run", lambda *_: None)
        monkeypatch.setattr("minihs.runtime.SystemClock.now_ms", lambda _: 86_400_000)
        monkeypatch.setattr(serve, "set_up_logs", lambda _: None)
        assert parser.run(["serve"]) == 0
        captured = capsys.readouterr()
        assert "clock is wrong" in captured.out + captured.err


class TestUser:
    @pytest.fixture
    def loaded(self, folder: Path) -> config.Config:
        (folder / "minihs.toml").write_text(TOML.format(port=free_port()))
        return config.load(folder / "minihs.toml", {})

    def test_it_opens_the_database_itself(
        self, loaded: config.Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for expected, complaint in ((0, ""), (1, "taken")):
            monkeypatch.setattr("sys.stdin", io.StringIO("open sesame\r\n"))
            assert parser.run(["user", "add", "alice", "--password-stdin"]) == expected
            assert complaint in capsys.readouterr().err.lower()

    async def test_it_asks_a_server_that_runs(self, loaded: config.Config) -> None:
        async with Server.open(loaded) as server, trio.open_nursery() as nursery:
            await nursery.start(server.serve)

            def ask() -> str | None:
                return user.ask_server(loaded, "bob", "open sesame", is_admin=True)

            assert await trio.to_thread.run_sync(ask) == "@bob:example.org"
            with pytest.raises(user.MatrixError, match="M_USER_IN_USE"):
                await trio.to_thread.run_sync(ask)
            server.stop()

    def test_without_a_server_nobody_is_asked(self, loaded: config.Config) -> None:
        assert user.ask_server(loaded, "bob", "open sesame", is_admin=False) is None

    def test_passwords_typed_must_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = iter(["one", "one", "one", "two"])
        monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
        assert user.read_password(from_stdin=False) == "one"
        with pytest.raises(ConfigError, match="differ"):
            user.read_password(from_stdin=False)


def test_the_log_has_a_line_for_an_event_with_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    import structlog

    before = structlog.get_config()
    try:
        logs.set_up_logs("info")
        with structlog.contextvars.bound_contextvars(path="/x"):
            structlog.get_logger().info("something happened", room="!a")
            structlog.get_logger().debug("a detail")
        said = capsys.readouterr().err
    finally:
        structlog.configure(**before)
    assert "something happened" in said
    assert "path=/x" in said
    assert "room=!a" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["user"], ["serve", "--nonsense"], ["serve", "--conf", "x"]]
)
def test_a_wrong_command_line_is_told_how(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser.run(arguments)
    assert end.value.code == 2
    assert "usage: minihs" in capsys.readouterr().err
