"""The gRPC servers of a cluster's tasks: what a parameter server does, and the server of a chief or worker."""

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

_HANDOVER_SECS = 20.0  # time for the chief to save after a server gets a signal; Kubernetes kills after 30


def serve(cluster: Cluster, follower: Follower, requests: StopRequests, session_config: Any) -> None:
    """Holds variables until the run has ended; TensorFlow's own parameter server would have to be killed.

    A signal does not end the server at once: the chief gets the signal too, and still has to save these variables.
    """
    server = start(cluster, session_config)
    signal_time: float | None = None
    while follower.is_running:
        follower.check_alive()
        if requests.stop and signal_time is None:
            signal_time = time.monotonic()
        if signal_time is not None and time.monotonic() - signal_time > _HANDOVER_SECS:
            return
        time.sleep(0.5)
    end = following.stop_from_chief(follower)
    if end:
        requests.ask(end.reason, end.resumes)
        time.sleep(following.LOOK_SECS)  # workers need this server for their steps until they have seen the end too
    del server


def start(cluster: Cluster, session_config: Any) -> Any:
    """Returns the running server of this task; it lives as long as the returned object.

    Raises:
      UserError: another process uses its port.
    """
    spec = tf.train.ClusterSpec({name: dict(addresses) for name, addresses in cluster.tasks.items()})
    with naming_port_conflict(cluster):
        return tf.distribute.Server(spec, cluster.job, cluster.index, config=session_config)


@contextlib.contextmanager
def naming_port_conflict(cluster: Cluster) -> Iterator[None]:
    """A block that raises UserError with the address of this task if another process uses its port."""
    try:
        yield
    except tf.errors.UnknownError as error:
        if "Could not start gRPC server" not in error.message:
            raise
        raise UserError(
            f"{cluster.name} cannot listen at {cluster.address()} ({error.message}); its port is taken: end "
            "the process that uses it, or use another port."
        ) from error
