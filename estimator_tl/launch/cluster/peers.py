"""Whether the other tasks of a cluster can be reached over TCP, in bounded time and without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import socket
import threading
import time
from collections.abc import Iterable


class Answer(enum.Enum):
    """What came of knocking at an address, in words."""

    REACHED = "reached"
    UNRESOLVED = "host name does not resolve"
    REFUSED = "refused (nothing listens yet)"
    SILENT = "no answer"


@dataclasses.dataclass(frozen=True)
class Reach:
    """What came of knocking at an address.

    Attributes:
      address: as it was given.
      answer: which of the four it was.
      seconds: how long it took.
      detail: what the operating system said of it, if it said more.
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
        return f"{self.answer.value} within {self.seconds:.3g} s" if self.answer is Answer.SILENT else self.answer.value


def reach(address: str, timeout: float) -> Reach:
    """Opens and closes a connection to one address; see `reach_all`."""
    return reach_all([address], timeout)[address]


def reach_all(addresses: Iterable[str], timeout: float) -> dict[str, Reach]:
    """Opens and closes a connection to each address, all at once.

    Threads that nobody waits for do it: the search for a host name cannot be given a time limit.

    Args:
      addresses: ``host:port``.
      timeout: seconds for all of it.

    Returns:
      What came of each by its address.
    """
    found = {address: Reach(address, Answer.UNRESOLVED, timeout, f"not within {timeout:g} s") for address in addresses}
    deadline = time.monotonic() + timeout
    threads = [threading.Thread(target=_knock, args=(address, deadline, found), daemon=True) for address in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def taken(address: str) -> str | None:
    """Returns why a server of this machine cannot listen on the port of an address; None where it can."""
    _, port = _host_and_port(address)
    with socket.socket() as trial:
        # A connection that ended a moment ago does not keep a server from its port; another server does.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def _knock(address: str, deadline: float, found: dict[str, Reach]) -> None:
    started = time.monotonic()
    host, port = _host_and_port(address)
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found[address] = Reach(address, Answer.UNRESOLVED, time.monotonic() - started)
        return
    # This is what is known from here on, also to a caller whose time is up.
    outcome = found[address] = Reach(address, Answer.SILENT, found[address].seconds)
    for family, kind, protocol, _, place in places:
        with contextlib.closing(socket.socket(family, kind, protocol)) as connection:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                connection.connect(place)
            except ConnectionRefusedError:
                outcome = Reach(address, Answer.REFUSED, time.monotonic() - started)
            except OSError as error:
                if outcome.answer is Answer.SILENT and error.strerror:  # which a time limit has none of
                    outcome = Reach(address, Answer.SILENT, time.monotonic() - started, error.strerror)
            else:
                found[address] = Reach(address, Answer.REACHED, time.monotonic() - started)
                return
    found[address] = outcome


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)
