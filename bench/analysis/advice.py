"""The rules of thumb that studies put to the test, and the ruling on one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.study import Scenario

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
class Ruling:
    """What a study says on its rule of thumb.

    Args:
        outcome: confirmed: an advised strategy is best and every other one is behind it; refuted: every
            advised one is behind the best; not decided: an advised one can't be told apart from the best, or
            from what is not advised; not tested: no advised strategy has a result.
        sentence: the outcome in plain words, with numbers.
    """

    size: str
    similarity: str
    advice: str
    advised: tuple[str, ...]
    note: str
    outcome: Outcome
    sentence: str
    source: str = SOURCE
    source_url: str = SOURCE_URL


def judge(scenario: Scenario, places: Mapping[str, Place], numbers: Mapping[str, str]) -> Ruling:
    """Rule on the advice for a scenario.

    Args:
        scenario: the study's.
        places: each strategy's place against the best.
        numbers: for each compared strategy, its difference to the best in words.
    """
    advice = ADVICE[scenario.size, scenario.similarity]
    tested = [
        name for name in advice.advised if places.get(name, "no result") not in {"no result", "not compared"}
    ]
    others = [name for name in places if name not in advice.advised]
    outcome, finding = _rule(tested, others, places, numbers)
    sentence = (
        f"For {scenario.size} data {_LIKENESS[scenario.similarity]} the rule of thumb is to {advice.text} "
        f"({' or '.join(advice.advised)}). {finding}"
    )
    return Ruling(
        scenario.size, scenario.similarity, advice.text, advice.advised, advice.note, outcome, sentence
    )


_LIKENESS = {"similar": "similar to the source", "different": "different from the source"}


def _rule(
    tested: Sequence[str], others: Sequence[str], places: Mapping[str, Place], numbers: Mapping[str, str]
) -> tuple[Outcome, str]:
    best = next((name for name, place in places.items() if place == "best"), "")
    level = [name for name in tested if places[name] != "behind"]
    rivals = [name for name in others if places[name] in {"tied", "ahead"}]
    beaten = [name for name in others if places[name] == "behind"]
    if not tested:
        return "not tested", "No strategy that follows it has a result here."
    if not level:
        return "refuted", f"It did not hold: {_listed(tested, numbers)}."
    if best not in tested:
        return "not decided", f"It was neither best nor beaten: {_listed(tested, numbers)}."
    if rivals:
        return (
            "not decided",
            f"{best} follows it and is best, but not beyond doubt: {_listed(rivals, numbers)}.",
        )
    if not beaten:
        return "not decided", f"{best} follows it, and there is nothing else to compare it with."
    return "confirmed", f"It held, {best} is best: {_listed(beaten, numbers)}."


def _listed(names: Sequence[str], numbers: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {numbers[name]}" for name in names)
