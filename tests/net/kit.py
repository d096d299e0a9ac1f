"""What the network tests share: a bench to download on, and a server that says exact bytes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig, AppSection, HuggingFaceConfig
from distributed_downloader.local_hub.repo import Snapshot
from distributed_downloader.models import (
    Descriptor,
    DownloadTask,
    JobSpec,
    Part,
    RepoFile,
    RepoType,
    Token,
)
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage.partial import Partial
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.transfer.engine import Context, Engine, Sink
from distributed_downloader.transfer.http import HttpEngine
from distributed_downloader.transfer.watch import Patience
from distributed_downloader.verify import Data
from tests.hub.faulty import FaultyHub

#: As patient as the real one in connections, but not in time.
QUICK = Patience(pause=0.001)
#: Seconds after which a test that waits for an event has failed.
LONG = 60.0

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Run `work` in a thread; its result or error is in the future."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 handed over
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@dataclass
class Fetched:
    """What an engine has left in the partial."""

    content: bytes = b""
    progress: list[int] = field(default_factory=list)
    error: Exception | None = None


class RangeSink:
    """Takes the bytes of a file from `start` on, up to an end that may be brought nearer."""

    inherited = 0
    proves = True
    unproven = False

    def __init__(self, start: int, end: int, *, there: int = 0, keep: bool = True) -> None:
        self.start, self.size = start, there
        self.end = end
        self.content = bytearray()
        self.told: list[RepoFile] = []
        #: Called after each write.
        self.wrote: Callable[[RangeSink], None] = lambda _: None
        self._keep = keep

    def write(self, data: Data) -> None:
        assert data, "an empty write means nothing"
        self.size += len(data)
        assert self.start + self.size <= self.end, "nobody asked for these"
        if self._keep:
            self.content += data
        self.wrote(self)

    def reset(self) -> None:
        raise AssertionError("what is there of a part stays there")

    def expect(self, file: RepoFile) -> None:
        self.told.append(file)


@dataclass
class Bench:
    """Downloads from a hub into a folder."""

    hub: FaultyHub
    source: Path
    out: Path
    opened: list[Downloader] = field(default_factory=list)

    def close(self) -> None:
        for downloader in self.opened:
            downloader.close()

    def settings(self, **settings: object) -> HuggingFaceConfig:
        return HuggingFaceConfig.model_validate({"endpoint": self.hub.endpoint, **settings})

    def config(self, **settings: object) -> AppConfig:
        app = AppSection(output_dir=str(self.out))
        return AppConfig(huggingface=self.settings(**settings), app=app)

    def spec(
        self,
        repo_type: RepoType = RepoType.MODEL,
        repo_id: str = "org/name",
        commit: str = "",
        endpoint: str = "",
        output_dir: str = "",
    ) -> JobSpec:
        return JobSpec(
            repo_type=repo_type,
            repo_id=repo_id,
            revision="main",
            commit=commit or self._snapshot().commit,
            endpoint=endpoint or self.hub.endpoint,
            output_dir=output_dir,
        )

    def file(self, path: str, *, masked: bool = False) -> RepoFile:
        entry = next(entry for entry in self._snapshot().entries if entry.path == path)
        if masked:
            return RepoFile(path=path, size=entry.size)
        if entry.sha256:
            return RepoFile(path=path, size=entry.size, sha256=entry.sha256)
        return RepoFile(path=path, size=entry.size, git_sha1=entry.oid)

    def task(self, file: str | RepoFile, spec: JobSpec | None = None) -> DownloadTask:
        file = self.file(file) if isinstance(file, str) else file
        return DownloadTask(token=Token(1, 0, 0), spec=spec or self.spec(), about=Descriptor(file=file))

    def part_task(
        self, file: str | RepoFile, start: int, length: int, spec: JobSpec | None = None
    ) -> DownloadTask:
        file = self.file(file) if isinstance(file, str) else file
        about = Descriptor(file=file, part=Part(start=start, length=length, seal=0), place="ab")
        return DownloadTask(token=Token(1, 1, 0), spec=spec or self.spec(), about=about)

    def content(self, path: str) -> bytes:
        return (self.source / path).read_bytes()

    def published(self, path: str) -> Path:
        return self.out / "org" / "name" / path

    def partials(self) -> list[Path]:
        folder = self.out / ".hf-downloader" / "partial"
        return sorted(folder.iterdir()) if folder.exists() else []

    def engine(
        self, patience: Patience = QUICK, read_timeout: float = LONG, **settings: object
    ) -> HttpEngine:
        return HttpEngine(HttpClient(self.settings(**settings), read_timeout=read_timeout), patience)

    def downloader(self, engine: str = "http", **settings: object) -> Downloader:
        quick = HttpEngine(HttpClient(self.settings(**settings)), QUICK)
        downloader = Downloader(self.config(engine=engine, **settings), http_engine=quick)
        self.opened.append(downloader)
        return downloader

    def run(self, path: str, engine: str = "http", cancel: Cancel | None = None) -> bytes:
        """Download a file as a worker does; return what is published."""
        self.downloader(engine).run(self.task(path), cancel or Cancel(), lambda _: None)
        return self.published(path).read_bytes()

    @contextmanager
    def partial(self, task: DownloadTask, prefix: bytes = b"") -> Iterator[Partial]:
        with RepoFolder(self.out, task.spec).partial(task.file, Cancel()) as partial:
            partial.write(prefix)
            yield partial

    def fetch(
        self,
        file: str | RepoFile,
        *,
        engine: Engine | None = None,
        prefix: bytes = b"",
        cancel: Cancel | None = None,
        throttle: Throttle | None = None,
        spec: JobSpec | None = None,
    ) -> Fetched:
        """Let an engine fetch; whatever it raises is in the result."""
        task, fetched = self.task(file, spec), Fetched()
        with self.partial(task, prefix) as partial:
            context = Context(
                task, partial, cancel or Cancel(), throttle or Throttle(), fetched.progress.append
            )
            try:
                (engine or self.engine()).fetch(context)
                partial.check()
            except Exception as error:  # noqa: BLE001 handed over
                fetched.error = error
            fetched.content = self.partials()[0].read_bytes()
            partial.reset()  # so that nothing is left for the next fetch
        return fetched

    def fetch_part(
        self,
        file: str | RepoFile,
        sink: Sink,
        *,
        engine: Engine | None = None,
        cancel: Cancel | None = None,
        spec: JobSpec | None = None,
    ) -> Fetched:
        """Let an engine fill a sink with a part of a file; whatever it raises is in the result."""
        task, fetched = self.part_task(file, sink.start, sink.end - sink.start, spec), Fetched()
        context = Context(task, sink, cancel or Cancel(), Throttle(), fetched.progress.append)
        try:
            (engine or self.engine()).fetch(context)
        except Exception as error:  # noqa: BLE001 handed over
            fetched.error = error
        if isinstance(sink, RangeSink):
            fetched.content = bytes(sink.content)
        return fetched

    def asked(self, path: str, route: str = "cdn") -> list[tuple[int, str]]:
        """Return status and Range of each request for a file's bytes."""
        records = self.hub.log.records(route, path, "GET")
        return [(record.reply.status, record.request.headers.get("Range", "")) for record in records]

    def _snapshot(self) -> Snapshot:
        snapshot = self.hub.repos["models/org/name"].at("main")
        assert snapshot
        return snapshot


@dataclass(frozen=True)
class Say:
    """What a raw server says to one request, and what it does then."""

    data: bytes
    then: Literal["keep", "close", "hold"] = "keep"


def reply(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Return an answer's bytes; `Content_Length=""` leaves that header out."""
    fields = {"Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


def header(head: str, name: str) -> str:
    """Return a header of a request's head, "" if it has none."""
    for line in head.split("\r\n"):
        key, _, value = line.partition(": ")
        if key.lower() == name.lower():
            return value
    return ""


class RawServer:
    """Says what it is told to: the n-th request gets the n-th `Say`, all later ones the last.

    A function in place of a `Say` is called with the request's head.
    """

    def __init__(self, *says: Say | bytes | Callable[[str], Say], tls: ssl.SSLContext | None = None) -> None:
        self.says = [Say(say) if isinstance(say, bytes) else say for say in says]
        self.heads: list[str] = []
        self.connections = 0
        #: Set when a request has been answered with "hold".
        self.holding = threading.Event()
        self._release = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open: list[socket.socket] = []

    def __enter__(self) -> RawServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                # Not SSLSocket's own shutdown: that one is not safe while another thread reads.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LONG)

    def open_lines(self) -> list[socket.socket]:
        """Return our ends of the connections."""
        return self._open

    def header(self, number: int, name: str) -> str:
        """Return a header of the n-th request, "" if it has none."""
        return header(self.heads[number], name)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(LONG)
            try:
                self._serve(self._tls.wrap_socket(connection, server_side=True) if self._tls else connection)
            except OSError:
                return  # the client has gone

    def _serve(self, connection: socket.socket) -> None:
        self._open.append(connection)
        with connection:
            while head := _read_head(connection):
                say = self.says[min(len(self.heads), len(self.says) - 1)]
                self.heads.append(head)
                if not isinstance(say, Say):
                    say = say(head)
                connection.sendall(say.data)
                if say.then == "hold":
                    self.holding.set()
                    self._release.wait(LONG)
                if say.then != "keep":
                    return


def _read_head(connection: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head:
        if data := connection.recv(1 << 16):
            head += data
        else:
            return ""
    return head.decode("latin-1")
