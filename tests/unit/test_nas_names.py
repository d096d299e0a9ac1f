"""What files are called on the NAS."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.errors import RefusedError
from distributed_downloader.models import JobSpec, RepoFile, RepoType
from distributed_downloader.nas_names import namesakes, nas_parts


def spec(repo_id: str = "org/name", *, flat: bool = False) -> JobSpec:
    return JobSpec(
        repo_type=RepoType.MODEL,
        repo_id=repo_id,
        revision="main",
        commit="a" * 40,
        endpoint="https://hub.invalid",
        flat=flat,
    )


def where(path: str, repo_id: str = "org/name", *, flat: bool = False, clash: bool = False) -> str:
    return b"/".join(nas_parts(spec(repo_id, flat=flat), RepoFile(path=path, size=1, clash=clash))).decode()


def digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("repo_id", "path", "tree", "flat"),
    [
        ("org/name", "f.bin", "org/name/f.bin", "org/name_f.bin"),
        ("org/name", "a/b/f.bin", "org/name/a/b/f.bin", "org/name_f.bin"),
        ("gpt2", "f.bin", "gpt2/f.bin", "gpt2_f.bin"),
        ("gpt2", "a/f.bin", "gpt2/a/f.bin", "gpt2_f.bin"),
        ("org/name", ".gitattributes", "org/name/.gitattributes", "org/name_.gitattributes"),
        ("org/name", "日本/語.txt", "org/name/日本/語.txt", "org/name_語.txt"),
    ],
)
def test_the_two_layouts(repo_id: str, path: str, tree: str, flat: str) -> None:
    assert where(path, repo_id) == tree
    assert where(path, repo_id, flat=True) == flat


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/f.bin", "name_f.{}.bin"),
        ("a/model.safetensors.index.json", "name_model.safetensors.index.{}.json"),
        ("a/README", "name_README.{}"),
        ("a/.gitattributes", "name_.gitattributes.{}"),
    ],
)
def test_files_that_would_collide_get_a_digest_of_their_path(path: str, name: str) -> None:
    assert where(path, flat=True, clash=True) == "org/" + name.format(digest(path))
    assert where(path, clash=True) == f"org/name/{path}"


def test_files_of_one_name_do_not_collide() -> None:
    assert len({where(f"{folder}/f.bin", flat=True, clash=True) for folder in "abc"}) == 3


def test_a_name_that_gets_too_long_is_cut_and_keeps_its_suffix() -> None:
    path = "x" * 243 + ".safetensors"
    name = where(path, flat=True).removeprefix("org/")
    assert len(name) == 255
    assert name.startswith("name_xxx")
    assert name.endswith(f"x.{digest(path)}.safetensors")


def test_what_is_too_long_for_a_suffix_is_cut_too() -> None:
    name = where("a." + "x" * 250, flat=True).removeprefix("org/")
    assert len(name) == 255
    assert name.endswith("." + digest("a." + "x" * 250))


def test_no_letter_is_cut_in_half() -> None:
    name = where("語" * 85, flat=True).removeprefix("org/")  # 255 bytes
    assert name.endswith("語." + digest("語" * 85))
    assert 250 < len(name.encode()) <= 255


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("path", ["../f", "a/../f", "/f", "a//f", "."])
def test_a_path_that_leaves_the_folder_is_refused(path: str, flat: bool) -> None:
    with pytest.raises(RefusedError):
        where(path, flat=flat)


@given(
    base=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=255).filter(
        lambda text: text not in (".", "..") and len(text.encode()) <= 255
    ),
    clash=st.booleans(),
    repo_id=st.sampled_from(["n", "n" * 96, "org/" + "n" * 96]),
)
def test_each_flat_name_can_be_a_name(base: str, clash: bool, repo_id: str) -> None:
    parts = nas_parts(spec(repo_id, flat=True), RepoFile(path=base, size=1, clash=clash))
    assert len(parts) == len(repo_id.split("/"))
    assert len(parts[-1]) <= 255
    assert parts[-1].startswith(repo_id.removeprefix("org/").encode() + b"_")
    parts[-1].decode()


def test_the_repos_that_a_flat_name_may_belong_to() -> None:
    assert namesakes(spec("org/a_b", flat=True), b"a_b_c_d") == ["org/a", "org/a_b_c"]
    assert namesakes(spec("a", flat=True), b"a_b") == []
    assert namesakes(spec("a", flat=True), b"a__b") == ["a_"]
