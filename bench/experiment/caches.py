"""What is kept to be faster and can be computed again: how much there is of each kind, and removing it."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.core.registry import Registry
from bench.data import image_store
from bench.system import locations
from bench.training.feature_store import FeatureStore


@dataclass(frozen=True)
class CacheKind:
    """A kind of what is kept.

    Args:
        size: returns the bytes that it takes.
        clear: removes all of it that no process uses; returns the bytes that this freed.
    """

    name: str
    summary: str
    size: Callable[[], int]
    clear: Callable[[], int]


CACHES: Registry[CacheKind] = Registry("kind of cache")


def _size_of_steps() -> int:
    return sum(file.stat().st_size for file in (locations.cache() / "steps").glob("*.json"))


def _clear_steps() -> int:
    before = _size_of_steps()
    for file in (locations.cache() / "steps").glob("*.json"):
        file.unlink(missing_ok=True)
    return before - _size_of_steps()


CACHES.add(
    CacheKind("images", "decoded images", lambda: sum(image_store.sizes().values()), image_store.clear)
)
CACHES.add(
    CacheKind(
        "features",
        "what frozen stages make of them",
        lambda: FeatureStore().size(),
        lambda: FeatureStore().clear(),
    )
)
CACHES.add(CacheKind("steps", "how long a training step takes here", _size_of_steps, _clear_steps))
