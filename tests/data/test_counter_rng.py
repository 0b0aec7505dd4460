"""Counter-based random numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.data.counter_rng import hashed, splitmix64, uniform

INTEGERS = st.integers(-(2**63), 2**63 - 1)


def test_splitmix64_gives_the_published_sequence_of_seed_0():
    gamma = 0x9E3779B97F4A7C15
    states = np.array([0, gamma, 2 * gamma % 2**64], dtype=np.uint64)
    assert splitmix64(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@given(INTEGERS, st.lists(INTEGERS, min_size=1, max_size=5))
def test_a_hash_of_an_array_is_the_hash_of_each_element(seed, values):
    together = hashed(seed, np.array(values, dtype=np.int64))
    assert together.tolist() == [int(hashed(seed, value)) for value in values]


@given(INTEGERS, INTEGERS)
def test_the_order_of_counters_matters(a, b):
    assert (int(hashed(a, b)) == int(hashed(b, a))) == (a == b)


def test_uniform_numbers_are_uniform_and_independent():
    state = hashed(3, np.arange(20_000))
    first, second = uniform(state, 0), uniform(state, 1)
    assert first.min() >= 0
    assert first.max() < 1
    counts, _ = np.histogram(first, bins=20, range=(0, 1))
    assert (((counts - 1000) ** 2) / 1000).sum() < 43.8  # chi-square with 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
