"""How long a transfer may get nowhere before somebody does something about it."""

from __future__ import annotations

from dataclasses import dataclass

from distributed_downloader.errors import StalledError


@dataclass(frozen=True)
class Patience:
    """How long a transfer goes on by itself before it is a failed try."""

    #: Connections in a row that may bring nothing.
    connections: int = 3
    #: Bytes that a connection must bring to count (or a hundredth of the file, if that is less).
    step: int = 1 << 16
    #: Seconds before the next connection; doubled after each one that brought nothing.
    pause: float = 0.5
    #: Seconds of reading after which the rate is looked at.
    window: float = 60.0
    #: Bytes that must come in a window.
    window_bytes: int = 1 << 15


class Watch:
    """Notices a transfer that lives but gets nowhere; our own throttle's pauses do not count."""

    def __init__(self, patience: Patience, path: str) -> None:
        self._patience, self._path = patience, path
        self._bytes, self._seconds = 0, 0.0

    def saw(self, count: int, seconds: float) -> None:
        """Take note of one read; raises StalledError."""
        self._bytes += count
        self._seconds += seconds
        if self._seconds < self._patience.window:
            return
        if self._bytes < self._patience.window_bytes:
            raise StalledError(f"{self._path}: only {self._bytes} bytes in {self._seconds:.0f} s")
        self._bytes, self._seconds = 0, 0.0
