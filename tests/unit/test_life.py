"""A worker's name tells where it is from, and no two are the same."""

from __future__ import annotations

import re

import pytest

from distributed_downloader.errors import UsageError
from distributed_downloader.life import Life

VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
)


def name(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr("socket.gethostname", lambda: "node1")
    return re.sub(r"-\d+-[0-9a-f]{6}$", "", Life.first(None).id)


def test_a_name_is_the_host_s_and_never_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name(monkeypatch) == "node1"
    assert len({Life.first(None).id for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_JOB_ID": "123", "SLURM_PROCID": "7"}, "slurm123-rank7-node1"),
        (
            {
                "SLURM_JOB_ID": "125",
                "SLURM_ARRAY_JOB_ID": "123",
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_PROCID": "0",
            },
            "slurm123_4-rank0-node1",
        ),
        ({"OMPI_COMM_WORLD_RANK": "3"}, "rank3-node1"),
        ({"PMI_RANK": "3"}, "rank3-node1"),
        ({"PMIX_RANK": "3"}, "rank3-node1"),
        # mpirun inside of a job: Slurm's own rank is that of mpirun's helper on the node.
        ({"SLURM_JOB_ID": "9", "SLURM_PROCID": "1", "OMPI_COMM_WORLD_RANK": "12"}, "slurm9-rank12-node1"),
        ({"SLURM_JOB_ID": "9 rm -rf", "SLURM_PROCID": "", "PMI_RANK": "-1"}, "node1"),
    ],
)
def test_a_parallel_job_is_in_the_name(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    assert name(monkeypatch, **environment) == expected


def test_a_given_name_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert Life.first("mine").id == "mine"
    with pytest.raises(UsageError, match="letters, digits"):
        Life.first("not mine")
