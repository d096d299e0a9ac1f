"""The bench of the network tests, for hubs, folders and bytes that mean harm."""

from __future__ import annotations

import functools
import ipaddress
import socket
from typing import Any

import pytest

from distributed_downloader import ssl_config
from distributed_downloader.transfer import hub_client
from tests.net.conftest import _own_network, bench, repo, source

__all__ = ["_own_network", "bench", "repo", "source"]

_ask = socket.getaddrinfo


#: No test here speaks TLS, and to read the certificates for each client costs more than most tests do.
_tls_context = functools.cache(ssl_config.tls_context)


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ssl_config, hub_client):
        monkeypatch.setattr(module, "tls_context", _tls_context)


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
