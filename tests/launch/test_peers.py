"""Knocking at addresses: each of the answers, and never longer than is allowed."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from estimator_tl.launch.cluster import peers
from estimator_tl.launch.cluster.peers import Answer, port_problem, reach, reach_all
from tests.cluster import free_ports


@pytest.fixture
def listening():
    """The address of a server that accepts."""
    with socket.create_server(("localhost", 0)) as server:
        yield f"localhost:{server.getsockname()[1]}"


@contextlib.contextmanager
def deaf():
    """The address of a server that has as many connections waiting as it takes: a further one is not answered."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        time.sleep(0.1)
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_server_is_reached(listening):
    found = reach(listening, 5)
    assert (found.address, found.answer) == (listening, Answer.REACHED)
    assert 0 < found.seconds < 5
    assert found.text().startswith("reached in ")
    assert found.text().endswith(" ms")


def test_schemes_and_addresses_of_version_6(listening):
    assert reach(f"grpc://{listening}", 5).answer is Answer.REACHED
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6")
    with server:
        assert reach(f"[::1]:{server.getsockname()[1]}", 5).answer is Answer.REACHED


def test_nothing_listens_yet():
    (port,) = free_ports(1)
    found = reach(f"localhost:{port}", 5)
    assert (found.answer, found.text()) == (Answer.REFUSED, "refused (nothing listens yet)")


def test_a_name_that_does_not_resolve(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = reach("nobody.invalid:1", 5)
    assert (found.answer, found.text()) == (Answer.UNRESOLVED, "host name does not resolve")


def test_a_name_server_that_does_not_answer(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [][over.wait(30) :])
    started = time.monotonic()
    found = reach("somebody:1", 0.2)
    assert time.monotonic() - started < 5
    over.set()
    assert (found.answer, found.text()) == (Answer.UNRESOLVED, "host name does not resolve (not within 0.2 s)")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse instead")
def test_no_answer():
    with deaf() as address:
        before, started = threading.active_count(), time.monotonic()
        found = reach(address, 0.5)
        assert time.monotonic() - started < 5
        while threading.active_count() > before:
            assert time.monotonic() - started < 10, "the thread goes on"
            time.sleep(0.05)
    assert (found.answer, found.text()) == (Answer.SILENT, "no answer within 0.5 s")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse instead")
def test_all_are_asked_at_once(listening):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(deaf()) for _ in range(5)]
        started = time.monotonic()
        found = reach_all([*silent, listening], 0.8)
        assert time.monotonic() - started < 3
    assert [found[address].answer for address in silent] == [Answer.SILENT] * 5
    assert found[listening].answer is Answer.REACHED


def test_what_the_system_says_is_passed_on(monkeypatch):
    def no_route(*_):
        raise OSError(113, "No route to host")

    monkeypatch.setattr(peers.socket.socket, "connect", no_route)
    assert reach("127.0.0.1:1", 5).text() == "no answer (No route to host)"


def test_a_port_that_is_port_problem(listening):
    assert port_problem(listening) == "Address already in use"
    (port,) = free_ports(1)
    assert port_problem(f"localhost:{port}") is None


def test_tensorflow_is_not_needed():
    code = "import sys, estimator_tl.launch.cluster.peers; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
