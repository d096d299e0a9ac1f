"""Sample repos: trees with everything that is awkward about real ones."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

from distributed_downloader.local_hub.demo_repo import safetensors

#: 255 bytes, the longest name that file systems take.
LONGEST_NAME = "n" * 251 + ".txt"
HTML = "<!DOCTYPE html>\n<html><head><title>Attention map</title></head><body>404</body></html>\n"
ODD_NAMES = (
    "with space.txt",
    "hash#tag.txt",
    "100%.txt",
    "%41.txt",
    "what?.txt",
    "a+b&c=d;e.txt",
    "quote'\"s.txt",
    "[brackets] {braces}.txt",
    "~tilde.txt",
    "-dash.txt",
    "日本語/中文 文件.txt",
    unicodedata.normalize("NFC", "nfc-é.txt"),
    unicodedata.normalize("NFD", "nfd-é.txt"),
    LONGEST_NAME,
    "deep/" * 12 + "leaf.txt",
)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write these files, and the folders that they need."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def model_files(seed: int = 1) -> dict[str, bytes]:
    """Return a small model's files, about 5 MB: configs, tokenizer, weights, all odd names and contents."""
    noise = random.Random(seed)
    vocabulary = {noise.randbytes(4).hex(): number for number in range(3000)}
    tensors = {f"layer.{n}.weight": noise.randbytes(512 * 1024) for n in range(6)}
    return {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"---\nlicense: mit\n---\n# Sample\n",
        "config.json": json.dumps({"model_type": "bert", "hidden_size": 384}).encode(),
        "tokenizer.json": json.dumps({"model": {"vocab": vocabulary}}).encode(),
        "model.safetensors": safetensors(tensors),
        "pytorch_model.bin": noise.randbytes(300_001),
        # Above the LFS limit by size, not by suffix.
        "vocab/merges.txt": noise.randbytes(600_000).hex().encode(),
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        "empty.txt": b"",
        "empty.bin": b"",
        "one-byte.txt": b"x",
        "docs/attention.html": HTML.encode(),
        **{name: f"content of {name}\n".encode() for name in ODD_NAMES},
    }


def dataset_files(seed: int = 2, shards: int = 5) -> dict[str, bytes]:
    """Return a small dataset's files, about 1 MB."""
    noise = random.Random(seed)
    names = [f"data/train-{n:05}-of-{shards:05}.parquet" for n in range(shards)]
    return {
        ".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"---\nconfigs: []\n---\n# Sample dataset\n",
        "dataset_infos.json": b"{}",
        "data/test.csv": b"a,b\n" * 5000,
        **{name: b"PAR1" + noise.randbytes(200_000 + 7 * n) + b"PAR1" for n, name in enumerate(names)},
    }


def write_model_repo(folder: Path, seed: int = 1) -> Path:
    """Write `model_files`; return the folder."""
    write_files(folder, model_files(seed))
    return folder


def write_dataset_repo(folder: Path, seed: int = 2) -> Path:
    """Write `dataset_files`; return the folder."""
    write_files(folder, dataset_files(seed))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder but huggingface_hub's own, to compare trees byte for byte."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not name.startswith(".cache/huggingface")}
