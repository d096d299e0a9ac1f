"""The first words on a connection to Redis, and what it means when the server breaks them off."""

from __future__ import annotations

import redis


class BrokenOffError(redis.ConnectionError):
    """The server ended a TLS connection before it had said anything."""


def greet(connection: redis.Connection) -> None:
    """Log in and the like; raises BrokenOffError where TLS ends at once, which often has one reason.

    A server that misses our certificate says so after the handshake, and closes; which of the two we see
    is chance.
    """
    try:
        connection.on_connect()  # type: ignore[no-untyped-call]
    except redis.ConnectionError as error:
        if type(error) is redis.ConnectionError and isinstance(connection, redis.SSLConnection):
            raise BrokenOffError(str(error)) from error
        raise
