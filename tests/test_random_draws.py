from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adafocus_env.random_draws import integers, uniform

COUNTER = st.integers(0, 2**62)


@given(st.lists(COUNTER, min_size=1, max_size=20), COUNTER)
def test_a_draw_depends_on_its_own_counters_only(lanes: list[int], step: int) -> None:
    batch = uniform(torch.tensor(lanes), step)
    assert batch.tolist() == [float(uniform(lane, step)) for lane in lanes]
    assert ((batch >= 0) & (batch < 1)).all()


def test_known_answer() -> None:
    # SplitMix64 seeded with 0 starts with 0xE220A8397B1DCDAF.
    assert float(uniform(0)) == (0xE220A8397B1DCDAF >> 11) * 2.0**-53


def test_draws_are_uniform_and_streams_independent() -> None:
    first, second = uniform(np.arange(20_000), 0, 1), uniform(np.arange(20_000), 1, 0)
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert stats.kstest(second, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_integers_reach_every_value_and_no_other() -> None:
    assert np.array_equal(np.unique(integers(7, np.arange(500), 3)), np.arange(7))


def test_no_counter_is_an_error() -> None:
    with pytest.raises(ValueError, match="counter"):
        uniform()
