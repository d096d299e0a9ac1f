"""Run under a Python that has transformers and datasets: tells as JSON what it reads offline.

    python readers.py MODEL DATASET FOLDER

MODEL and DATASET are in the cache that HF_HUB_CACHE names, MODEL is in the local FOLDER as well. An error of
a library ends the program with its trace.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache


def cache(model: str, dataset: str) -> dict[str, Any]:
    """Read a model and a dataset as their users do."""
    folder = Path(snapshot_download(model, local_files_only=True))
    scanned = scan_cache_dir()
    return {
        "file": Path(hf_hub_download(model, "config.json")).read_text(),
        "file_of_commit": Path(hf_hub_download(model, "config.json", revision=folder.name)).read_text(),
        "deep": Path(hf_hub_download(model, "vocab/a b.txt", local_files_only=True)).read_text(),
        "found": str(try_to_load_from_cache(model, "config.json")),
        "snapshot": str(folder),
        "snapshot_of_commit": snapshot_download(model, revision=folder.name),
        "snapshot_of_patterns": snapshot_download(model, allow_patterns=["*.json"]),
        "repos": sorted((repo.repo_id, repo.repo_type, repo.nb_files) for repo in scanned.repos),
        "refs": sorted(ref for repo in scanned.repos for ref in repo.refs),
        "warnings": [str(warning) for warning in scanned.warnings],
        **_models(model),
        "rows": _rows(snapshot_download(dataset, repo_type="dataset", local_files_only=True)),
    }


def _models(model: str) -> dict[str, Any]:
    from transformers import AutoConfig, AutoTokenizer

    config: Any = AutoConfig.from_pretrained(model)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    return {"hidden_size": config.hidden_size, "tokens": tokenizer("hello world")["input_ids"]}


def _rows(folder: str) -> list[Any]:
    from datasets import load_dataset

    return list(load_dataset(folder, split="train"))


def local(model: str, folder: str) -> dict[str, Any]:
    """Look at a local folder as `hf download --local-dir` does; the commit makes it ask nobody."""
    listing = next(Path(folder, ".cache/huggingface/trees").glob("*.json"))
    commit = listing.stem
    return {
        "folder": snapshot_download(model, local_dir=folder, local_files_only=True),
        "folder_of_commit": snapshot_download(model, local_dir=folder, revision=commit),
        "file": Path(hf_hub_download(model, "config.json", local_dir=folder, revision=commit)).read_text(),
    }


if __name__ == "__main__":
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    model, dataset, folder = sys.argv[1:]
    found = {"cache": cache(model, dataset), "local": local(model, folder)}
    print(json.dumps({"version": huggingface_hub.__version__, **found}))
