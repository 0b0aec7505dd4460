"""The strategies that come with `bench`, each a few lines of data."""

from collections.abc import Mapping

from bench.core.runs import Value
from bench.strategies.base import Range, Rule, Strategy
from bench.strategies.plan import Adapter, Phase, Solver

L2_STRENGTH = Range(1e-6, 1e5, 1.0, log=True, label="L2 strength")  # of Kornblith et al. 2019


DEPTH = "stage, as a share of the way from input to output"
FINE_TUNING_RATE = Range(3e-5, 3e-3, 3e-4, log=True)  # of the backbone
# How many times the backbone's rate the new head has: it starts from nothing, the backbone from good weights.
HEAD_RATE = Range(
    1.0, 100.0, 10.0, log=True, label="learning rate of the head, in times that of the backbone"
)


def _constant(stage_multiplier: float, solver: Solver = "gradient") -> Rule[tuple[Phase, ...]]:
    return lambda stages, params: (Phase(1, (stage_multiplier,) * stages + (_head(params),), solver),)


def _head(params: Mapping[str, Value]) -> float:
    """Return the head's multiplier: 1 where it is not tuned apart from the backbone's."""
    return float(params.get("head_rate", 1))


def _last_stages(stages: int, params: Mapping[str, Value]) -> tuple[Phase, ...]:
    """Freeze all but the last `unfrozen` stages; the stem stays frozen, or it would be `full`."""
    unfrozen = min(int(params["unfrozen"]), stages - 1)
    return (Phase(1, (0,) * (stages - unfrozen) + (1,) * unfrozen + (_head(params),)),)


def _decayed(stages: int, params: Mapping[str, Value]) -> tuple[Phase, ...]:
    """Multiply by `decay` for each stage further from the head (Howard and Ruder 2018, section 3.2)."""
    decay = float(params["decay"])
    return (Phase(1, (*(decay ** (stages - 1 - stage) for stage in range(stages)), _head(params))),)


def _one_stage(stages: int, params: Mapping[str, Value]) -> tuple[Phase, ...]:
    """Train the stage at `depth`, a share of the way from the input to the output, and the head."""
    chosen = min(int(float(params["depth"]) * stages), stages - 1)
    return (Phase(1, (*(float(stage == chosen) for stage in range(stages)), _head(params))),)


def _earlier_stage(stages: int, params: Mapping[str, Value]) -> int:
    """Return the stage at `depth`, counted from 1: any but the last."""
    return 1 + min(int(float(params["depth"]) * (stages - 1)), stages - 2)


def _head_then_all(head: float, rate: float, solver: Solver = "gradient") -> Rule[tuple[Phase, ...]]:
    """Train the head for a share of the epochs, or solve for it, then everything: the stages at `rate`."""
    return lambda stages, _: (
        Phase(head, (0,) * stages + (1,), solver),
        Phase(1 - head, (rate,) * stages + (1,)),
    )


def _low_rank(_stages: int, params: Mapping[str, Value]) -> Adapter:
    """Return LoRA with a scale of 2 (alpha twice the rank), as is common."""
    return Adapter("lora", int(params["rank"]), 2.0)


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
        learning_rate=FINE_TUNING_RATE,
        space={
            "unfrozen": Range(1, 3, 1, integer=True, label="stages trained, from the last on"),
            "head_rate": HEAD_RATE,
        },
    ),
    Strategy(
        name="full",
        summary="pretrained; all stages trained at one learning rate",
        start="pretrained",
        phases=_constant(1),
        learning_rate=FINE_TUNING_RATE,
        space={"head_rate": HEAD_RATE},
    ),
    Strategy(
        name="discriminative",
        summary="pretrained; all stages trained, slower towards the input: layer-wise learning-rate decay "
        "(the decay per stage: tuned)",
        start="pretrained",
        phases=_decayed,
        learning_rate=FINE_TUNING_RATE,
        space={
            "decay": Range(0.2, 0.9, 0.5, label="learning rate of a stage, in times that of the next"),
            "head_rate": HEAD_RATE,
        },
    ),
    Strategy(
        name="linear_probe",
        summary="pretrained and frozen; logistic regression on the features, by L-BFGS (L2 strength: tuned)",
        start="pretrained",
        phases=_constant(0, "logistic"),
        learning_rate=None,
        space={"l2_strength": L2_STRENGTH},
    ),
    Strategy(
        name="head_first",
        summary="pretrained; the head for a third of the epochs, then all, the stages at a tenth of its rate",
        start="pretrained",
        phases=_head_then_all(1 / 3, 0.1),
        learning_rate=Range(1e-4, 1e-2, 1e-3, log=True),
        space={},
    ),
    Strategy(
        name="lp_ft",
        summary="pretrained; all stages trained, from the solved linear probe as head (Kumar et al. 2022)",
        start="pretrained",
        phases=_head_then_all(0, 1, "logistic"),
        learning_rate=Range(1e-5, 1e-2, 3e-4, log=True),
        space={"l2_strength": L2_STRENGTH},
    ),
    Strategy(
        name="norm_only",
        summary="pretrained; only normalisation layers and the head are trained (Frankle et al. 2021)",
        start="pretrained",
        phases=_constant(1),
        learning_rate=Range(3e-4, 3e-2, 3e-3, log=True),
        space={},
        parameters="norm",
    ),
    Strategy(
        name="bias_only",
        summary="pretrained; only biases and the head are trained (BitFit; Ben Zaken et al. 2022)",
        start="pretrained",
        phases=_constant(1),
        learning_rate=Range(3e-4, 3e-2, 3e-3, log=True),
        space={},
        parameters="bias",
    ),
    Strategy(
        name="surgical",
        summary="pretrained; one stage and the head are trained (which stage: tuned; Lee et al. 2023)",
        start="pretrained",
        phases=_one_stage,
        learning_rate=FINE_TUNING_RATE,
        space={"depth": Range(0.0, 1.0, 0.5, label=DEPTH), "head_rate": HEAD_RATE},
    ),
    Strategy(
        name="l2_sp",
        summary="pretrained; all stages trained, held near their start (how strongly: tuned; Li et al. 2018)",
        start="pretrained",
        phases=_constant(1),
        learning_rate=FINE_TUNING_RATE,
        space={"head_rate": HEAD_RATE},
        l2_sp=Range(1e-3, 1.0, 1e-1, log=True, label="pull towards the start"),
    ),
    Strategy(
        name="earlier_features",
        summary="pretrained and frozen; logistic regression on an earlier stage's pooled output "
        "(which stage: tuned)",
        start="pretrained",
        phases=_constant(0, "logistic"),
        learning_rate=None,
        space={"depth": Range(0.0, 1.0, 0.75, label=DEPTH), "l2_strength": L2_STRENGTH},
        readout=_earlier_stage,
    ),
    Strategy(
        name="earlier_features_svm",
        summary="pretrained and frozen; a linear SVM on an earlier stage's pooled output (which: tuned)",
        start="pretrained",
        phases=_constant(0, "hinge"),
        learning_rate=None,
        space={"depth": Range(0.0, 1.0, 0.75, label=DEPTH), "l2_strength": L2_STRENGTH},
        readout=_earlier_stage,
    ),
    Strategy(
        name="lora",
        summary="pretrained and frozen; low-rank changes of it and the head are trained (Hu et al. 2022)",
        start="pretrained",
        phases=_constant(1),
        learning_rate=Range(3e-4, 3e-2, 3e-3, log=True),
        space={"rank": Range(2, 16, 8, integer=True, label="rank of the changes")},
        parameters="adapter",
        adapter=_low_rank,
        requires=("peft",),
    ),
)
