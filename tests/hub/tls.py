"""A self-signed certificate for 127.0.0.1 and localhost, made at run time without any program or library.

ASN.1 DER by hand, and a P-256 key whose arithmetic is slow and not constant-time: fit for tests only.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None


@dataclass(frozen=True)
class Certificate:
    """Files in PEM form; `cert` is also the authority to trust (SSL_CERT_FILE)."""

    cert: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        """Return what `LocalHub(tls=...)` takes."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def demanding(self, client: Certificate) -> ssl.SSLContext:
        """Return the same, for a server that wants to see the client's certificate."""
        context = self.server()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client.cert)
        return context


def self_signed(
    folder: Path, names: tuple[str, ...] = ("localhost", "127.0.0.1"), *, days_ago: int = 0
) -> Certificate:
    """Write a new key and a certificate for these names that is valid for a day on either side of now.

    With `days_ago`, it is one of those days.
    """
    secret = secrets.randbelow(_N - 1) + 1
    public = _bytes(_times(secret, _G))
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    made.cert.write_text(_pem("CERTIFICATE", _certificate(secret, public, names, days_ago)))
    private = _seq(
        _int(1), _tlv(0x04, secret.to_bytes(32, "big")), _tlv(0xA0, _CURVE), _tlv(0xA1, _bits(public))
    )
    made.key.write_text(_pem("EC PRIVATE KEY", private))
    return made


def _certificate(secret: int, public: bytes, names: tuple[str, ...], days_ago: int) -> bytes:
    now = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=days_ago)
    day = dt.timedelta(days=1)
    who = _seq(_tlv(0x31, _seq(_oid("2.5.4.3"), _tlv(0x0C, b"local test hub"))))
    algorithm = _seq(_oid("1.2.840.10045.4.3.2"))
    body = _seq(
        _tlv(0xA0, _int(2)),
        _int(secrets.randbits(63) + 1),
        algorithm,
        who,
        _seq(_time(now - day), _time(now + day)),
        who,
        _seq(_seq(_oid("1.2.840.10045.2.1"), _CURVE), _bits(public)),
        _tlv(0xA3, _extensions(public, names)),
    )
    return _seq(body, algorithm, _bits(_sign(secret, body)))


def _extensions(public: bytes, names: tuple[str, ...]) -> bytes:
    critical = _tlv(0x01, b"\xff")
    key_id = _tlv(0x04, hashlib.sha1(public).digest())
    return _seq(
        _seq(_oid("2.5.29.19"), critical, _tlv(0x04, _seq(critical))),  # a certificate authority
        _seq(_oid("2.5.29.15"), critical, _tlv(0x04, _tlv(0x03, b"\x02\x84"))),  # that signs, and is signed
        _seq(_oid("2.5.29.14"), _tlv(0x04, key_id)),
        _seq(_oid("2.5.29.17"), _tlv(0x04, _seq(*map(_name, names)))),
    )


def _name(name: str) -> bytes:
    try:
        return _tlv(0x87, ipaddress.ip_address(name).packed)
    except ValueError:
        return _tlv(0x82, name.encode())


def _sign(secret: int, data: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(data).digest(), "big")
    once = secrets.randbelow(_N - 1) + 1
    point = _times(once, _G)
    assert point
    r = point[0] % _N
    return _seq(_int(r), _int(pow(once, -1, _N) * (digest + r * secret) % _N))


def _add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % _P == 0:
        return None
    slope = (
        (3 * a[0] ** 2 - 3) * pow(2 * a[1], -1, _P) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, _P)
    )
    x = (slope * slope - a[0] - b[0]) % _P
    return x, (slope * (a[0] - x) - a[1]) % _P


def _times(factor: int, point: Point) -> Point:
    result: Point = None
    while factor:
        if factor & 1:
            result = _add(result, point)
        point = _add(point, point)
        factor >>= 1
    return result


def _bytes(point: Point) -> bytes:
    assert point
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _seq(*items: bytes) -> bytes:
    return _tlv(0x30, b"".join(items))


def _int(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes) -> bytes:
    return _tlv(0x03, b"\0" + content)


def _time(when: dt.datetime) -> bytes:
    return _tlv(0x17, when.strftime("%y%m%d%H%M%SZ").encode())


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray([first * 40 + second])
    for number in rest:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        content += bytes(reversed(digits))
    return _tlv(0x06, bytes(content))


def _pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


_CURVE = _oid("1.2.840.10045.3.1.7")
