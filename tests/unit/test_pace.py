"""The two ways to read an answer's body: whatever came ahead with the head, they give the same bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import IncompleteRead

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.head import plain_head
from distributed_downloader.pace import Answer, Pace, PacedAnswer, PlainAnswer

_BODY = bytes(range(200))
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_BODY)


def plain(line: socket.socket, ahead: int) -> Answer:
    """Return an answer whose head came with `ahead` bytes of its body."""
    begun = line.recv(len(_HEAD) + ahead)
    head = plain_head(begun)
    assert head
    return PlainAnswer(Pace(line), head, memoryview(begun)[head.size :])


def by_library(line: socket.socket, ahead: int) -> Answer:
    """Return one that http.client goes on with, of which as much has come."""
    begun = line.recv(len(_HEAD) + ahead)
    answer = PacedAnswer(line, method="GET", pace=Pace(line), begun=begun)
    answer.begin()
    return answer


Way = Callable[[socket.socket, int], Answer]
ways = pytest.mark.parametrize("way", [plain, by_library])


@contextmanager
def answering(way: Way, said: bytes, ahead: int) -> Iterator[Answer]:
    """Yield the answer of a server that says all at once, and then nothing more."""
    here, there = socket.socketpair()
    with closing(here), closing(there):
        there.sendall(said)
        there.shutdown(socket.SHUT_WR)
        here.settimeout(60)
        answer = way(here, ahead)
        try:
            yield answer
        finally:
            answer.close()


def received(answer: Answer, sizes: list[int]) -> bytes:
    """Return the body, received into buffers of these sizes in turn."""
    found = bytearray()
    while not answer.isclosed():
        buffer = bytearray(sizes[len(found) % len(sizes)])
        found += buffer[: answer.receive(memoryview(buffer))]
    assert answer.receive(memoryview(bytearray(9))) == 0
    return bytes(found)


@ways
@given(ahead=st.integers(0, len(_BODY)), sizes=st.lists(st.integers(1, 250), min_size=1, max_size=5))
def test_a_body_is_the_same_however_it_comes(way: Way, ahead: int, sizes: list[int]) -> None:
    with answering(way, _HEAD + _BODY, ahead) as answer:
        assert received(answer, sizes) == _BODY
        assert answer.length == 0


@ways
@given(ahead=st.integers(0, len(_BODY)))
def test_pieces_fill_what_they_are_given(way: Way, ahead: int) -> None:
    with answering(way, _HEAD + _BODY, ahead) as answer:
        buffer = bytearray(2 * len(_BODY))
        assert sum(answer.pieces(memoryview(buffer))) == len(_BODY)
        assert buffer[: len(_BODY)] == _BODY
        assert answer.isclosed()


@ways
@pytest.mark.parametrize("ahead", [0, 7])
def test_a_body_that_ends_too_early(way: Way, ahead: int) -> None:
    with answering(way, _HEAD + _BODY[:-1], ahead) as answer, pytest.raises(IncompleteRead):
        received(answer, [50])


@ways
def test_what_comes_behind_a_body_is_not_of_it(way: Way) -> None:
    with answering(way, _HEAD + _BODY + b"HTTP/1.1 404 no\r\n", len(_BODY) + 5) as answer:
        assert received(answer, [999]) == _BODY


@pytest.mark.parametrize("begun", range(1, len(_HEAD)))
def test_a_head_of_which_a_part_has_come(begun: int) -> None:
    with answering(lambda line, _: by_library(line, begun - len(_HEAD)), _HEAD + _BODY, 0) as answer:
        assert received(answer, [64]) == _BODY


def test_a_connection_does_not_keep_the_bytes_of_its_last_answer() -> None:
    begun = bytearray(_HEAD + _BODY)
    head = plain_head(bytes(begun))
    assert head
    here, there = socket.socketpair()
    with closing(here), closing(there):
        answer = PlainAnswer(Pace(here), head, memoryview(begun)[head.size :])
        assert received(answer, [40]) == _BODY
    begun.clear()  # raises BufferError as long as somebody looks into it
