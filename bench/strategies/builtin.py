"""The strategies that come with `bench`, each a few lines of data."""

from collections.abc import Callable, Mapping

from bench.core.runs import Value
from bench.strategies.base import (
    Phase,
    Range,
    Strategy,
)


def _constant(stage_multiplier: float) -> Callable[[int, Mapping[str, Value]], tuple[Phase, ...]]:
    return lambda stages, _: (Phase(1, (stage_multiplier,) * stages + (1,)),)


def _last_stages(stages: int, params: Mapping[str, Value]) -> tuple[Phase, ...]:
    """Freeze all but the last `unfrozen` stages; the stem stays frozen, or it would be `full`."""
    unfrozen = min(int(params["unfrozen"]), stages - 1)
    return (Phase(1, (0,) * (stages - unfrozen) + (1,) * (unfrozen + 1)),)


def _decayed(stages: int, params: Mapping[str, Value]) -> tuple[Phase, ...]:
    """Multiply by `decay` for each stage further from the head (Howard and Ruder 2018, section 3.2)."""
    decay = float(params["decay"])
    return (Phase(1, (*(decay ** (stages - 1 - stage) for stage in range(stages)), 1)),)


BUILTIN = (
    Strategy(
        name="scratch",
        summary="He initialisation, all stages trained: what the pretrained weights are measured against",
        start="he",
        phases=_constant(1),
        learning_rate=Range(3e-4, 3e-2, 3e-3, log=True),
        space={},
    ),
    Strategy(
        name="feature_extractor",
        summary="pretrained and frozen; only the head is trained",
        start="pretrained",
        phases=_constant(0),
        learning_rate=Range(1e-3, 1e-1, 1e-2, log=True),
        space={},
    ),
    Strategy(
        name="partial",
        summary="pretrained; the last stages and the head are trained (how many stages: tuned)",
        start="pretrained",
        phases=_last_stages,
        learning_rate=Range(1e-4, 1e-2, 1e-3, log=True),
        space={"unfrozen": Range(1, 3, 1, integer=True)},
    ),
    Strategy(
        name="full",
        summary="pretrained; all stages trained at one learning rate",
        start="pretrained",
        phases=_constant(1),
        learning_rate=Range(1e-4, 1e-2, 1e-3, log=True),
        space={},
    ),
    Strategy(
        name="discriminative",
        summary="pretrained; all stages trained, slower towards the input (the decay per stage: tuned)",
        start="pretrained",
        phases=_decayed,
        learning_rate=Range(1e-4, 1e-2, 1e-3, log=True),
        space={"decay": Range(0.2, 0.9, 0.5)},
    ),
    Strategy(
        name="linear_probe",
        summary="pretrained and frozen; logistic regression on the features, by L-BFGS (the penalty: tuned)",
        start="pretrained",
        phases=_constant(0),
        learning_rate=None,
        space={"penalty": Range(1e-6, 1e5, 1.0, log=True)},  # of Kornblith et al. 2019
        solver="lbfgs",
    ),
)
