"""Faults of the hub, its CDN and what lies in between."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from benchmarks.chaos.kinds import Heal, Kind, NotNowError, nothing
from benchmarks.chaos.world import World
from tests.hub import faults
from tests.hub.faults import Fault

#: A name that no resolver knows (RFC 6761), and a port that nobody may listen on without being root.
_NO_HOST, _NO_SERVER = "http://no-such-host.invalid", "http://127.0.0.1:1"
_LARGE = "*.safetensors"
_ROUTES = ("cdn", "cache", "resolve", "info", "tree", "paths")
#: Bytes of an answer after which it may break, and the most answers that one fault spoils.
_WITHIN, _MOST = 1_000_000, 6
#: How much longer than others the hub's refusing lasts: up to 8 s.
_LONGER = 1.6

Maker = Callable[[random.Random], Fault]


def _after(chance: random.Random) -> int:
    return chance.randrange(1, _WITHIN)


def _spoil(make: Maker, file: str = "*") -> Callable[[World, random.Random], Heal]:
    """Spoil some of the next files that are sent."""

    def strike(world: World, chance: random.Random) -> Heal:
        fault = make(chance)
        world.spoil(fault, times=chance.randint(1, _MOST), skip=chance.randrange(4), file=file)
        return fault.let_go

    return strike


def _storm(make: Maker) -> Callable[[World, random.Random], Heal]:
    """Spoil all answers for a while, those of the API too."""

    def strike(world: World, chance: random.Random) -> Heal:
        fault = make(chance)
        rules = [world.spoil(fault, times=None, route=route) for route in _ROUTES]

        def heal() -> None:
            for rule in rules:
                rule.times = rule.struck

        return heal

    return strike


def _refused(world: World, chance: random.Random) -> Heal:
    """Let nobody connect to the hub itself."""
    if world.hub.refuses:
        raise NotNowError
    world.hub.refuse()
    return world.hub.listen


def _no_names(world: World, chance: random.Random) -> Heal:
    switch = chance.choice(world.members.all).nameless
    switch.touch()
    return lambda: switch.unlink(missing_ok=True)


def _expire(world: World, chance: random.Random) -> Heal:
    world.hub.expire_links()
    return nothing


def _wrong_certificate(world: World, chance: random.Random) -> Heal:
    world.spoil(faults.Redirect(world.impostor.endpoint), times=chance.randint(1, _MOST))
    return nothing


def _all() -> Iterator[tuple[str, Callable[[World, random.Random], Heal]]]:
    yield "connection refused behind a redirect", _spoil(lambda chance: faults.Redirect(_NO_SERVER))
    yield "connection closed without an answer", _storm(lambda chance: faults.Drop())
    yield "reset in mid-body", _spoil(lambda chance: faults.Reset(_after(chance)))
    yield "body truncated", _spoil(lambda chance: faults.Truncate(_after(chance)))
    yield "stall in mid-body", _spoil(lambda chance: faults.Stall(_after(chance)))
    yield "no answer at all", _spoil(lambda chance: faults.Hang())
    yield "slow-loris, 100 B/s", _spoil(lambda chance: faults.Drip(size=10, pause=0.1))
    yield "wrong Content-Length", _spoil(lambda chance: faults.WrongLength(chance.choice((-7, -1, 1, 4096))))
    yield "Range ignored", _spoil(lambda chance: faults.IgnoreRange(), _LARGE)
    yield (
        "wrong Content-Range",
        _spoil(lambda chance: faults.WrongRange(chance.choice((-1, 1, 65536))), _LARGE),
    )
    yield (
        "bytes corrupted",
        _spoil(lambda chance: faults.Corrupt(chance.randrange(4_000_000), 1 + chance.randrange(50)), _LARGE),
    )
    yield "HTML page with 200", _spoil(lambda chance: faults.ErrorPage())
    yield "gzip for identity", _spoil(lambda chance: faults.Gzip())
    yield "429 with Retry-After", _spoil(lambda chance: faults.RateLimited(retry_after="1"))
    yield "429 without Retry-After", _spoil(lambda chance: faults.RateLimited())
    yield "5xx storm", _storm(lambda chance: faults.Status(chance.choice((500, 502, 503, 504))))
    yield "links expired", _expire
    yield "redirect loop", _spoil(lambda chance: faults.Redirect())
    yield "DNS failure behind a redirect", _spoil(lambda chance: faults.Redirect(_NO_HOST))
    yield "DNS failure of a machine", _no_names
    yield "certificate of another host", _wrong_certificate


KINDS = [
    Kind("network", "connection refused by the hub", _refused, lasts=_LONGER),
    *(Kind("network", name, strike) for name, strike in _all()),
]
