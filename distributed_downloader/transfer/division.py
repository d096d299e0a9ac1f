"""Decides whether a large file is fetched in parts, and in which: from what the living workers see."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from distributed_downloader.config import AppConfig
from distributed_downloader.folders import Folders
from distributed_downloader.models import DownloadTask
from distributed_downloader.outcome import Range
from distributed_downloader.plan import part_size
from distributed_downloader.queue_terms import Limits, Member
from distributed_downloader.transfer import hf_transfer

log = logging.getLogger(__name__)


class Fleet:
    """What the division has to know of the fleet, and what it says to it."""

    def __init__(self, members: Callable[[], list[Member]], whole: Callable[[int, str], None]) -> None:
        self.members = members
        #: Told why large files of a job are not split.
        self.whole = whole


class Division:
    """Finds a folder that all living workers share; for all slots of one worker."""

    def __init__(self, config: AppConfig, folders: Folders, fleet: Fleet) -> None:
        self._engine = config.huggingface.engine
        self._hf_transfer = config.huggingface.enable_hf_transfer and not hf_transfer.idle(config)
        self._folders, self._fleet = folders, fleet
        self._lock = threading.Lock()
        self._told: dict[int, str] = {}

    def place(self, task: DownloadTask) -> tuple[str, int] | None:
        """Return the id of the folder and the size of a part; None if the file is fetched whole.

        Raises RedisUnavailableError.
        """
        spec, size = task.spec, task.file.size
        if task.about.place or not spec.split_over or size <= spec.split_over:
            return None
        if not (task.file.sha256 or task.file.git_sha1):
            log.info("whole   %s: the hub lists no hash to prove it by when it was put together", task.name)
            return None
        members = self._fleet.members()
        place, reason = self._shared(task, members)
        if not place:
            if reason:
                self.tell(task, reason)
            return None
        slots = sum(member.slots for member in members)
        return place, _even(size, spec.part_size or part_size(size, max(slots, 1)))

    def _shared(self, task: DownloadTask, members: list[Member]) -> tuple[str, str]:
        """Return the id of the folder that all share, or "" and why there is none."""
        spec = task.spec
        if self._engine == "hub":
            return "", "the engine `hub` fetches files as a whole only"
        if self._hf_transfer and len(members) <= 1 and task.file.size >= hf_transfer.SMALLEST:
            return "", "hf_transfer fetches files as a whole, and no other worker could help"
        if spec.output_dir:
            return spec.place, ""  # where there is none, the master has said why
        own = self._folders.own_id
        if own and all(member.folder == own for member in members):
            return own, ""
        nas = self._folders.nas_id
        if nas and spec.nas in ("", nas) and all(member.nas == nas for member in members):
            return nas, ""
        other = next((member.worker for member in members if member.folder != own), "")
        return "", (
            f"worker {other} has another output folder than others, and there is no NAS that all see; "
            "give the job an --output-dir that all machines share"
        )

    def tell(self, task: DownloadTask, reason: str) -> None:
        """Leave with the job, once, why large files are fetched whole; "" if they are not."""
        job = task.token.job
        with self._lock:
            known = self._told.get(job) == reason
            self._told[job] = reason
        if not known:
            self._fleet.whole(job, reason)
        if reason and not known:
            log.info("whole   %s: %s", task.name, reason)


def _even(size: int, part: int) -> int:
    """Return a part size at which a file has no more parts than the queue takes."""
    while -(-size // part) > Limits.parts:
        part *= 2
    return part


def bounded(missing: Sequence[Range]) -> tuple[Range, ...]:
    """Return no more ranges than the queue takes: the last one then covers all the rest."""
    most = Limits.parts
    if len(missing) <= most:
        return tuple(missing)
    start = missing[most - 1].start
    return (*missing[: most - 1], Range(start, missing[-1].end - start))
