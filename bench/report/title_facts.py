"""What stands at the top of a report: what was asked of which data, samples of them, and three numbers."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.evidence import Evidence
from bench.analysis.results import Result
from bench.analysis.summary import Summary
from bench.report import tables
from bench.report.figures.study_figures import of_what
from bench.study.metrics import METRICS
from bench.study.tasks import TASKS

CLASSES, EACH = 8, 4  # classes, and images of each, that are shown
MINUTE, HOUR = 60, 3600  # seconds


@dataclass(frozen=True)
class Samples:
    """Test images of a class, as addresses of data; without a name where an image shows several."""

    name: str
    sources: Sequence[str]


@dataclass(frozen=True)
class Number:
    """One of the numbers at the top: what it is, its value, and what it is to be read with."""

    name: str
    value: str
    detail: str


def facts(evidence: Evidence) -> list[tuple[str, str]]:
    """Return on what the study ran, as far as it is known: names and words."""
    study, known = evidence.study, evidence.provenance
    sizes = known.get("images", {})
    parts = [(part, sizes.get(f"{part} images")) for part in ("train", "val", "test")]
    counts = [f"{count:,} {part}" for part, count in parts if count is not None]
    trials = f"{study.tuning.trials} trial{'s' * (study.tuning.trials > 1)}"
    seeds = max(evidence.wanted_seeds(name) for name in evidence.strategies)
    said = {
        "transfer": of_what(study),
        "images": ", ".join(counts),
        "classes": f"{known['classes']:,}" if "classes" in known else "",
        "budget": f"{evidence.budget}: {trials} for each of {seeds} seed{'s' * (seeds > 1)}",
        "device": ", ".join(known.get("computed on", ())),
        "date": evidence.date,
        "computing time": duration(spent) if (spent := known.get("seconds of all runs together")) else "",
    }
    return [(name, value) for name, value in said.items() if value]


def duration(seconds: float) -> str:
    """Return a duration in words: `41 s`, `20 min`, `3 h 05 min`."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / MINUTE)
    return f"{minutes} min" if seconds < HOUR else f"{minutes // 60} h {minutes % 60:02d} min"


def samples(evidence: Evidence) -> list[Samples]:
    """Return test images, class by class where an image has one class, as far as they are at hand."""
    if not TASKS[evidence.study.task].one_class or evidence.predictions.empty:
        shown = list(evidence.images.values())[: CLASSES * EACH // 2]
        return [Samples("", [_address(picture) for picture in shown])] if shown else []
    known = evidence.predictions[evidence.predictions["image"].isin(set(evidence.images))]
    by_class = known.drop_duplicates("image").groupby("target")["image"]
    return [
        Samples(str(name), [_address(evidence.images[str(image)]) for image in names.head(EACH)])
        for name, names in list(by_class)[:CLASSES]
    ]


def _address(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def headline(summary: Summary) -> str:
    """Return the answer in a line."""
    if summary.recommendation:
        return f"Use {summary.recommendation.strategy}"
    return "Smoke test" if summary.smoke else summary.question


def numbers(summary: Summary) -> list[Number]:
    """Return score, trained parameters and seconds of what is recommended, or of the best."""
    name = summary.recommendation.strategy if summary.recommendation else summary.best
    if name is None:
        return []
    result, found = summary.result(name), []
    if result.test:
        interval = f"{name}, 95 % interval {result.test.low:.3f} to {result.test.high:.3f}"
        label = f"Test {METRICS[summary.metric].label}"
        found.append(Number(label, f"{result.test.value:.3f}", interval))
    if result.trainable_parameters:
        trained = f"{result.trainable_parameters:,}"
        found.append(Number("Trained parameters", trained, _of_most(result, summary)))
    if result.seconds:
        detail = f"with tuning; {tables.seconds(result.uncached_seconds)} s a run"
        found.append(Number("Seconds", tables.seconds(result.seconds), detail))
    return found


def _of_most(result: Result, summary: Summary) -> str:
    """Return which share of the most that any strategy trains it trains."""
    most = max(summary.results, key=lambda other: other.trainable_parameters or 0)
    if not most.trainable_parameters or most.trainable_parameters == result.trainable_parameters:
        return "as many as any strategy trains"
    share = (result.trainable_parameters or 0) / most.trainable_parameters
    return f"{share:.2%} of what {most.strategy} trains"
