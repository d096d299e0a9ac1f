"""The script for Slurm: what stands in it is what was asked for, whatever the words are."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_downloader.cli import run
from distributed_downloader.cli.batch_master import command as batch_master
from distributed_downloader.cli.slurm import _OURS
from distributed_downloader.cli.slurm import command as slurm
from distributed_downloader.errors import UsageError
from distributed_downloader.slurm import minutes

#: Everything that a shell could take for something else.
ODD = [
    "it's",
    'a "b"',
    "$(touch x)",
    "`touch x`",
    "a b",
    "*.bin",
    "-x",
    "a;b&c|d>e",
    "\\",
    "#",
    "!!",
    "é",
    "",
]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OUTPUT_DIR", raising=False)
    return tmp_path


def write(capsys: pytest.CaptureFixture[str], *words: str, before: tuple[str, ...] = ()) -> str:
    code = run([*before, "slurm", *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def refuse(capsys: pytest.CaptureFixture[str], *words: str, before: tuple[str, ...] = ()) -> str:
    code = run([*before, "slurm", *words])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    return said.err


def directives(script: str) -> list[str]:
    """Return what sbatch reads: the comments before the first command."""
    head = script.partition("\nrepos=")[0]
    return [line.removeprefix("#SBATCH ") for line in head.splitlines() if line.startswith("#SBATCH")]


def values(script: str, name: str) -> list[str]:
    """Return the words of an array of the script, as bash reads them."""
    head = script.partition("\n# From here on")[0]
    code = f"{head}\nprintf '%s\\0' \"${{{name}[@]}}\""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_what_was_asked_for_is_in_the_script(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write(
        capsys,
        *("org/one", "datasets/org/two", "--nodes", "4", "--tasks-per-node", "2", "--time", "1-12"),
        *("--partition", "cpu,gpu", "--account", "proj-1", "--mail-user", "me@example.org"),
        *(
            "--output-dir",
            "out",
            "--include",
            "*.bin",
            "--include",
            "a b",
            "--split",
            "64MiB",
            "--revision",
            "v1",
        ),
    )
    assert directives(script) == [
        "--job-name=hf-org-one",
        "--nodes=4",
        "--ntasks-per-node=2",
        "--time=1-12",
        "--partition=cpu,gpu",
        "--account=proj-1",
        "--mail-user=me@example.org",
        "--mail-type=END,FAIL,REQUEUE",
        "--signal=B:USR1@120",
        "--open-mode=append",
        "--requeue",
        "--no-kill",
    ]
    assert values(script, "repos") == ["org/one", "datasets/org/two"]
    options = values(script, "options")
    assert options[:2] == ["--output-dir", str(written / "out")]
    pairs = set(zip(options[2::2], options[3::2], strict=True))
    assert pairs == {("--include", "*.bin"), ("--include", "a b"), ("--split", "64MiB"), ("--revision", "v1")}


def test_what_was_not_asked_for_is_left_to_slurm(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write(capsys, "org/one")
    assert "--nodes=1" in directives(script)
    assert not any(line.startswith(("--time", "--partition", "--mail")) for line in directives(script))
    assert values(script, "options") == ["--output-dir", str(written / "downloads")]
    assert values(script, "hf") == ["hf-downloader"]


def test_every_option_of_batch_master_is_passed_on_or_answered(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {parameter.name for parameter in batch_master.params}
    assert names - _OURS - {"repos"} < {parameter.name for parameter in slurm.params}
    words = ["--layout", "hf-cache", "--no-space-check", "--priority", "2"]
    assert set(words) == set(values(write(capsys, "org/one", *words), "options")[2:])


@pytest.mark.parametrize("word", ODD)
def test_words_are_words_whatever_is_in_them(
    written: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    settings = written / "c" / f"{word}.ini"
    settings.parent.mkdir()
    settings.touch()
    script = write(capsys, "org/one", "--include", word, "-o", f"/tmp/{word}", before=("-c", f"c/{word}.ini"))
    assert values(script, "options") == ["--output-dir", str(Path(f"/tmp/{word}")), "--include", word]
    assert values(script, "hf") == ["hf-downloader", "--config", str(settings)]
    assert values(script, "state")[0].startswith(str(Path(f"/tmp/{word}/.hf-downloader/slurm")))
    assert [path.name for path in written.iterdir()] == ["c"]
    lint(script, "warning")  # it hints at quotes around what looks like more than words


def lint(script: str, severity: str = "style") -> None:
    """Let shellcheck judge; of functions that only a trap calls it says that nothing does."""
    command = [str(Path(sys.prefix, "bin", "shellcheck")), "--exclude=SC2329", f"--severity={severity}", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_without_the_command_the_job_says_what_is_missing(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--env" in fails(write(capsys, "org/one", "--env", "/no/such"))


def test_an_array_with_too_many_elements_says_how_many_there_are(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    element = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert "--array=0-1" in fails(write(capsys, "org/one", "org/two"), **element)


def fails(script: str, **environment: str) -> str:
    """Return what a script says that ends before it has begun."""
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    return done.stderr


@pytest.mark.parametrize("env", [(), ("--env", "hf"), ("--env", "/opt/my env")])
def test_the_script_pleases_shellcheck(
    written: Path, capsys: pytest.CaptureFixture[str], env: tuple[str, ...]
) -> None:
    lint(write(capsys, "org/one", "org/two", "--nodes", "3", *env))


def test_the_environment_is_the_one_of_the_command_unless_told(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"PATH={shlex.quote(f'{sys.prefix}/bin')}:$PATH\n" in write(capsys, "org/one")
    assert "PATH='/opt/my env/bin':$PATH\n" in write(capsys, "org/one", "--env", "/opt/my env")
    assert f"PATH={written}/venv/bin:$PATH\n" in write(capsys, "org/one", "--env", "./venv")
    assert "conda activate hf\n" in write(capsys, "org/one", "--env", "hf")


@pytest.mark.parametrize("option", ["--partition", "--account", "--mail-user", "--env", "--time"])
@pytest.mark.parametrize(
    "value", ["a\n#SBATCH --uid=0", "a b", "a\n", "$(x)", "`x`", "a;b", "'", "a=b c", "\x1b[2J"]
)
def test_nothing_gets_between_the_directives(
    written: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert "\n" not in refuse(capsys, "org/one", option, value).rstrip("\n")


@pytest.mark.parametrize(
    "words",
    [
        ("org/one", "--nodes", "0"),
        ("org/one", "--nodes", "2-4"),
        ("org/one", "--tasks-per-node", "-1"),
        ("org/one", "--time", "4"),
        ("org/one", "--split", "1"),
        ("org/one", "--priority", "0"),
        ("org/one", "--include", "a\nb"),
        ("org/one", "-o", "a\nb"),
        ("org/one\n", "org/../x"),
        ("no repo",),
        ("org/one", "spaces/org/two", "--repo-type", "model"),
        (),
    ],
)
def test_nonsense_is_refused(
    written: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert refuse(capsys, *words)


def test_the_command_line_in_the_script_stays_in_its_comment(
    written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hf-downloader", "slurm", "org/one", "--nodes", "2\nrm x"])
    assert "control characters" in refuse(capsys, "org/one", "--nodes", "2\n")
    monkeypatch.setattr(sys, "argv", ["hf-downloader", "slurm", "org/one", "-o", "a b"])
    assert "#   hf-downloader slurm org/one -o 'a b'\n" in write(capsys, "org/one", "-o", "a b")


def test_a_redis_is_none_of_its_business(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a Redis of its own" in refuse(capsys, "org/one", before=("--redis-host", "head"))
    script = write(capsys, "org/one", before=("--endpoint", "https://mirror.example", "--disable-ssl-verify"))
    assert values(script, "hf") == [
        "hf-downloader",
        "--endpoint",
        "https://mirror.example",
        "--disable-ssl-verify",
    ]


def test_the_same_request_has_the_same_state_and_another_one_has_not(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def state(*words: str) -> str:
        return values(write(capsys, *words), "state")[0]

    same = {state("org/one"), state("org/one", "--nodes", "9", "--time", "9:0:0", "--env", "other")}
    assert len(same) == 1
    others = {state("org/two"), state("org/one", "org/two"), state("org/one", "--include", "a")}
    assert len(same | others) == 4


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90", 90), ("5:30", 5.5), ("1:30:00", 90), ("2-0", 2880), ("1-2:30", 1590), ("1-0:0:30", 1440.5)],
)
def test_times_are_slurm_s(time: str, expected: float) -> None:
    assert minutes(time) == expected


@pytest.mark.parametrize("time", ["", "8h", "1:2:3:4", "-5", "1-", "1.5", "٣"])
def test_other_times_are_refused(time: str) -> None:
    with pytest.raises(UsageError, match="--time"):
        minutes(time)


def test_a_job_s_name_is_a_plain_word(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write(capsys, "https://huggingface.co/org/name/blob/main/with%20'space'.bin")
    assert directives(script)[0] == "--job-name=hf-co-org-name-blob-main-with-20-space-.bin"
