"""Writes batch scripts for Slurm: what the user chose stands at the top, the same steps for all below.

The directives are those of https://slurm.schedmd.com/sbatch.html. They are comments to the shell, so nothing
can be quoted in them: each value has to match a pattern.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed_downloader.checks import plain
from distributed_downloader.errors import UsageError

#: The steps of every job.
_STEPS = Path(__file__).with_name("slurm_job.sh")
#: Seconds before the time limit at which the job is told; Slurm may be a minute early.
_NOTICE = 120
#: Minutes of the shortest time limit that makes sense with that.
_SHORTEST = 5

_PATTERNS = {
    "partition": r"[\w.,-]+",
    "account": r"[\w.@+-]+",
    "mail_user": r"[\w.@+,-]+",
    "env": r"[\w.+-]+|[^:]*/[^:]*",
}
_TIME = r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?"


@dataclass(frozen=True)
class BatchJob:
    """What a script is to do, and with what; "" leaves a choice to Slurm. Raises UsageError for nonsense."""

    repos: Sequence[str]
    output_dir: str
    #: `hf-downloader` and its global flags.
    command: Sequence[str]
    #: Options of `batch-master`.
    options: Sequence[str]
    #: Name of a conda environment, or folder of any environment.
    env: str
    nodes: int
    tasks_per_node: int
    time: str = ""
    partition: str = ""
    account: str = ""
    mail_user: str = ""

    def __post_init__(self) -> None:
        for name, pattern in _PATTERNS.items():
            value = getattr(self, name)
            if value and not re.fullmatch(pattern, value, re.ASCII if name != "env" else 0):
                raise UsageError(f"--{name.replace('_', '-')} {value!r} cannot be a name that Slurm knows")
        if self.time and minutes(self.time) < _SHORTEST:
            raise UsageError(f"--time {self.time}: a job needs {_SHORTEST} minutes at least")
        _require_plain([*self.repos, *self.options, *self.command, self.output_dir, self.env])

    @property
    def digest(self) -> str:
        """What tells this request from others, whatever it runs on."""
        return hashlib.sha256("\0".join([*self.repos, "", *self.options]).encode()).hexdigest()[:12]

    def script(self, written_by: Sequence[str]) -> str:
        """Return the batch script; `written_by` is the command line that makes it again."""
        _require_plain(written_by)
        head = [*self._title(written_by), *self._directives(), "", *self._choices(), ""]
        return "\n".join([*head, *self._environment()]) + "\n" + _STEPS.read_text(encoding="utf-8")

    def _title(self, written_by: Sequence[str]) -> Iterator[str]:
        yield "#!/bin/bash"
        yield "# Fetches from the hub, on all nodes of this job. Written by:"
        yield f"#   {shlex.join(written_by)}"
        yield "# Submit it with sbatch; submitted again, it goes on where it was. sbatch's own options win."

    def _directives(self) -> Iterator[str]:
        name = re.sub(r"[^\w.-]+", "-", self.repos[0].split("?")[0], flags=re.ASCII).strip("-")[-40:]
        given = {
            "job-name": f"hf-{name}",
            "nodes": self.nodes,
            "ntasks-per-node": self.tasks_per_node,
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
            "mail-user": self.mail_user,
            "mail-type": "END,FAIL,REQUEUE" if self.mail_user else "",
            "signal": f"B:USR1@{_NOTICE}",
            "open-mode": "append",
        }
        yield from (f"#SBATCH --{name}={value}" for name, value in given.items() if value)
        yield from ("#SBATCH --requeue", "#SBATCH --no-kill")

    def _choices(self) -> Iterator[str]:
        yield f"repos=({shlex.join(self.repos)})"
        yield f"output={shlex.quote(self.output_dir)}"
        yield f'options=(--output-dir "$output"{_behind(self.options)})'
        yield f"hf=({shlex.join(self.command)})"
        yield "# What is left to do lies here, for the next run of the same request."
        yield f"state=$output/.hf-downloader/slurm/{self.digest}"

    def _environment(self) -> Iterator[str]:
        yield "# Where hf-downloader is. Modules that it needs: load them here, or before sbatch."
        if "/" in self.env:
            yield f"PATH={shlex.quote(f'{self.env}/bin')}:$PATH"
            return
        yield 'eval "$(conda shell.bash hook)"'
        yield f"conda activate {shlex.quote(self.env)}"


def minutes(time: str) -> float:
    """Return the minutes that Slurm takes a time for: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`.

    Raises UsageError for anything else.
    """
    match = re.fullmatch(_TIME, time, re.ASCII)
    if not match:
        raise UsageError(f"--time {time!r}: write minutes, hours:minutes:seconds or days-hours, such as 2-12")
    first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
    if match["days"]:
        return int(match["days"]) * 1440 + first * 60 + second + third / 60
    return first * 60 + second + third / 60 if match["third"] else first + second / 60


def _require_plain(words: Sequence[str]) -> None:
    """Raise UsageError for a word that would not stay in its line, or could not be read there."""
    for word in words:
        try:
            plain(word)
        except ValueError as error:
            raise UsageError(f"{word!r} {error}") from None


def _behind(words: Sequence[str]) -> str:
    return f" {shlex.join(words)}" if words else ""
