"""The engine `http` on a part whose tail somebody takes over while it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.models import Part, RepoFile
from distributed_downloader.storage.place import make_place
from distributed_downloader.storage.split import SplitFile
from tests.hub.faults import Stall, Truncate
from tests.net.kit import LONG, QUICK, Bench, RangeSink, RawServer, Say, in_thread, reply

#: The part of big.bin that most tests fetch.
START, END = 100_000, 200_000
LETTERS = RepoFile(path="f.txt", size=20, sha256="0" * 64)


@pytest.mark.parametrize("end", [150_000, 170_000, 199_999])
def test_an_end_that_comes_nearer_in_mid_body(bench: Bench, end: int) -> None:
    stall, sink = Stall(50_000), RangeSink(START, END)
    bench.hub.on(stall, file="big.bin")
    fetching = in_thread(lambda: bench.fetch_part("big.bin", sink))
    assert stall.reached.wait(LONG)
    sink.end = end
    stall.release.set()
    fetched = fetching.result(LONG)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")[START:end]
    assert len(bench.asked("big.bin")) == 1


@pytest.mark.parametrize(("unread", "connections"), [(1_000_000, 2), (1000, 1)])
def test_unread_bytes_do_not_get_into_the_next_answer(bench: Bench, unread: int, connections: int) -> None:
    body = b"a" * 1000 + b"b" * unread
    size = len(body)
    file = LETTERS.model_copy(update={"size": size})
    long = reply(body, "206 Partial Content", Content_Range=f"bytes 0-{size - 1}/{size}")
    short = reply(b"z", "206 Partial Content", Content_Range=f"bytes {size - 1}-{size - 1}/{size}")
    sink = RangeSink(0, size)

    def took_over(_head: str) -> Say:
        sink.end = 1000
        return Say(long)

    with RawServer(took_over, short) as server:
        spec, engine = bench.spec(endpoint=server.url), bench.engine()
        first = bench.fetch_part(file, sink, spec=spec, engine=engine)
        second = bench.fetch_part(file, RangeSink(size - 1, size), spec=spec, engine=engine)
        assert server.connections == connections
    assert (first.error, second.error) == (None, None)
    assert (first.content, second.content) == (b"a" * 1000, b"z")


@pytest.mark.parametrize(
    "said",
    [
        Say(reply(b"fghij", "206 Partial Content", Content_Range="bytes 5-9/20")),
        Say(reply(status="500 Oh No")),
        Say(b"", "close"),
        Say(reply(status="403 Forbidden")),
    ],
)
def test_what_goes_wrong_when_nothing_is_left_does_not_matter(bench: Bench, said: Say) -> None:
    sink = RangeSink(5, 10)

    def took_over(_head: str) -> Say:
        sink.end = 5
        return said

    with RawServer(took_over) as storage, RawServer(reply(status="302 Found", Location=storage.url)) as hub:
        engine = bench.engine(replace(QUICK, connections=1))
        fetched = bench.fetch_part(LETTERS, sink, spec=bench.spec(endpoint=hub.url), engine=engine)
    assert fetched.error is None
    assert fetched.content == b""


def test_an_end_that_comes_nearer_between_connections(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.hub.on(Truncate(40_000), file="big.bin")
    sink, cancel = RangeSink(START, END), Cancel()
    monkeypatch.setattr(cancel, "wait", lambda _: setattr(sink, "end", START + 40_000))
    fetched = bench.fetch_part("big.bin", sink, cancel=cancel)
    assert fetched.error is None
    assert len(bench.asked("big.bin")) == 1


def test_a_nearer_end_is_asked_for_next_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.hub.on(Truncate(40_000), file="big.bin")
    sink, cancel = RangeSink(START, END), Cancel()
    monkeypatch.setattr(cancel, "wait", lambda _: setattr(sink, "end", 150_000))
    assert bench.fetch_part("big.bin", sink, cancel=cancel).error is None
    assert bench.asked("big.bin")[1] == (206, "bytes=140000-149999")


def test_an_end_that_comes_nearer_just_before_the_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = RangeSink(START, END)

    def took_over(_: object) -> int:
        sink.end = START
        return START

    monkeypatch.setattr("distributed_downloader.transfer.http._Transfer._wanted_end", took_over)
    assert bench.fetch_part("big.bin", sink).error is None
    assert bench.hub.log.records() == []


def test_a_tail_taken_over_on_disk(bench: Bench) -> None:
    make_place(bench.out, create_root=True)
    split = SplitFile(bench.out, bench.spec(), bench.file("big.bin"), Cancel())
    split.prepare()
    stall = Stall(50_000)
    bench.hub.on(stall, file="big.bin")
    with split.part(Part(start=START, length=END - START, seal=0)) as sink:
        fetching = in_thread(lambda: bench.fetch_part("big.bin", sink))
        assert stall.reached.wait(LONG)
        sink.shorten(170_000)
        stall.release.set()
        assert fetching.result(LONG).error is None
        assert sum(record.length for record in sink.finish()) == 70_000
