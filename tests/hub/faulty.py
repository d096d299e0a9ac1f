"""The local hub with scripted faults on top.

A fault is a value; `hub.on` says where it strikes, how often, and after how many untouched requests::

    from tests.hub.faults import Corrupt, IgnoreRange, Stall, Status, Truncate
    from tests.hub.faulty import FaultyHub

    with FaultyHub({"models/org/name": folder}) as hub:
        hub.on(Truncate(after=1000), file="model.safetensors")      # once, on the file's bytes
        hub.on(Status(503), route="tree", times=2)                  # twice, then all is well
        hub.on(IgnoreRange(), Corrupt(at=7), file="*.bin", times=None)   # both together, for ever
        stall = Stall(after=100)
        hub.on(stall, file="big.bin", skip=1)                       # on the second request for it
        ... start the download ...; stall.reached.wait(60); ...; stall.release.set()
        assert hub.leaks() == []                                    # no token went to the CDN
        assert [r.reply.status for r in hub.log.records("cdn", "big.bin")] == [200, 206]

`route` is a key of `local_hub.ROUTES`: info, tree, paths, resolve (the redirect), and where the bytes are,
cdn (LFS files) and cache (git files). Each fault has the routes and methods that make sense for it as its
default; `file` is a glob on the path in the repo. Positions in a body (`after`) count from the start of that
response, `Corrupt(at=)` counts from the start of the file.
Rules are tried in the order they were added; all that match strike together, and each counts its own strikes
(`rule.struck`). Closing the hub releases whatever still stalls.
"""

from __future__ import annotations

import copy
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, cast

from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.http import Origin, Reply, Request
from tests.hub.faults import Direct, DropCursor, Fault, FaultyReply


@dataclass
class Rule:
    """Where and how often some faults strike."""

    faults: tuple[Fault, ...]
    routes: tuple[str, ...]
    methods: tuple[str, ...]
    file: str = "*"
    times: int | None = 1
    skip: int = 0
    #: How often it has struck.
    struck: int = 0

    def strikes(self, request: Request) -> bool:
        """Count a request; tell whether the faults apply to it."""
        if request.route not in self.routes or request.method not in self.methods:
            return False
        if not fnmatchcase(request.file, self.file):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True


class FaultyHub(LocalHub):
    """A local hub that does what its rules say, and all else right."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 passed on
        super().__init__(*args, **options)
        self.closing = threading.Event()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        #: Keeps the port of a hub that refuses.
        self._bolt: socket.socket | None = None

    def __enter__(self) -> FaultyHub:
        super().__enter__()
        return self

    def close(self) -> None:
        self.heal()
        self.closing.set()
        if self._bolt:
            self._bolt.close()
        super().close()

    @property
    def refuses(self) -> bool:
        """Whether nobody can connect at the moment."""
        return self._bolt is not None

    def refuse(self) -> None:
        """Refuse connections to the hub, not to its CDN, and cut those that are open, until `listen`."""
        origin = self._origins[0]
        origin.shutdown()
        origin.socket.close()
        self._bolt = socket.socket()
        self._bolt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bolt.bind(origin.server_address)
        for connection in list(origin._connections.values()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def listen(self) -> None:
        """Accept connections again."""
        assert self._bolt
        old, *others = self._origins
        address = cast(tuple[str, int], old.server_address)
        new = Origin("hub", self._receive, self.log, address=address, host=address[0], prefix=self.prefix)
        self._origins = [new, *others, old]  # the old one's threads may still hang in a fault
        new.start()
        self._bolt.close()
        self._bolt = None

    def on(
        self,
        *faults: Fault,
        route: str = "",
        method: str = "",
        file: str = "*",
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """Let the faults strike together, `times` times (None: always) after `skip` requests."""
        routes = (route,) if route else faults[0].routes
        methods = (method,) if method else faults[0].methods
        rule = Rule(faults, routes, methods, file, times, skip)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Take all faults away, and release whoever stalls."""
        with self._lock:
            rules, self._rules = self._rules, []
        for fault in (fault for rule in rules for fault in rule.faults):
            fault.let_go()

    def be_a_mirror(self) -> None:
        """Behave as olah does: the cursor is lost, and HEAD is 200 without X-Linked headers."""
        self.on(DropCursor(), times=None)
        self.on(Direct(), times=None)

    def answer(self, request: Request) -> Reply:
        with self._lock:
            faults = [fault for rule in self._rules if rule.strikes(request) for fault in rule.faults]
        # A copy, so that the log shows what the client has sent.
        request = replace(request, headers=copy.copy(request.headers), query=dict(request.query))
        for fault in faults:
            fault.ask(self, request)
        reply = FaultyReply.of(super().answer(request))
        for fault in faults:
            reply = fault.answer(self, request, reply)
        return reply
