"""The sample repo that `demo` downloads: shaped like a small model, made up, the same every time."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path

#: Sizes of the weight files, in units of 64 KiB: about 17 MB together, small enough that no worker of
#: the demo is left with a long last file.
_SHARDS = (20, 12, 18, 14, 20, 16, 10, 18, 16, 12, 20, 14, 18, 10, 16, 14)
_UNIT = 1 << 16
_CARD = """---
license: apache-2.0
library_name: transformers
---
# A demo model

Its weights are noise, so that nothing on the way can compress them.
"""


def write_demo_repo(folder: Path, seed: int = 0) -> None:
    """Write about 16 MB in 22 files; the same seed gives the same bytes. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed)
    names = [f"model-{n:05}-of-{len(_SHARDS):05}.safetensors" for n in range(1, len(_SHARDS) + 1)]
    for number, (name, units) in enumerate(zip(names, _SHARDS, strict=True)):
        layers = {f"layers.{number}.{part}.weight": noise.randbytes(units * _UNIT // 2) for part in "ab"}
        (folder / name).write_bytes(safetensors(layers))
    for name, content in _configs(names, noise).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "README.md").write_text(_CARD)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")


def _configs(names: list[str], noise: random.Random) -> dict[str, object]:
    weights = {f"layers.{number}.{part}.weight": name for number, name in enumerate(names) for part in "ab"}
    vocabulary = {noise.randbytes(6).hex(): number for number in range(4000)}
    return {
        "config.json": {"model_type": "demo", "hidden_size": 512, "num_hidden_layers": len(names)},
        "generation_config.json": {"do_sample": True, "temperature": 0.7},
        "model.safetensors.index.json": {"metadata": {}, "weight_map": weights},
        "tokenizer.json": {"version": "1.0", "model": {"type": "WordLevel", "vocab": vocabulary}},
    }


def safetensors(tensors: Mapping[str, bytes]) -> bytes:
    """Return a file in the safetensors format that holds these tensors of 8-bit integers."""
    header, end = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "I8", "shape": [len(data)], "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *tensors.values()])
