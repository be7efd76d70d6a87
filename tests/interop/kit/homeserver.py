# SPDX-License-Identifier: Apache-2.0
"""A homeserver as a process: started, asked whether it is ready, stopped, killed, measured.

Two kinds implement `prepare` and `command`: `synapse.Synapse` and `minihs.Minihs`. Everything else is
the same for both, so that whatever a test or a benchmark does to one it does to the other.
"""

from __future__ import annotations

import abc
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil
import trio

from tests.interop.kit.authority import Authority
from tests.interop.kit.client import Client, admin_register
from tests.interop.kit.http import BrokenConnection, HttpClient

REPOSITORY = Path(__file__).resolve().parents[3]
READY_SECONDS = 180.0
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a homeserver lives: its name, its folder and the ports it listens on."""

    server_name: str
    folder: Path
    federation_port: int  # TLS; behind a Gate this is not the port of the server name
    client_port: int  # plain HTTP
    authority: Authority
    secret: str = "registration secret of the tests"
    options: dict[str, object] = field(default_factory=dict)


class NotReady(Exception):
    """The process ended, or did not answer in time. The text holds the end of its log."""


class Homeserver(abc.ABC):
    kind: str

    def __init__(self, place: Place) -> None:
        self.place = place
        self.process: subprocess.Popen[bytes] | None = None
        self.log_file = place.folder / f"{self.kind}.log"
        self._prepared = False

    @abc.abstractmethod
    def prepare(self) -> None:
        """Writes configuration and keys into the folder, once."""

    @abc.abstractmethod
    def command(self) -> list[str]: ...

    @property
    @abc.abstractmethod
    def database_files(self) -> list[Path]:
        """The SQLite files; beside each there may be a WAL."""

    @property
    def server_name(self) -> str:
        return self.place.server_name

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.place.client_port}"

    def http(self) -> HttpClient:
        """To the client API, in plain HTTP."""
        return HttpClient("127.0.0.1", self.place.client_port)

    def federation_http(self, tls: ssl.SSLContext | None = None) -> HttpClient:
        context = tls or self.place.authority.client_context()
        return HttpClient("127.0.0.1", self.place.federation_port, tls=context)

    # -- the life of the process

    async def start(self, *, seconds: float = READY_SECONDS, poll: float = 0.05) -> None:
        self._spawn()
        with trio.move_on_after(seconds):
            while not await self.is_ready():
                if self.process is None or self.process.poll() is not None:
                    raise NotReady(f"{self.kind} ended while it started:\n{self.log_tail()}")
                await trio.sleep(poll)
            return
        raise NotReady(f"{self.kind} did not answer within {seconds} s:\n{self.log_tail()}")

    def _spawn(self) -> None:
        if self.process is not None:
            raise RuntimeError(f"{self.kind} is already running")
        if not self._prepared:
            self.place.folder.mkdir(parents=True, exist_ok=True)
            self.prepare()
            self._prepared = True
        command = self.command()
        # If the test process itself is killed, its servers shall not stay behind.
        if (setpriv := shutil.which("setpriv")) is not None:
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "SSL_CERT_FILE": str(self.place.authority.ca_file),
        }
        environment.pop(
            "PYTHONDONTWRITEBYTECODE", None
        )  # nobody runs a server that compiles itself at each start
        environment["PYTHONPATH"] = str(
            REPOSITORY
        )  # the code beside these tests, wherever minihs is installed
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.place.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def is_ready(self) -> bool:
        http = self.http()
        try:
            response = await http.request("GET", "/_matrix/client/versions", seconds=10)
        except (BrokenConnection, trio.TooSlowError):
            return False
        finally:
            await http.aclose()
        return response.status == 200

    async def stop(self) -> int:
        """Asks it to stop as an operator does, and returns its exit status."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def _end(self, signal_number: int) -> int:
        process = self.process
        if process is None:
            return 0
        process.send_signal(signal_number)
        with trio.move_on_after(STOP_SECONDS):
            while process.poll() is None:  # noqa: ASYNC110 - a process that outlives the loop tells nobody
                await trio.sleep(0.02)
        if process.poll() is None:
            process.kill()
            process.wait()
        self.process = None
        return process.returncode

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def __aenter__(self) -> Homeserver:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await self.stop()

    # -- what can be read off it

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError(f"{self.kind} is not running")
        return self.process.pid

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def peak_rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return self.rss_bytes()

    def forget_peak(self) -> None:
        """Sets the peak back to the present size (Linux: /proc/PID/clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def disk_bytes(self) -> int:
        names = [
            file.with_name(file.name + end) for file in self.database_files for end in ("", "-wal", "-shm")
        ]
        return sum(name.stat().st_size for name in names if name.exists())

    def log_tail(self, lines: int = 60) -> str:
        if not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    # -- people

    async def register(self, localpart: str, *, admin: bool = False) -> Client:
        return await admin_register(self.http(), self.place.secret, localpart, admin=admin)


@contextmanager
def log_shown_on_failure(*servers: Homeserver) -> Iterator[None]:
    """Adds the end of each server's log to whatever exception passes through."""
    try:
        yield
    except BaseException as error:
        for server in servers:
            error.add_note(
                f"--- {server.kind} {server.server_name} ({server.log_file}):\n{server.log_tail(40)}"
            )
        raise
