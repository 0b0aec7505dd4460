"""How long a study takes on this machine, and what of it fits into the minutes that somebody has.

The estimate rests on one measurement: a training step of all stages (`training.step_timing`), which is kept,
so that the same command finds the same study again. What is fitted is the same for all strategies.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from bench.core.errors import InputError
from bench.experiment.plan import USUAL_STAGES, Plan
from bench.strategies.registry import STRATEGIES
from bench.study.allowance import DEFAULT_STEPS
from bench.study.schema import Study, with_changes

PRUNED = 0.5  # about this share of the steps of trials is left out, where they are pruned
FORWARD = 1 / 3  # of a training step's time
STARTING = 40.0  # seconds: opening data, weights and the store, and drawing the report
FEW = 8  # images of a step that is measured on a CPU, where time is in proportion to them
ENOUGH = 3  # trials and more, with all steps and five seeds: from there on larger images are worth more


@dataclass(frozen=True)
class Rung:
    """How much is done for each strategy.

    Args:
        steps: times those of the study, or its epochs.
        trials: of a seed.
        seeds: how many.
    """

    steps: float
    trials: int
    seeds: int


RUNGS = (
    Rung(2, 12, 10), Rung(1.5, 8, 7), Rung(1, 5, 5), Rung(1, 4, 5), Rung(1, 3, 5),
    Rung(0.75, 3, 4), Rung(0.75, 3, 3), Rung(0.5, 2, 3), Rung(0.33, 2, 3), Rung(0.33, 1, 3),
)  # fmt: skip
FITTED = {"training.steps": "steps", "training.epochs": "steps", "tuning.trials": "trials", "seeds": "seeds"}


@dataclass(frozen=True)
class TimeLimit:
    """How long a study may take, and where.

    Args:
        minutes: in all.
        device: as asked for; what a step takes there is measured, once.
    """

    minutes: float
    device: str = "auto"


@dataclass(frozen=True)
class Images:
    """How many images a study has, at most."""

    train: int
    val: int
    test: int


def measured_step_seconds(study: Study, device: str) -> float:
    """Return what a training step of all stages of a study takes on a device; measured once, then kept."""
    from bench.models.factory import build
    from bench.training.devices import choose_device, configure
    from bench.training.execution import Execution
    from bench.training.step_timing import measured_step

    chosen, training = choose_device(device), study.training
    configure(chosen, None, deterministic=False, full_precision=training.precision == "fp32")
    side = study.target.image_size
    model = build(study.source, study.head, 2, side, "he", 0)
    execution = Execution(chosen, "bf16" if training.precision == "bf16" else "fp32")
    size = training.batch_size if chosen.startswith("cuda") else min(FEW, training.batch_size)
    return measured_step(model, execution, side, size)[1] * training.batch_size / size


def fit_to_minutes(
    study: Study,
    limit: TimeLimit,
    given: Collection[str],
    sides: Sequence[int],
    images: Images,
    step_seconds: Callable[[Study, str], float] = measured_step_seconds,
) -> tuple[Study, str]:
    """Return a study with as much of everything as takes no longer than some minutes, and that in words.

    Args:
        study: what is asked for.
        limit: what it may take.
        given: keys of the settings that somebody has chosen, which stay as they are.
        sides: of the images, in pixels, that may be chosen from, the largest first.
        images: that it has.
        step_seconds: returns what a training step of all stages takes on a device.

    Raises:
        InputError: if not even the least of everything takes so little.
    """
    least, minutes, seconds = study, limit.minutes, 0.0
    for side in sides:
        sized = with_changes(study, target=with_changes(study.target, image_size=side))
        seconds = step_seconds(sized, limit.device)
        for rung in RUNGS:
            if side != sides[-1] and (rung.trials < ENOUGH or rung.steps < 1):
                break  # less than that is worse than smaller images
            least = _at(sized, rung, given)
            took = estimate(least, images, seconds)
            if took <= 60 * minutes:
                return least, f"about {_minutes(took)} of {minutes:g} minutes: {_in_words(least)}"
    needed = _minutes(estimate(least, images, seconds))
    what = f"{minutes:g} is too few: {_in_words(least)} take about {needed} minutes here"
    raise InputError(what, "--minutes", f"give {needed} or more, or fewer strategies with --strategy")


def expected_minutes(plan: Plan, device: str) -> int:
    """Return about how many minutes a study takes on a device of this machine."""
    parts = plan.splits[1]
    images = Images(len(parts.train), len(parts.val), len(parts.test))
    return _minutes(estimate(plan.study, images, measured_step_seconds(plan.study, device)))


def estimate(study: Study, images: Images, step_seconds: float) -> float:
    """Return about how many seconds a study takes.

    Args:
        study: as it will be run.
        images: that it has.
        step_seconds: what a training step of all stages takes.
    """
    training, target = study.training, study.target
    image = FORWARD * step_seconds / training.batch_size
    steps = training.steps or DEFAULT_STEPS
    evaluations = training.evaluations
    if training.epochs is not None:
        steps = training.epochs * -(-images.train // training.batch_size)
        evaluations = training.epochs
    pruned = PRUNED if study.tuning.pruner != "none" and study.tuning.trials > 1 else 0.0
    runs = study.most_seeds * (1 + (study.tuning.trials - 1) * (1 - pruned))
    total = STARTING
    for name in study.strategies:
        trained = _share_trained(name)
        if trained:
            total += runs * (trained * steps * step_seconds + evaluations * images.val * image)
            total += study.most_seeds * images.test * image
    if any(_share_trained(name) < 1 for name in study.strategies):  # frozen features, computed once
        views = (target.augmentation.views or 1) * images.train
        total += study.most_seeds * (views + images.val + images.test) * image
    return total


def _share_trained(name: str) -> float:
    """Return the share of a model's stages that a strategy trains; the head alone is none."""
    strategy = STRATEGIES[name]
    plan = strategy.plan(USUAL_STAGES, strategy.defaults)
    if plan.trains_only_head or plan.is_solved:
        return 0.0
    return 1.0 if plan.start != "pretrained" else 1 - plan.frozen_prefix / USUAL_STAGES


def _at(study: Study, rung: Rung, given: Collection[str]) -> Study:
    """Return a study at a rung, but for what is given."""
    kept = {FITTED[key] for key in given if key in FITTED} | {"seeds" for key in given if key == "seeds"}
    training, tuning = study.training, study.tuning
    if "steps" not in kept and training.epochs is not None:
        training = with_changes(training, epochs=max(1, round(training.epochs * rung.steps)))
    elif "steps" not in kept:
        training = with_changes(training, steps=round((training.steps or DEFAULT_STEPS) * rung.steps))
    if "trials" not in kept:
        tuning = with_changes(tuning, trials=rung.trials)
    seeds = study.seeds if "seeds" in kept else rung.seeds
    return with_changes(study, training=training, tuning=tuning, seeds=seeds)


def _minutes(seconds: float) -> int:
    return max(1, -(-round(seconds) // 60))


def _in_words(study: Study) -> str:
    training, trials = study.training, study.tuning.trials
    length = f"{training.epochs} epochs" if training.epochs else f"{training.steps or DEFAULT_STEPS} steps"
    tuned = f"{trials} trial{'s' if trials > 1 else ''}"
    names = len(study.strategies)
    of = f"{names} strategies" if names > 1 else study.strategies[0]
    return f"{length}, {tuned} and {study.most_seeds} seeds of {of} at {study.target.image_size} px"
