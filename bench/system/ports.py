"""Ports that a page can be served on."""

import socket

from bench.core.errors import InputError

LAST_PORT = 65535
# Above 1023, as the Fetch standard lists them (https://fetch.spec.whatwg.org/#port-blocking): a browser would
# show an error and no page.
BLOCKED_BY_BROWSERS = {
    *(1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6679, 6697, 10080),
    *range(6665, 6670),
}


def address(host: str, port: int) -> str:
    """Return the address of what is served there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def check_port(host: str, port: int) -> None:
    """Raise InputError unless a page can be served on a port, and a browser would open it."""
    if not 0 < port <= LAST_PORT:
        raise InputError(f"{port} is not a port", "--port", f"choose one from 1 to {LAST_PORT}")
    if port in BLOCKED_BY_BROWSERS:
        raise InputError(f"browsers refuse to open port {port}", "--port", "choose another, such as 5000")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(
            f"'{host}' is no address of this machine", "--host", "for example 127.0.0.1"
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            what = f"port {port} of {host} can't be used ({(error.strerror or str(error)).lower()})"
            raise InputError(
                what, "--port", f"choose another, for example --port {port % LAST_PORT + 1}"
            ) from error
