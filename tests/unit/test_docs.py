"""What the README says is what the commands do, and the other way round."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from distributed_downloader.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md"]}


def get(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    return command


def options(name: str) -> set[str]:
    given = {
        option
        for param in [*get(name).params, *cli.params]
        for option in (*param.opts, *param.secondary_opts)
    }
    return given | {"--help", "-h"}


def examples(text: str) -> list[list[str]]:
    """Return the words of every `hf-downloader …` line."""
    found = re.findall(r"^\s*(?:\$ )?(?:uv run )?hf-downloader ([^#\n]*)", text, re.MULTILINE)
    return [re.sub(r"(\s{2,}| [|>] | && ).*", "", words).split() for words in found]


def test_every_command_is_in_the_readme_and_has_help_with_examples() -> None:
    table = README.partition("## Commands")[2].partition("## ")[0]
    for name in COMMANDS:
        assert f"`{name}" in table, name
        help_text = get(name).get_help(click.Context(get(name), info_name=name))
        assert "Examples:" in help_text, name
        assert "\\b" not in help_text, name
        assert f"hf-downloader {name}" in help_text or "hf-downloader --" in help_text, name


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    table = README.partition("## Commands")[2].partition("## ")[0]
    named = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:]
    words = {word.split()[0] for cell in named for word in re.findall(r"`([^`]+)`", cell)}
    assert words == set(COMMANDS)


@pytest.mark.parametrize("name", [*DOCS])
def test_every_command_line_in_the_documents_works(name: str) -> None:
    for words in examples(DOCS[name]):
        check(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_in_the_help_works(name: str) -> None:
    lines = examples(get(name).help or "")
    assert lines
    for words in lines:
        check(words)


def check(words: list[str]) -> None:
    """A command line must name a command that exists, and options that it has."""
    globals_ = {option: param for param in cli.params for option in param.opts}
    while words and words[0].startswith("-"):
        flag, *words = words
        assert flag in globals_ or flag in ("--help", "-h"), flag
        takes_value = not getattr(globals_.get(flag), "is_flag", True)
        words = words[1:] if takes_value else words
    if not words or words[0] == "COMMAND":
        return
    assert words[0] in COMMANDS, words
    used = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert used <= options(words[0]), (words, used - options(words[0]))


def test_the_documented_exit_codes_are_the_real_ones() -> None:
    from distributed_downloader import __main__, errors

    codes = re.search(r"\*\*0\*\* done.*?interrupted", README, re.DOTALL)
    assert codes
    said = re.findall(r"\*\*(\d+)\*\*", codes[0])
    real = [
        0,
        errors.DownloaderError.exit_code,
        errors.UsageError.exit_code,
        errors.UnreachableError.exit_code,
    ]
    assert [int(code) for code in said] == [*real, __main__.INTERRUPTED]
    assert all(re.search(rf"\b{code} [a-zR]", cli.help or "") for code in said)


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert commands[0] == "pip install uv && uv run hf-downloader demo"
    assert commands[1] == "uv run pytest"
    ci = (ROOT / ".ci/run").read_text().splitlines()
    assert commands[1] in [line.strip() for line in ci]


def test_links_between_documents_lead_somewhere() -> None:
    for name, text in DOCS.items():
        base = ROOT if name == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", text):
            assert (base / target).exists(), (name, target)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from distributed_downloader.cli import run; run(['--help'])\n"
        "heavy = {'pydantic', 'redis', 'requests', 'urllib3', 'rich', 'huggingface_hub', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
