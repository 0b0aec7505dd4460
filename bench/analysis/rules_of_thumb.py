"""The rules of thumb that studies put to the test, and the ruling on one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.analysis.comparisons import Comparison, signed
from bench.study.schema import Scenario

Outcome = Literal["confirmed", "refuted", "not decided", "not tested"]
Place = Literal["best", "tied", "behind", "ahead", "not compared", "no result"]

SOURCE = "CS231n: Deep Learning for Computer Vision, notes on transfer learning, 'When and how to fine-tune?'"
SOURCE_URL = "https://cs231n.github.io/transfer-learning/"


@dataclass(frozen=True)
class Advice:
    """What the notes advise in a scenario.

    Args:
        text: the advice, in our words, after "The rule of thumb is to".
        advised: the strategies that follow it.
        note: why these, where the advice names none of ours exactly.
    """

    text: str
    advised: tuple[str, ...]
    note: str = ""


FINE_TUNES = ("full", "discriminative")
BOTH_FINE_TUNE = "Both train every stage from pretrained weights; they differ in learning rates only."
ADVICE: dict[tuple[str, str], Advice] = {
    ("small", "similar"): Advice("train only a linear classifier on frozen features", ("feature_extractor",)),
    ("small", "different"): Advice(
        "train only a linear classifier, and on features from earlier in the network",
        ("feature_extractor", "partial"),
        "No strategy here is exactly that: feature_extractor trains only a classifier, but on the last "
        "features; partial keeps the early stages and learns the late, source-specific ones anew.",
    ),
    ("large", "similar"): Advice("fine-tune through the full network", FINE_TUNES, BOTH_FINE_TUNE),
    ("large", "different"): Advice(
        "fine-tune through the full network",
        FINE_TUNES,
        f"{BOTH_FINE_TUNE} The notes call training from scratch affordable here, yet expect pretrained "
        "weights to help.",
    ),
}


@dataclass(frozen=True)
class Deciding:
    """The comparison that the ruling hangs on: of those that had to come out, the closest call.

    Args:
        strategy, best: what is compared; the difference is strategy minus best.
        margin: by how much the strategy has to be behind to be told apart, given the others.
        sentence: what was measured, and what would decide.
    """

    strategy: str
    best: str
    difference: float
    low: float
    high: float
    p_holm: float
    margin: float | None
    sentence: str


@dataclass(frozen=True)
class Ruling:
    """What a study says on its rule of thumb.

    Args:
        advice: what the notes advise; `advised`: the strategies here that follow it; `note`: why these.
        outcome: confirmed: an advised strategy is best and every other one is behind it; refuted: every
            advised one is behind the best; not decided: an advised one can't be told apart from the best, or
            from what is not advised; not tested: no advised strategy has a result.
        measured: what was found, in plain words, with numbers.
        sentence: advice and finding together.
        deciding: the margin that decides; None where nothing was compared.
    """

    size: str
    similarity: str
    advice: str
    advised: tuple[str, ...]
    note: str
    outcome: Outcome
    measured: str
    sentence: str
    deciding: Deciding | None
    source: str = SOURCE
    source_url: str = SOURCE_URL


def judge(
    scenario: Scenario, places: Mapping[str, Place], compared: Mapping[str, Comparison], sign: int = 1
) -> Ruling:
    """Rule on the advice for a scenario.

    Args:
        scenario: the study's.
        places: each strategy's place against the best.
        compared: each strategy that was compared, against the best.
        sign: of a difference that says better: -1 where lower values are.
    """
    advice = ADVICE[scenario.size, scenario.similarity]
    tested = [
        name for name in advice.advised if places.get(name, "no result") not in {"no result", "not compared"}
    ]
    others = [name for name in places if name not in advice.advised]
    outcome, finding, hinges = _rule(tested, others, places, compared)
    sentence = (
        f"For {scenario.size} data {_LIKENESS[scenario.similarity]} the rule of thumb is to {advice.text} "
        f"({' or '.join(advice.advised)}). {finding}"
    )
    return Ruling(
        size=scenario.size,
        similarity=scenario.similarity,
        advice=advice.text,
        advised=advice.advised,
        note=advice.note,
        outcome=outcome,
        measured=finding,
        sentence=sentence,
        deciding=_deciding([compared[name] for name in hinges], sign),
    )


_LIKENESS = {"similar": "similar to the source", "different": "different from the source"}


def _rule(
    tested: Sequence[str],
    others: Sequence[str],
    places: Mapping[str, Place],
    compared: Mapping[str, Comparison],
) -> tuple[Outcome, str, Sequence[str]]:
    """Return the outcome, the finding in words, and the strategies that had to be behind the best."""
    best = next((name for name, place in places.items() if place == "best"), "")
    level = [name for name in tested if places[name] != "behind"]
    rivals = [name for name in others if places[name] in {"tied", "ahead"}]
    beaten = [name for name in others if places[name] == "behind"]
    if not tested:
        return "not tested", "No strategy that follows it has a result here.", []
    if not level:
        return "refuted", f"It did not hold: {_listed(tested, compared)}.", tested
    if best not in tested:
        return "not decided", f"It was neither best nor beaten: {_listed(tested, compared)}.", tested
    if rivals:
        finding = f"{best} follows it and is best, but not beyond doubt: {_listed(rivals, compared)}."
        return "not decided", finding, rivals
    if not beaten:
        return "not decided", f"{best} follows it, and there is nothing else to compare it with.", []
    return "confirmed", f"It held, {best} is best: {_listed(beaten, compared)}.", beaten


def _listed(names: Sequence[str], compared: Mapping[str, Comparison]) -> str:
    return "; ".join(f"{name} {compared[name].words}" for name in names)


def _deciding(compared: Sequence[Comparison], sign: int) -> Deciding | None:
    """Return of those that have to be behind the best the one that is least so, for its margin."""

    def lacking(comparison: Comparison) -> float:
        return sign * comparison.difference.value + (
            1.0 if comparison.critical_difference is None else comparison.critical_difference
        )

    if not compared:
        return None
    closest = max(compared, key=lacking)
    difference, margin = closest.difference, closest.critical_difference
    if margin is None:
        sentence = f"No difference between {closest.strategy} and {closest.other} could have decided it."
    else:
        sentence = (
            f"It hangs on {closest.strategy}, which is told apart from {closest.other} if it is behind by "
            f"{margin:.3f} or more; measured: {signed(difference.value)}."
        )
    return Deciding(
        strategy=closest.strategy,
        best=closest.other,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p_holm=closest.p_holm,
        margin=margin,
        sentence=sentence,
    )
