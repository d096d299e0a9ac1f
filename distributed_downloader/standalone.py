"""One machine without a server: master, worker and a private Redis in one process."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from distributed_downloader.assembly import make_worker
from distributed_downloader.config import AppConfig, RedisConfig
from distributed_downloader.display.progress import watch
from distributed_downloader.errors import LocalError
from distributed_downloader.master import JobRequest, Listing, MasterNode, Submitted
from distributed_downloader.models import Failure, JobSpec, JobStatus
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from distributed_downloader.retry import RetryPolicy
from distributed_downloader.rules import Rules
from distributed_downloader.signals import Background
from distributed_downloader.storage import RepoFolder

if TYPE_CHECKING:
    from rich.console import Console

    from distributed_downloader.hub import Hub

#: Seconds between two looks at the job.
_LOOK = 0.2


class Standalone:
    """Fetches one repo over the Redis at `url`, which nobody else uses."""

    def __init__(self, config: AppConfig, hub: Hub, url: str) -> None:
        self._redis = RedisClient(RedisConfig.model_validate({"url": url}))
        self._view = RedisView(self._redis)
        self._master = MasterNode(hub, self._redis, config.nas, Rules(config))
        self._worker = make_worker(
            config,
            self._redis,
            check_redis=False,
            policy=RetryPolicy(place_tries=1, others=False),
            alone=True,
        )

    def run(self, request: JobRequest, console: Console) -> tuple[Submitted, JobStatus]:
        """Fetch the repo and show it on `console`; files are fetched while the listing goes on.

        Raises what `MasterNode.submit` raises, ConflictError while another process fetches the repo into
        the same folder, and LocalError when this machine's disk is the problem: nobody else could take over.
        """
        with console.status("asking the hub"):
            spec = self._master.prepare(request)
            folder = RepoFolder(Path(spec.output_dir), spec)
            folder.claim_folder()  # or say at once why not
        with folder.alone():
            return self._fetch(spec, console)

    def _fetch(self, spec: JobSpec, console: Console) -> tuple[Submitted, JobStatus]:
        with console.status("asking the hub"):
            submission = _Submission(self._master, spec)
            submission.start()
            submission.listed.wait()
        submission.check()
        with Background(self._worker) as background, watch(console, alone=True) as show:
            while True:
                submission.check()
                background.check()
                job = self._view.job(submission.job)
                show(job, self._view.workers(), self.failures(job), self._view.budgets([job]))
                if submission.submitted and job.state.ended:
                    return submission.submitted, job
                if self._worker.stuck:
                    raise LocalError(self._worker.stuck)
                time.sleep(_LOOK)

    def close(self) -> None:
        """Let go of Redis."""
        self._redis.close()

    def failures(self, job: JobStatus) -> list[Failure]:
        """Return the first files of the job that failed."""
        return self._view.failures(job.id) if job.failed else []


class _Submission(threading.Thread):
    """Queues the repo's files while others are fetched already; dies with the process."""

    def __init__(self, master: MasterNode, spec: JobSpec) -> None:
        super().__init__(name="submission", daemon=True)
        self._master, self._spec = master, spec
        self._error: Exception | None = None
        #: Set when the job exists, or never will.
        self.listed = threading.Event()
        self.job = 0
        self.submitted: Submitted | None = None

    def run(self) -> None:
        """Submit; what goes wrong is for `check`."""
        try:
            self.submitted = self._master.submit(self._spec, 1, self._note)
        except Exception as error:  # noqa: BLE001 - raised again by `check`, in the main thread
            self._error = error
        self.listed.set()

    def _note(self, listing: Listing) -> None:
        self.job = listing.job
        self.listed.set()

    def check(self) -> None:
        """Raise what stopped the submission."""
        if self._error:
            raise self._error
