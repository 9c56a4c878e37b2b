"""Intervals of global steps, without TensorFlow."""

from __future__ import annotations

import pytest

from estimator_tl.spans import Interval, join_intervals


@pytest.mark.parametrize(
    ("one", "other", "part", "length"),
    [
        (Interval(), Interval(3, 8), Interval(3, 8), 5),
        (Interval(2, 5), Interval(3, 8), Interval(3, 5), 2),
        (Interval(2), Interval(5), Interval(5), None),
        (Interval(2, 5), Interval(5), Interval(5, 5), 0),
        (Interval(2, 5), Interval(7, 9), Interval(7, 5), 0),
    ],
)
def test_the_part_of_an_interval_in_another(one, other, part, length):
    assert one.within(other) == other.within(one) == part
    assert part.length == length
    assert one.overlaps(other) is (length != 0)


def test_steps_and_ends():
    assert [step for step in range(9) if Interval(3, 6).contains(step)] == [3, 4, 5]
    assert Interval(3).contains(10**9)
    assert [Interval(3, 6).end_by(4), Interval(3, 6).end_by(9), Interval(3).end_by(9)] == [4, 6, 9]


def test_neighbours_are_joined_and_empty_intervals_left_out():
    assert join_intervals([Interval(0, 3), Interval(3, 5), Interval(8)]) == [Interval(0, 5), Interval(8)]
    assert join_intervals([Interval(4, 4), Interval(0, 10), Interval(10, 9), Interval(12)]) == [
        Interval(0, 10),
        Interval(12),
    ]
