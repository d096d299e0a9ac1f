"""The bench of the network tests, for hubs, folders and bytes that mean harm."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from tests.net.conftest import _own_network, bench, repo, source

__all__ = ["_own_network", "bench", "repo", "source"]

_ask = socket.getaddrinfo


@pytest.fixture(autouse=True)
def _nobody_is_asked_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name server hears of names that were made up, and no test waits for one."""
    monkeypatch.setattr(socket, "getaddrinfo", _look_up)


def _look_up(host: Any, *args: Any, **options: Any) -> list[Any]:  # noqa: ANN401 as the real one
    name = host.decode("latin-1") if isinstance(host, bytes) else str(host)
    if name != "localhost":
        try:
            ipaddress.ip_address(name.rstrip("."))
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    return _ask(host, *args, **options)
