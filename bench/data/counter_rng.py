"""Random numbers as a pure function of counters: the same on every machine, version, batch and device."""

import numpy as np

MASK = (1 << 64) - 1
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(state: np.ndarray) -> np.ndarray:
    """Return the next output of the SplitMix64 generator for each uint64 state.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17,
    with the constants of David Stafford's mix 13.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        z = state + _GAMMA
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def hashed(*counters: int | np.ndarray) -> np.ndarray:
    """Return a uint64 hash of the counters, which broadcast; their order matters, negative ones are fine."""
    state = np.zeros((), dtype=np.uint64)
    for counter in counters:
        with np.errstate(over="ignore"):
            state = splitmix64(state + _unsigned(counter))
    return state


def uniform(state: np.ndarray, number: int) -> np.ndarray:
    """Return the number-th uniform float64 in [0, 1) of each hashed state."""
    return np.asarray((hashed(state, number) >> np.uint64(11)) * 2.0**-53)


def _unsigned(counter: int | np.ndarray) -> np.ndarray:
    if isinstance(counter, np.ndarray):
        return counter.astype(np.uint64)  # a negative int64 wraps, as in C
    return np.array(int(counter) & MASK, dtype=np.uint64)
