"""What the last task of a job reads and tells: what is complete, and what was found beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from distributed_downloader.checks import number_or
from distributed_downloader.descriptor import DoneFile, Extra, RepoFile
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import Answer, translated
from distributed_downloader.redis_files import RedisFiles


class RedisClosing:
    """One job's files; read in chunks, for there may be many. Raises RedisUnavailableError."""

    def __init__(self, client: RedisClient, job: int) -> None:
        self._client, self._job = client, job
        self._files = RedisFiles(client, job)

    def done(self) -> Iterator[DoneFile]:
        """Yield the files that are complete, in the order of the listing."""
        hosts, made, now = self._files.hosts(), self._number("created_at") / 1000, time.time()
        for row in self._files.rows():
            if row.done:  # an earlier version told no time, so what is found there may be any number
                yield DoneFile(row.about.file, hosts.get(row.host, ""), min(made + row.second, now))

    def failed(self) -> Iterator[RepoFile]:
        """Yield the files that failed, in the order of the listing."""
        return (row.about.file for row in self._files.rows() if row.failure is not None)

    def names(self) -> Iterator[str]:
        """Yield the paths of all files."""
        return (row.about.file.path for row in self._files.rows())

    def delivered(self) -> int:
        """Return how many files are on the NAS."""
        return self._number("delivered")

    def flawed(self) -> int:
        """Return how many files failed."""
        return self._number("failed")

    def tell_extra(self, extra: Extra) -> None:
        """Say which files were found that are none of the job's, for whoever looks on."""
        self._client.scripts.run("extra", self._job, extra.model_dump_json())

    def _number(self, field: str) -> int:
        with translated(self._client.address):
            found: Answer = self._client.commands.hmget(self._client.key(f"job:{self._job}"), [field])
        return number_or(found[0], 0)
