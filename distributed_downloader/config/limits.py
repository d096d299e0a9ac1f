"""The keys of [limits]: what all machines of a fleet keep to together, and what each leaves to others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distributed_downloader.config.values import From, Rate, Size
from distributed_downloader.models import Model


class LimitsSection(Model):
    """What the whole fleet keeps to, and what each machine leaves to others."""

    fleet_bandwidth: Annotated[
        Rate, From("--fleet-bandwidth", "FLEET_BANDWIDTH", "bytes a second such as 100MB/s")
    ] = Field(
        default=0,
        description="Bytes a second for all workers together, shared by what each can use, such as 100MB/s; "
        "0 for no limit. Where machines differ, the smallest counts.",
    )
    min_free_disk: Annotated[Size, From(allowed="bytes such as 50GiB", is_bytes=True)] = Field(
        default=0,
        description="A worker claims nothing while the disk of its own `output_dir`, or of its `spool_dir`, "
        "has fewer bytes free, such as 50GiB; 0 for no limit.",
    )
    max_memory_percent: Annotated[int, From(allowed="a percentage, 1 to 100")] = Field(
        default=100,
        ge=1,
        le=100,
        description="A worker claims nothing while more of the memory of its machine, or of its control "
        "group, is in use, in percent; 100 for no limit.",
    )
