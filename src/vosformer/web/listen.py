"""Where a server listens, and under which names it is asked for."""

from __future__ import annotations

import socket

from vosformer.errors import InputError

LOCAL = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int, patience: float | None = None) -> socket.socket:
    """Return a listening socket.

    Args:
        host: address.
        port: 0 takes a free one.
        patience: seconds after which the system breaks a connection off whose other side does not read what was sent; None: never.

    Raises:
        InputError: the address cannot be listened on.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        if patience is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
        return listener
    except (OSError, OverflowError) as error:
        raise InputError(f"{host}:{port} cannot be listened on: {error}; --port 0 takes a free one") from error


def host_names(host: str) -> tuple[str, set[str]]:
    """Return the name to show in the address, and all names under which requests may come."""
    local = {"127.0.0.1", "localhost", "[::1]"}
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname().lower()
        try:
            addresses = socket.gethostbyname_ex(name)[2]
        except OSError:
            addresses = []
        return name, {*local, name, *addresses}
    shown = f"[{host}]" if ":" in host else host.lower()
    return shown, {*local, shown}
