"""One machine without a server: master, worker and a private Redis, for as long as a repo takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from distributed_downloader.assembly import make_worker
from distributed_downloader.cancel import Cancel
from distributed_downloader.config import RedisConfig
from distributed_downloader.embedded import EmbeddedRedis
from distributed_downloader.errors import LocalError
from distributed_downloader.feed import Listing, Pages
from distributed_downloader.layout import shown_folder
from distributed_downloader.master import JobRequest, MasterNode, Submitted
from distributed_downloader.models import Failure, JobSpec, JobStatus
from distributed_downloader.redis_budgets import RedisBudgets
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_closing import RedisClosing
from distributed_downloader.redis_view import RedisView
from distributed_downloader.retry import RetryPolicy
from distributed_downloader.signals import Background
from distributed_downloader.storage import RepoFolder

if TYPE_CHECKING:
    from distributed_downloader.client import Client
    from distributed_downloader.plan import Plan
    from distributed_downloader.worker import WorkerNode

#: Seconds between two looks at the job.
_LOOK = 0.2
#: Seconds that a listing gets to notice that nobody wants it any more.
_STOP_SECONDS = 4.5


@contextmanager
def standalone(client: Client) -> Iterator[Standalone]:
    """Start a private Redis for one repo; nothing of it is left when the block ends.

    Raises RedisUnavailableError without a server for that on this machine.
    """
    with EmbeddedRedis() as url, one_budget(client, url) as redis:
        yield Standalone(client, redis)


@contextmanager
def one_budget(client: Client, url: str) -> Iterator[RedisClient]:
    """Let the listing take its requests from the same budget as the files, in the Redis at `url`."""
    with closing(RedisClient(RedisConfig.model_validate({"url": url}))) as redis, closing(client.budgets):
        client.budgets.share(RedisBudgets(redis))
        yield redis


class Standalone:
    """Fetches one repo over a Redis that nobody else uses."""

    def __init__(self, client: Client, redis: RedisClient) -> None:
        self._config, self._hub, self._redis = client.config, client.hub, redis
        self._master = MasterNode(client.hub, redis, client.config.nas, client.rules, reserve=client.reserve)
        self._submitted: Submitted | None = None
        self.view = RedisView(redis)

    @contextmanager
    def fetching(self, request: JobRequest, cancel: Cancel | None = None) -> Iterator[Iterator[JobStatus]]:
        """Fetch the repo while the block runs; yields looks at the job, the last of them when it has ended.

        Files are fetched while the listing goes on. Raises what `MasterNode.submit` raises, ConflictError
        while another process fetches the repo into the same folder, and StoppedError when `cancel` is set.
        The looks raise LocalError when this machine's disk is the problem: nobody else could take over.
        """
        cancel = cancel or Cancel()
        with cancel.closing(lambda: self._hub.stop(cancel.reason)):
            spec = self._master.prepare(request)
            with self.working(spec, None, cancel) as looks:
                yield looks

    @contextmanager
    def working(
        self, spec: JobSpec, listing: Pages | None = None, cancel: Cancel | None = None
    ) -> Iterator[Iterator[JobStatus]]:
        """Do one job; `listing` as for `MasterNode.submit`. A check may share the folder with anybody."""
        with nullcontext() if spec.check else _alone(spec), self._submission(spec, listing) as submission:
            worker = self._worker(spec)
            with Background(worker) as background:
                yield self._looks(submission, worker, background, cancel or Cancel())

    def _worker(self, spec: JobSpec) -> WorkerNode:
        """Return a worker that nobody can help, and that shares its folder with nobody."""
        policy = RetryPolicy(place_tries=1, others=False)
        app = self._config.app.model_copy(update={"output_dir": spec.output_dir})  # it makes no other
        config = self._config.model_copy(update={"app": app})
        return make_worker(config, self._redis, check_redis=False, policy=policy, alone=True)

    @contextmanager
    def _submission(self, spec: JobSpec, listing: Pages | None) -> Iterator[_Submission]:
        submission = _Submission(self._master, spec, listing)
        try:
            submission.start()
            submission.listed.wait()
            submission.check()
            yield submission
        finally:
            self._hub.stop("nobody waits for the listing any more")
            if submission.ident is not None:  # else nothing was started
                submission.join(_STOP_SECONDS)

    def _looks(
        self, submission: _Submission, worker: WorkerNode, background: Background, cancel: Cancel
    ) -> Iterator[JobStatus]:
        while True:
            submission.check()
            background.check()
            job = self.view.job(submission.job)
            yield job
            if submission.submitted and job.state.ended:
                self._submitted = submission.submitted
                return
            if worker.stuck:
                raise LocalError(worker.stuck)
            cancel.wait(_LOOK)
            cancel.check()

    @property
    def plan(self) -> Plan:
        """What was noticed in the listing; when all has ended."""
        assert self._submitted
        return self._submitted.plan

    def files(self, job: int) -> RedisClosing:
        """Return what tells the files of a job."""
        return RedisClosing(self._redis, job)

    def failures(self, job: JobStatus, limit: int = 20) -> list[Failure]:
        """Return the first files of the job that failed."""
        return self.view.failures(job.id, limit) if job.failed else []


@contextmanager
def _alone(spec: JobSpec) -> Iterator[None]:
    """Keep others out of the repo's folder, or say at once why that cannot be."""
    folder = RepoFolder(Path(spec.output_dir), spec)
    folder.claim_folder()
    with folder.alone():
        yield


def where(spec: JobSpec) -> Path:
    """Return the folder that a job's files are in under their own paths, if they have one on this machine."""
    return Path(spec.output_dir, shown_folder(spec))


class _Submission(threading.Thread):
    """Queues the repo's files while others are fetched already."""

    def __init__(self, master: MasterNode, spec: JobSpec, listing: Pages | None) -> None:
        super().__init__(name="submission", daemon=True)
        self._master, self._spec, self._listing = master, spec, listing
        self._error: Exception | None = None
        #: Set when the job exists, or never will.
        self.listed = threading.Event()
        self.job = 0
        self.submitted: Submitted | None = None

    def run(self) -> None:
        """Submit; what goes wrong is for `check`."""
        try:
            self.submitted = self._master.submit(self._spec, 1, self._note, self._listing)
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
