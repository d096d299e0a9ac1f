"""The names of a worker in the fleet: one that was taken for dead comes back with another."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import UsageError

_WORKER_ID = re.compile(r"[\w.:@-]{1,128}", re.ASCII)
#: Which process of a parallel job this is: of mpirun (Open MPI, PMIx, MPICH) inside a job, and of srun.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Life:
    """The time under one name."""

    id: str
    #: The first of its names.
    name: str
    cancel: Cancel = field(default_factory=Cancel)

    @classmethod
    def first(cls, name: str | None) -> Life:
        """Return the life of a new worker; None = any name. Raises UsageError for one that cannot be."""
        if name is not None and not _WORKER_ID.fullmatch(name):
            raise UsageError(f"worker id {name!r}: use letters, digits and . : @ _ - (128 at most)")
        name = name or _new_name()
        return cls(name, name)

    def next(self) -> Life:
        """Return the life after this one."""
        return Life(f"{self.name}.{secrets.token_hex(2)}", self.name)


def _new_name() -> str:
    """Return `host-pid-random`, in a parallel job behind its number and our rank there.

    The random part is for a job that is queued again, whose workers may still have their leases.
    """
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)[:60]
    return "-".join([*_of_job(os.environ), host, str(os.getpid()), secrets.token_hex(3)])


def _of_job(environ: Mapping[str, str]) -> list[str]:
    """Return `slurm7` or, of an array, `slurm7_1`, and `rank3`, as far as the variables of the job tell.

    Slurm's are in https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES.
    """

    def number(*names: str) -> str:
        return next(
            (environ[name] for name in names if re.fullmatch(r"[0-9]{1,12}", environ.get(name, ""))), ""
        )

    job, element = number("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID"), number("SLURM_ARRAY_TASK_ID")
    rank = number(*_RANKS)
    words = [f"slurm{job}_{element}" if element else f"slurm{job}"] if job else []
    return [*words, *([f"rank{rank}"] if rank else [])]
