"""What was so a moment ago is not looked at again, and what was so before is."""

from __future__ import annotations

from distributed_downloader.lately import Lately


def test_it_is_so_for_a_moment() -> None:
    now = 100.0
    lately = Lately(1.0, lambda: now)
    assert not lately.was("here")
    lately.note("here")
    assert lately.was("here")
    assert not lately.was("there")
    now = 101.0
    assert not lately.was("here")


def test_it_does_not_grow() -> None:
    lately = Lately()
    for n in range(1000):
        lately.note(n)
    assert lately.was(999)
    assert not lately.was(0)
