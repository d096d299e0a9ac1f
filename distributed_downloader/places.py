"""Which folders a job uses: marks the shared one, so that workers can tell whether they see the same."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from distributed_downloader.config import NASConfig
from distributed_downloader.errors import LocalError, RefusedError
from distributed_downloader.models import JobSpec
from distributed_downloader.storage.place import make_place, read_place

log = logging.getLogger(__name__)


def mark(spec: JobSpec, nas: NASConfig) -> tuple[JobSpec, str]:
    """Return the job with the ids of its folders, and why its large files will not be split, or "".

    A job's own folder is made and marked if need be; what stands in the way of that ends nothing: the id
    stays "", so that nobody knows whether the workers share the folder.
    """
    if spec.check:  # which makes nothing
        found = read_place(Path(spec.output_dir)) if spec.output_dir else spec.place
        return spec.model_copy(update={"place": found}), ""
    place, why = _mark_output(spec.output_dir) if spec.output_dir else (spec.place, "")
    if why:
        log.warning("%s; if they cannot write there either, choose another --output-dir", why)
    settled = spec.model_copy(update={"place": place, "nas": _find_nas(nas)})
    return settled, why if spec.split_over else ""


def _mark_output(folder: str) -> tuple[str, str]:
    try:
        return make_place(Path(folder), create_root=True), ""
    except (LocalError, RefusedError) as error:
        host = socket.gethostname()
        return "", (
            f"the master on {host} could not mark {folder} ({error}): "
            "nobody knows whether the workers share it"
        )


def _find_nas(nas: NASConfig) -> str:
    """Return the id of the NAS, "" if there is none.

    It is only read: where the mount is missing, an id would mark, and files would fill, this machine's disk.
    """
    if not nas.enabled:
        return ""
    found = read_place(Path(nas.path))
    if not found:
        log.info(
            "%s is not marked as the NAS on this machine: mount it, or mark a new one with "
            "`hf-downloader init-nas`; workers deliver to the NAS that they see",
            nas.path,
        )
    return found
