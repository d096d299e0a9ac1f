"""huggingface_hub, imported with the switches that a downloader needs; import it nowhere else."""

from __future__ import annotations

import logging
import warnings

with warnings.catch_warnings():
    # HF_HUB_ENABLE_HF_TRANSFER is a setting of ours, too; that the library has dropped it is no news.
    warnings.simplefilter("ignore", FutureWarning)
    import huggingface_hub.constants

from huggingface_hub import hf_hub_download, set_client_factory, try_to_load_from_cache
from huggingface_hub.utils import disable_progress_bars, httpx  # type: ignore[attr-defined]

__all__ = ["hf_hub_download", "httpx", "set_client_factory", "try_to_load_from_cache"]

# Not through the environment: it is read once, at the first import, and our children inherit it.
_SWITCHES = {
    "HF_HUB_DISABLE_XET": True,  # ignores our certificates, proxies, limits and stop signal
    "HF_HUB_OFFLINE": False,  # whoever runs a downloader wants to go online
    "HF_HUB_DISABLE_TELEMETRY": True,
    "HF_HUB_DISABLE_SYMLINKS_WARNING": True,
}
for _name, _value in _SWITCHES.items():
    setattr(huggingface_hub.constants, _name, _value)

if huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    disable_progress_bars()

# Their lines hold signed addresses, or are noise.
for _name in ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "filelock"):
    logging.getLogger(_name).setLevel(logging.ERROR)
