"""Tasks as Redis hands them out, read with suspicion."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from distributed_downloader.errors import RefusedError
from distributed_downloader.models import Descriptor, DownloadTask, Failure, JobSpec, Token

#: Bytes of a path that is shown of an entry that cannot be read.
_SHOWN = 4096


def read_task(token: str, answer: list[Any], longest_hold: float) -> DownloadTask | Failure:
    """Return the task that a script tells of (lua/_start.lua), or why there is none: it fails for good.

    `longest_hold`: seconds of a pause for the hub that are believed.
    """
    line, spec, tries, hold, away = answer
    try:
        return DownloadTask(
            token=Token.parse(token),
            spec=_spec(spec),
            about=Descriptor.from_line(line),
            tries=int(tries),
            away=int(away),
            hold=min(int(hold) / 1000, longest_hold),
        )
    except (ValueError, RefusedError) as error:
        path = "\t".join(line.split("\t", 3)[2:3])[:_SHOWN].encode("utf-8", "replace").decode() or "?"
        reason = f"this entry in Redis cannot be read; `forget` the job and submit it again: {error}"
        return Failure(path=path, error=reason[:500], host="", tries=int(tries), at=time.time())


@lru_cache(maxsize=32)
def _spec(text: str) -> JobSpec:
    """Read a job's spec, which comes with each of its tasks; raises ValueError."""
    return JobSpec.model_validate_json(text)
