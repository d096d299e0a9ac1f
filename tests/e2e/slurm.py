"""A real Slurm on this machine: two nodes, which are two slurmd, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.fleet import until
from tests.servers import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
#: Seconds between two questions, each of which is a process.
_PAUSE = 0.3
#: The machine may have fewer processors than its nodes say.
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
{nodes}
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def require_slurm() -> None:
    """Skip the test, and say why, where Slurm cannot run."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if missing or os.geteuid() != 0:
        pytest.skip(f"not run: a Slurm takes root, slurm-wlm and munge; not here: {missing or 'root'}")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class State:
    """What `scontrol` says of a job."""

    name: str
    exit_code: int
    restarts: int


class Cluster:
    """The daemons; a context manager. `environment` is what the commands need to find them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hfdt-"))  # short: munge's socket lies there
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        self._configure()
        try:
            self._start("munged", "-F", "--force", *(f"--{name}" for name in self._munge_files()))
            until((self.folder / "munge").exists, "munged")
            self._start("slurmctld", "-D")
            for node in ("n1", "n2"):
                self._start("slurmd", "-D", "-N", node)
            until(
                lambda: self.run("sinfo", "-h", "-o", "%D %t").stdout == "2 idle\n",
                "idle nodes",
                pause=_PAUSE,
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def _munge_files(self) -> list[str]:
        names = {
            "socket": "munge",
            "key-file": "key",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        return [f"{option}={self.folder / name}" for option, name in names.items()]

    def _configure(self) -> None:
        host = socket.gethostname().split(".")[0]
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=8"
            for name in ("n1", "n2")
        ]
        (self.folder / "state").mkdir()
        (self.folder / "key").write_bytes(os.urandom(128))
        (self.folder / "key").chmod(0o400)
        (self.folder / "slurm.conf").write_text(
            _CONF.format(host=host, folder=self.folder, port=free_port(), nodes="\n".join(nodes))
        )

    def _start(self, *words: str) -> None:
        with (self.folder / f"{words[0]}.out").open("ab") as out:
            self._daemons.append(
                subprocess.Popen(
                    words,
                    env=os.environ | self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm."""
        return subprocess.run(
            words, env=os.environ | self.environment, capture_output=True, text=True, timeout=30, check=False
        )

    def job(self, number: str) -> State:
        """Look at a job, or at an element of an array (`7_0`)."""
        said = self.run("scontrol", "show", "job", "-o", number).stdout
        fields = dict(re.findall(r"(\w+)=(\S*)", said))
        code, _, signal = fields["ExitCode"].partition(":")
        return State(fields["JobState"], int(code) or -int(signal), int(fields["Restarts"]))

    def until_ended(self, number: str) -> State:
        """Wait until nothing of a job runs any more."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
        return self.until(number, *over)

    def until(self, number: str, *names: str) -> State:
        """Wait until a job has a state of one of these names."""
        return until(
            lambda: state if (state := self.job(number)).name in names else None,
            f"job {number} {names}",
            pause=_PAUSE,
        )

    def __exit__(self, *_: object) -> None:
        if len(self._daemons) > 2:
            self.run("scancel", "--full", "--signal=KILL", "--user=root")
            until(lambda: not self.run("squeue", "-h").stdout, "the end of all jobs", pause=_PAUSE)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)
