"""A session that hangs, as the first argument says, under a watchdog that waits for the seconds of the second."""

from __future__ import annotations

import sys
import time

from estimator_tl.compat import tf
from estimator_tl.launch.hooks import StallWatchdog

STEPS = 3


class Slow(tf.compat.v1.train.SessionRunHook):
    """Takes its time after each step, as an evaluation does."""

    def __init__(self, seconds):
        self._seconds = seconds

    def after_create_session(self, session, coord):
        time.sleep(self._seconds)

    def after_run(self, run_context, run_values):
        time.sleep(self._seconds)

    def end(self, session):
        time.sleep(self._seconds)


def main(where, seconds):
    queue = tf.queue.FIFOQueue(10, tf.int64, shapes=[[]])
    step = tf.compat.v1.train.get_or_create_global_step()
    fill = queue.enqueue_many([tf.constant([1, 1], tf.int64)])
    hooks = [StallWatchdog(seconds / 60)]
    if where == "step":
        advance, ready = tf.compat.v1.assign_add(step, queue.dequeue()), fill
    elif where == "session":
        advance, ready = tf.compat.v1.assign_add(step, 1), queue.dequeue()
    else:
        advance, ready = tf.compat.v1.assign_add(step, 1), tf.no_op()
        hooks.append(Slow(seconds + 0.5))
    scaffold = tf.compat.v1.train.Scaffold(local_init_op=ready)
    with tf.compat.v1.train.SingularMonitoredSession(hooks, scaffold) as session:
        for _ in range(1 if where == "nowhere" else STEPS):
            session.run(advance)
    time.sleep(seconds + 0.5)
    print("ended")


if __name__ == "__main__":
    tf.compat.v1.disable_eager_execution()
    main(sys.argv[1], float(sys.argv[2]))
