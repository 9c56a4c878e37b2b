"""Checks whether the other tasks of a cluster can be reached over TCP, in bounded time and without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import socket
import threading
import time
from collections.abc import Iterable


class Answer(enum.Enum):
    """The result of a connection attempt; the values are texts for messages."""

    REACHED = "reached"
    UNRESOLVED = "host name does not resolve"
    REFUSED = "refused (nothing listens yet)"
    SILENT = "no answer"


@dataclasses.dataclass(frozen=True)
class Reach:
    """A connection attempt to an address.

    Attributes:
      address: the address ``host:port``.
      answer: the result.
      seconds: how long it took.
      detail: the message of the operating system, if there is one.
    """

    address: str
    answer: Answer
    seconds: float = 0.0
    detail: str = ""

    def text(self) -> str:
        """Returns e.g. ``reached in 1.2 ms`` or ``no answer within 5 s``."""
        if self.answer is Answer.REACHED:
            return f"reached in {1000 * self.seconds:.1f} ms"
        if self.detail:
            return f"{self.answer.value} ({self.detail})"
        if self.answer is Answer.SILENT:
            return f"{self.answer.value} within {self.seconds:.3g} s"
        return str(self.answer.value)


def reach(address: str, timeout: float) -> Reach:
    """Opens and closes a connection to one address; see `reach_all`."""
    return reach_all([address], timeout)[address]


def reach_all(addresses: Iterable[str], timeout: float) -> dict[str, Reach]:
    """Opens and closes a connection to each address, all at the same time.

    Each attempt runs in a daemon thread, because the lookup of a host name takes no time limit.

    Args:
      addresses: addresses ``host:port``.
      timeout: seconds for all attempts together.

    Returns:
      The result for each address.
    """
    results = {
        address: Reach(address, Answer.UNRESOLVED, timeout, f"not within {timeout:g} s") for address in addresses
    }
    deadline = time.monotonic() + timeout
    threads = [threading.Thread(target=_connect, args=(address, deadline, results), daemon=True) for address in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(results)


def port_problem(address: str) -> str | None:
    """Returns why a server on this machine cannot listen on the port of an address; None if it can."""
    _, port = _host_and_port(address)
    with socket.socket() as trial:
        # With this option only another server blocks the port, not a connection that ended a moment ago.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def _connect(address: str, deadline: float, results: dict[str, Reach]) -> None:
    started = time.monotonic()
    host, port = _host_and_port(address)
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        results[address] = Reach(address, Answer.UNRESOLVED, time.monotonic() - started)
        return
    # From here on, a caller whose time is up sees this result.
    outcome = results[address] = Reach(address, Answer.SILENT, results[address].seconds)
    for family, kind, protocol, _, socket_address in infos:
        with contextlib.closing(socket.socket(family, kind, protocol)) as connection:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                connection.connect(socket_address)
            except ConnectionRefusedError:
                outcome = Reach(address, Answer.REFUSED, time.monotonic() - started)
            except OSError as error:
                if outcome.answer is Answer.SILENT and error.strerror:  # a timeout has no strerror
                    outcome = Reach(address, Answer.SILENT, time.monotonic() - started, error.strerror)
            else:
                results[address] = Reach(address, Answer.REACHED, time.monotonic() - started)
                return
    results[address] = outcome


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)
