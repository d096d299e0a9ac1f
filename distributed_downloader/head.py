"""The head of an answer: its status and headers, if they are plain (pure functions)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: Status line and headers in visible ASCII, each line with its own end, none folded (RFC 9112, 4 and 5).
_PLAIN = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [ -~]*\r\n((?:[!-9;-~]+:[\t -~]*\r\n){1,99})\r\n")
_FIELD = re.compile(r"([!-9;-~]+):([\t -~]*)\r\n")
_BODILESS = (204, 304)


class Headers(Mapping[str, str]):
    """The headers of an answer; the case of their names means nothing."""

    def __init__(self, fields: dict[str, str]) -> None:
        """`fields`: by their names in lower case."""
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        """See Mapping."""
        return self._fields[name.lower()]

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as in Mapping
        """See Mapping."""
        return self._fields.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        """See Mapping."""
        return iter(self._fields)

    def __len__(self) -> int:
        """See Mapping."""
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        """See Mapping."""
        return isinstance(name, str) and name.lower() in self._fields


class Head(NamedTuple):
    """What a plain head says."""

    status: int
    headers: Headers
    #: Bytes of the body.
    length: int
    #: Bytes of the head itself.
    size: int


def plain_head(data: bytes) -> Head | None:
    """Return the head of an answer to GET that `data` begins with; None if it is not whole, or not plain."""
    found = _PLAIN.match(data)
    if found is None:
        return None
    lines = _FIELD.findall(found[2].decode("ascii"))
    fields = {name.lower(): value.strip() for name, value in lines}
    status, length = int(found[1]), fields.get("content-length", "")
    if len(fields) < len(lines) or not (length.isdigit() and len(length) < 19) or status in _BODILESS:
        return None
    # http.client has to judge bodies of unknown length, and what a connection is to become.
    if "transfer-encoding" in fields or "upgrade" in fields:
        return None
    if fields.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return Head(status, Headers(fields), int(length), found.end())
