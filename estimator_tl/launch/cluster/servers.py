"""Servers of a cluster's tasks: a parameter server's whole part, and the server of a chief or worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from estimator_tl.compat import tf
from estimator_tl.errors import UserError
from estimator_tl.launch.cluster import following
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.rendezvous import Follower
from estimator_tl.launch.stopping import StopRequests

_HANDOVER_SECS = 20.0  # for the chief to save once a server was told to stop; Kubernetes kills after 30


def serve(cluster: Cluster, follower: Follower, requests: StopRequests, session_config: Any) -> None:
    """Holds variables until the run has ended; unlike TensorFlow's own parameter server, which has to be killed.

    A signal is no end by itself: the chief, which hears it too, still has to save what is held here.
    """
    server = start(cluster, session_config)
    told: float | None = None
    while follower.is_running:
        follower.check_alive()
        if requests.stop and told is None:
            told = time.monotonic()
        if told is not None and time.monotonic() - told > _HANDOVER_SECS:
            return
        time.sleep(0.5)
    end = following.end_of_the_chief(follower)
    if end:
        requests.ask(end.reason, end.resumes)
        time.sleep(following.LOOK_SECS)  # until workers have seen it as well, whose steps need this server
    del server


def start(cluster: Cluster, session_config: Any) -> Any:
    """Starts the server of this task, which lives as long as what is returned.

    Raises:
      UserError: its port is taken.
    """
    spec = tf.train.ClusterSpec({name: dict(addresses) for name, addresses in cluster.tasks.items()})
    with naming_a_taken_port(cluster):
        return tf.distribute.Server(spec, cluster.job, cluster.index, config=session_config)


@contextlib.contextmanager
def naming_a_taken_port(cluster: Cluster) -> Iterator[None]:
    """A block whose error names the port of this task where another process has it."""
    try:
        yield
    except tf.errors.UnknownError as error:
        if "Could not start gRPC server" not in error.message:
            raise
        raise UserError(
            f"{cluster.name} cannot listen at {cluster.address()} ({error.message}); its port is taken: end "
            "the process that has it, or use another one."
        ) from error
