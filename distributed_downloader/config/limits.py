"""The keys of [limits]: what all machines of a fleet keep to together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distributed_downloader.config.values import From, Rate
from distributed_downloader.models import Model


class LimitsSection(Model):
    """What the whole fleet keeps to; every machine should have the same here."""

    fleet_bandwidth: Annotated[
        Rate, From("--fleet-bandwidth", "FLEET_BANDWIDTH", "bytes a second such as 100MB/s")
    ] = Field(
        default=0,
        description="Bytes a second for all workers together, shared by what each can use, such as 100MB/s; "
        "0 for no limit. Where machines differ, the smallest counts.",
    )
