"""An nginx of our own: the CDN behind the local hub, and a hub that serves small files by itself."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.waiting import BenchmarkError, Child, environment, until
from tests.hub.tls import self_signed
from tests.servers import free_port

_START_SECONDS = 20.0
#: Not as root's `nobody`, who cannot look into a folder of ours; without keep-alive's usual end after
#: 1,000 requests, which is not what is measured.
_CONFIGURATION = """
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        location /api/ {{ proxy_pass {hub}; }}
{locations}
    }}
}}
"""
_LOCATIONS = """
        location /lfs/models/{repo}/{commit}/ {{ alias {folder}/; }}
        location /{repo}/resolve/{commit}/ {{ alias {folder}/; add_header X-Repo-Commit {commit}; }}
"""


def find_nginx() -> str | None:
    """Return the program, which Debian keeps where only root's PATH leads; None if there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Content:
    """A repo as nginx sees it."""

    folder: Path
    commit: str


class Nginx:
    """One nginx on loopback, with one worker process; its addresses are known before it runs."""

    def __init__(self, folder: Path) -> None:
        """Choose ports, and write a certificate; raises BenchmarkError where there is no nginx."""
        found = find_nginx()
        if not found:
            raise BenchmarkError("there is no nginx: install it, such as with `apt-get install nginx`")
        self._binary, self._folder = found, folder
        folder.mkdir()
        self._port, self._tls_port = free_port(), free_port()
        self._certificate = self_signed(folder)
        #: Another host than the hub's, as it is in reality.
        self.url = f"http://localhost:{self._port}"
        self.tls_url = f"https://localhost:{self._tls_port}"
        self._child: Child | None = None

    @property
    def authority(self) -> Path:
        """The certificate to trust."""
        return self._certificate.cert

    def start(self, repos: Mapping[str, Content], hub: str) -> None:
        """Serve these repos; what is asked of the API goes on to `hub`."""
        locations = "".join(
            _LOCATIONS.format(repo=repo, commit=content.commit, folder=content.folder)
            for repo, content in repos.items()
        )
        conf = self._folder / "conf"
        conf.write_text(
            _CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",
                folder=self._folder,
                port=self._port,
                tls_port=self._tls_port,
                cert=self._certificate.cert,
                key=self._certificate.key,
                hub=hub,
                locations=locations,
            )
        )
        words = [self._binary, "-p", str(self._folder), "-c", str(conf), "-e", "stderr"]
        self._child = Child(words, folder=self._folder, name="nginx", environ=environment())
        until(self._answers, "nginx", _START_SECONDS)

    def _answers(self) -> bool:
        assert self._child
        self._child.check()
        try:
            with socket.create_connection(("127.0.0.1", self._tls_port)):
                return True
        except ConnectionError:
            return False

    def close(self) -> None:
        """Stop it."""
        if self._child:
            self._child.end()
