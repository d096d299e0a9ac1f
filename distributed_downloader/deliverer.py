"""What a worker asks of whoever brings its files to the NAS."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Deliverer(Protocol):
    """Brings files to the NAS; `nas_aggregator.NASAggregator` is the real one."""

    #: Id of the NAS as it is seen, "" if it is not.
    nas: str

    @property
    def trouble(self) -> str:
        """Why files do not get there at the moment, or ""."""

    def start(self) -> None:
        """Begin to bring what is owed, in the background."""

    def bell(self) -> None:
        """Look now: something is owed."""

    def wait_done(self, seconds: float) -> bool:
        """Wait, so long at most, until nothing is left that this worker could bring there now."""

    def stop(self) -> None:
        """Stop copying; returns at once. What is owed stays so."""

    def join(self, seconds: float) -> bool:
        """After `stop`, wait so long for the threads to hand back what they copy."""


def look_for_nas(deliverer: Deliverer, stopping: threading.Event, seconds: float) -> None:
    """Start it, and wait so long until it knows whether it sees the NAS; one that hangs is not waited for."""
    deliverer.start()
    deadline = time.monotonic() + seconds
    while not (deliverer.nas or deliverer.trouble or stopping.is_set()):
        if time.monotonic() > deadline:
            break
        stopping.wait(0.02)
