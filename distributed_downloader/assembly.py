"""Puts a worker together: what fetches, what splits, what seals, and what brings files to the NAS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed_downloader.bandwidth import FleetThrottle
from distributed_downloader.budget import Budgets
from distributed_downloader.config import AppConfig
from distributed_downloader.folders import Folders
from distributed_downloader.headroom import Headroom
from distributed_downloader.outage import Outage
from distributed_downloader.redis_bandwidth import RedisBandwidth
from distributed_downloader.redis_budgets import RedisBudgets
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_status import RedisStatus
from distributed_downloader.retry import RetryPolicy
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.status_files import StatusFiles
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.division import Fleet
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.worker import WorkerNode

if TYPE_CHECKING:
    from distributed_downloader.nas_aggregator import NASAggregator
    from distributed_downloader.transfer.closing import JobFiles


def make_worker(
    config: AppConfig,
    redis: RedisClient,
    *,
    worker_id: str | None = None,
    drain_when_empty: bool = False,
    check_redis: bool = True,
    policy: RetryPolicy | None = None,
    alone: bool = False,
) -> WorkerNode:
    """Return a worker as the settings want it, for `redis`; it has not entered the fleet yet.

    With `alone`, it shares its folder with no other worker, even if others have one at the same place.
    """
    folders = Folders(config, lambda: nas.nas if nas and nas.answers else "", alone=alone)
    nas = _aggregator(config, redis, folders) if config.nas.enabled else None

    def owes() -> bool:
        return bool(nas and config.nas.delete_after_copy and (nas.trouble or not nas.idle))

    downloader = Downloader(
        config,
        folders=folders,
        fleet=Fleet(RedisParts(redis).fleet, redis.whole),
        owes=owes,
        http=HttpClient.of(config, Budgets(RedisBudgets(redis))),
        throttle=_throttle(config, redis),
        jobs=lambda job: _files(redis, job),
    )
    return WorkerNode(
        redis,
        StatusFiles(downloader, folders, RedisStatus(redis)),
        concurrency=config.app.concurrency,
        worker_id=worker_id,
        drain_when_empty=drain_when_empty,
        check_redis=check_redis,
        policy=policy,
        folder=lambda: folders.own_id,
        deliverer=nas,
        ahead=downloader.split_files,
        headroom=Headroom.of(config, owes),
        health_file="" if alone else config.app.health_file,
    )


def _aggregator(config: AppConfig, redis: RedisClient, folders: Folders) -> NASAggregator:
    """Return what brings files to the NAS."""
    # Only where there is one: it takes a while.
    from distributed_downloader.nas_aggregator import NASAggregator  # noqa: PLC0415
    from distributed_downloader.redis_deliveries import RedisDeliveries  # noqa: PLC0415

    return NASAggregator(config, RedisDeliveries(redis), lambda: folders.own_id, Outage(redis.address))


def _files(redis: RedisClient, job: int) -> JobFiles:
    """Return what tells the files of a job."""
    from distributed_downloader.redis_closing import RedisClosing  # noqa: PLC0415

    return RedisClosing(redis, job)


def _throttle(config: AppConfig, redis: RedisClient) -> Throttle:
    """Return what bounds this worker: its own limit, and its share of the fleet's."""
    own, fleet = config.app.max_bandwidth, config.limits.fleet_bandwidth
    return FleetThrottle(RedisBandwidth(redis), fleet, own) if fleet else Throttle(own)
