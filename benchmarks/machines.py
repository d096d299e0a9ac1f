"""Machines with a link of their own: network namespaces, or throttled proxies where these are not allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.proxy import ThrottlingProxy

#: Lies in namespaces only, where nothing else is reached: it cannot collide with a network of this machine.
_SUBNET = "10.91.0"
_SERVERS = ("hub", "cdn", "head")
_BRIDGE = "br0"
#: What waits longer than this in a link's queue is dropped.
_LATENCY = "50ms"
_BURST = "32kbit"


class NoNamespacesError(Exception):
    """Network namespaces cannot be made here."""


@dataclass(frozen=True)
class Machine:
    """One machine: how a process is started on it, and how the others reach that process."""

    name: str
    address: str
    #: Its name in URLs.
    host: str
    #: Words before a command that make it run there.
    prefix: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


class Network(Protocol):
    """Machines behind shaped links, and servers behind fast ones."""

    about: str
    hub: Machine
    cdn: Machine
    #: Where Redis and the master are.
    head: Machine
    machines: Sequence[Machine]

    def shape(self, machine: Machine, rate: int) -> None:
        """Give a machine's link so many bytes a second."""

    def close(self) -> None:
        """Remove what was made."""


class Namespaces:
    """Each machine and server in a network namespace, at the ports of one bridge in another one."""

    about = "network namespaces, tc tbf both ways; hub, CDN and Redis in namespaces of their own"

    def __init__(self, count: int, rate: int) -> None:
        """Make them; raises NoNamespacesError, and leaves nothing, where that is not allowed."""
        self._tag = f"hfd-{os.getpid()}"
        self._made: list[str] = []
        if missing := [tool for tool in ("ip", "tc") if not shutil.which(tool)]:
            raise NoNamespacesError(f"there is no `{missing[0]}` on PATH")
        try:
            self._switch = self._add("switch")
            _run("ip", "-n", self._switch, "link", "add", _BRIDGE, "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", _BRIDGE, "up")
            self.hub, self.cdn, self.head = (self._machine(n, name) for n, name in enumerate(_SERVERS, 1))
            self.machines: Sequence[Machine] = [self._machine(n + 10, f"m{n}") for n in range(1, count + 1)]
            for machine in self.machines:
                self.shape(machine, rate)
        except NoNamespacesError:
            self.close()
            raise

    def shape(self, machine: Machine, rate: int) -> None:
        """Shape both ends of the machine's cable: what leaves the bridge for it, and what it sends."""
        shape = ("root", "tbf", "rate", f"{rate * 8}bit", "burst", _BURST, "latency", _LATENCY)
        _run("tc", "-n", self._switch, "qdisc", "replace", "dev", self._port(machine), *shape)
        _run("tc", "-n", self._named(machine.name), "qdisc", "replace", "dev", "eth0", *shape)

    def close(self) -> None:
        """Remove our namespaces; their cables and the bridge go with them."""
        while self._made:
            subprocess.run(["ip", "netns", "del", self._made.pop()], check=False)  # noqa: S607 as PATH has it

    def _machine(self, number: int, name: str) -> Machine:
        namespace = self._add(name)
        address = f"{_SUBNET}.{number}"
        machine = Machine(name, address, address, ("ip", "netns", "exec", namespace))
        port = self._port(machine)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run("ip", "link", "add", port, "netns", self._switch, *cable)
        _run("ip", "-n", self._switch, "link", "set", port, "master", _BRIDGE, "up")
        _run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "-n", namespace, "link", "set", "eth0", "up")
        return machine

    def _add(self, name: str) -> str:
        namespace = self._named(name)
        _run("ip", "netns", "add", namespace)
        self._made.append(namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _named(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _port(self, machine: Machine) -> str:
        """Return the name of the cable's end in the bridge; an interface's has 15 letters at most."""
        return f"hfd{os.getpid()}-{machine.address.rpartition('.')[2]}"


class LocalProxies:
    """No namespaces: all on loopback, each machine behind an HTTP proxy that limits what comes in."""

    about = "processes on loopback, each machine behind a throttled HTTP proxy; Redis is not throttled"

    def __init__(self, count: int, rate: int) -> None:
        loopback = "127.0.0.1"
        # The CDN has a name of its own, for huggingface_hub 1.x takes another port for the same origin.
        hosts = {"cdn": "localhost"}
        self.hub, self.cdn, self.head = (
            Machine(name, loopback, hosts.get(name, loopback)) for name in _SERVERS
        )
        self._proxies = {f"m{n}": ThrottlingProxy(rate) for n in range(1, count + 1)}
        self.machines: Sequence[Machine] = [
            Machine(name, loopback, loopback, environ={"http_proxy": proxy.url})
            for name, proxy in self._proxies.items()
        ]
        for proxy in self._proxies.values():
            proxy.start()

    def shape(self, machine: Machine, rate: int) -> None:
        """Change what its proxy lets through."""
        self._proxies[machine.name].limit(rate)

    def close(self) -> None:
        """Stop the proxies."""
        for proxy in self._proxies.values():
            proxy.stop()


@contextmanager
def network(kind: str, count: int, rate: int) -> Iterator[tuple[Network, str]]:
    """Yield so many machines of `rate` bytes a second each, and why they are not what was hoped for, or "".

    `kind` is `namespaces`, `proxies`, or `auto` for the first of them that is allowed. Raises
    NoNamespacesError if just those were asked for.
    """
    made: Network
    why = ""
    with ExitStack() as stack:
        try:
            made = LocalProxies(count, rate) if kind == "proxies" else Namespaces(count, rate)
        except NoNamespacesError as error:
            if kind == "namespaces":
                raise
            made, why = LocalProxies(count, rate), str(error)
        stack.callback(made.close)
        yield made, why


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespacesError(f"`{' '.join(words)}`: {done.stderr.strip()}")
