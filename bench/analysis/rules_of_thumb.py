"""The rules of thumb that studies put to the test, and the ruling on one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.analysis.comparisons import Comparison, p_words, signed
from bench.core.text import listed
from bench.study.schema import Scenario

Outcome = Literal["confirmed", "holds", "open", "contradicted"]

SOURCE = "CS231n: Deep Learning for Computer Vision, notes on transfer learning, 'When and how to fine-tune?'"
SOURCE_URL = "https://cs231n.github.io/transfer-learning/"


@dataclass(frozen=True)
class Advice:
    """What the notes advise in a scenario.

    Args:
        text: the advice, in our words, after "The rule of thumb is to".
        advised: the strategies that follow it.
        instead: what it advises against; without one of these the rule is not put to the test.
        note: why these, where the advice names none of ours exactly.
        beats_all: whether it is confirmed by being better than every rival; else by being better than one of
            `instead`, and not worse than any.
    """

    text: str
    advised: tuple[str, ...]
    instead: tuple[str, ...]
    note: str
    beats_all: bool


FINE_TUNES = ("full", "discriminative", "head_first", "lp_ft", "l2_sp")
TRAINS_STAGES = ("partial", *FINE_TUNES)
FROZEN = ("feature_extractor", "linear_probe")
EARLIER = ("earlier_features", "earlier_features_svm")
ALL_FINE_TUNE = "All of them train every stage from pretrained weights; they differ in how."
ADVICE: dict[tuple[str, str], Advice] = {
    ("small", "similar"): Advice(
        "train only a linear classifier on frozen features",
        FROZEN,
        TRAINS_STAGES,
        "feature_extractor trains the classifier, linear_probe solves for it.",
        beats_all=True,
    ),
    ("small", "different"): Advice(
        "train only a linear classifier, and on features from earlier in the network",
        (*EARLIER, *FROZEN),
        TRAINS_STAGES,
        "Only earlier_features and earlier_features_svm are exactly that; feature_extractor and linear_probe "
        "train only a classifier, but on the last features. What trains any stage does not follow it.",
        beats_all=True,
    ),
    ("large", "similar"): Advice(
        "fine-tune through the full network", FINE_TUNES, FROZEN, ALL_FINE_TUNE, beats_all=False
    ),
    ("large", "different"): Advice(
        "fine-tune through the full network",
        FINE_TUNES,
        (*FROZEN, "scratch"),
        f"{ALL_FINE_TUNE} The notes call training from scratch affordable here, yet expect pretrained "
        "weights to help.",
        beats_all=False,
    ),
}


@dataclass(frozen=True)
class Deciding:
    """The comparison that the ruling hangs on: of those that had to come out, the closest call.

    Args:
        strategy, other: what is compared, strategy minus other: what follows the rule, and a rival.
        p: that the strategy is worse than the other by the margin or more.
        margin: the smallest difference that matters.
        sentence: what was measured.
    """

    strategy: str
    other: str
    difference: float
    low: float
    high: float
    p: float
    margin: float
    sentence: str


@dataclass(frozen=True)
class Ruling:
    """What a study says on its rule of thumb.

    Args:
        advice: what the notes advise; `advised`: the strategies of the study that follow it; `note`: why.
        outcome: confirmed: what follows it is better than its rivals (for large data: not worse than any by
            the margin or more, and better than what the rule advises against); holds: it is not worse than
            any rival by the margin or more; contradicted: whatever follows it is shown to be worse than a
            rival, and by the margin or more; else open.
        measured: what was found, in plain words, with numbers.
        sentence: advice and finding together.
        deciding: the closest call; None where nothing was compared.
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


@dataclass(frozen=True)
class Standing:
    """What a ruling is made from.

    Args:
        strategies: of the study, in canonical order.
        order: those with a result, the best by validation first.
        pairs: every comparison, by its two strategies, from either side.
    """

    strategies: Sequence[str]
    order: Sequence[str]
    pairs: Mapping[tuple[str, str], Comparison]

    def compared(self, strategy: str, rivals: Sequence[str]) -> list[Comparison]:
        """Return a strategy's comparisons with some rivals, as far as there are any."""
        return [self.pairs[strategy, rival] for rival in rivals if (strategy, rival) in self.pairs]


def judge(scenario: Scenario, standing: Standing) -> Ruling | None:
    """Rule on the advice for a scenario; None where it is not known how similar the data are to the source's.

    It is put to the test by one of the strategies that follow it: the best of them by validation.
    """
    if scenario.similarity is None:
        return None
    advice = ADVICE[scenario.size, scenario.similarity]
    advised = tuple(name for name in advice.advised if name in standing.strategies)
    outcome, finding, hinges = _rule(advice, advised, standing)
    named = " or ".join(advised or advice.advised)
    sentence = (
        f"For {scenario.size} data {_LIKENESS[scenario.similarity]} the rule of thumb is to {advice.text} "
        f"({named}). {finding}"
    )
    return Ruling(
        size=scenario.size,
        similarity=scenario.similarity,
        advice=advice.text,
        advised=advised,
        note=advice.note,
        outcome=outcome,
        measured=finding,
        sentence=sentence,
        deciding=_deciding(hinges),
    )


_LIKENESS = {"similar": "similar to the source", "different": "different from the source"}
Found = tuple[Outcome, str, Sequence[Comparison]]


def _rule(advice: Advice, advised: Sequence[str], standing: Standing) -> Found:
    """Return the outcome, the finding in words, and the comparisons that had to come out."""
    rivals = [name for name in standing.strategies if name not in advised]
    champion = next((name for name in standing.order if name in advised), None)
    if champion is None:
        return "open", "Nothing that follows it has a result here.", []
    compared = standing.compared(champion, rivals)
    if beaten := _contradicted(advised, rivals, standing):
        return "contradicted", f"{_listed(beaten)}.", compared
    missing = [name for name in rivals if (champion, name) not in standing.pairs]
    if missing:
        return "open", f"{champion} can't be compared with {listed(missing)}.", compared
    against = standing.compared(champion, advice.instead)
    if not against:
        return "open", "Nothing that it advises against has a result here.", compared
    return _measured(advice, champion, compared, against)


def _contradicted(
    advised: Sequence[str], rivals: Sequence[str], standing: Standing
) -> list[Comparison] | None:
    """Return by what each strategy that follows the advice is beaten; None unless each one is."""
    beaten = []
    for name in advised:
        lost = [c for c in standing.compared(name, rivals) if c.relation == "worse" and _matters(c)]
        if not lost:
            return None
        beaten.append(max(lost, key=lambda comparison: abs(comparison.difference.value)))
    return beaten


def _matters(comparison: Comparison) -> bool:
    return abs(comparison.difference.value) >= comparison.margin


def _measured(
    advice: Advice, champion: str, compared: Sequence[Comparison], against: Sequence[Comparison]
) -> Found:
    """Return the outcome where every rival was compared with the one strategy that stands for the advice."""
    margin = f"{compared[0].margin:g}"
    ahead = [c for c in compared if c.relation == "better"]
    short = [c for c in compared if not c.not_worse and c not in ahead]
    if advice.beats_all and len(ahead) == len(compared):
        return "confirmed", f"{_listed(compared)}.", compared
    if short:
        rest = listed([f"{c.other} ({_difference(c)})" for c in short])
        return "open", f"{champion} may be worse by {margin} or more than {rest}.", short
    held = f"{champion} is not worse than {listed([c.other for c in compared], 'or')} by {margin} or more"
    if not advice.beats_all and (won := [c.words for c in against if c in ahead]):
        return "confirmed", f"{held}, and {listed(won)}.", compared
    return "holds", f"{held}.", compared


def _difference(comparison: Comparison) -> str:
    d = comparison.difference
    return f"difference {signed(d.value)} [{signed(d.low)}, {signed(d.high)}]"


def _listed(compared: Sequence[Comparison]) -> str:
    return "; ".join(f"{c.strategy} {c.words}" for c in compared)


def _deciding(compared: Sequence[Comparison]) -> Deciding | None:
    """Return the comparison in which the advice is least surely not worse."""
    tested = [(p, c) for c in compared if (p := c.p_worse) is not None]
    if not tested:
        return None
    p, closest = max(tested, key=lambda pair: pair[0])
    difference = closest.difference
    sentence = (
        f"The closest call: the test of {closest.strategy} being worse than {closest.other} by "
        f"{closest.margin:g} or more has {p_words(p)} ({_difference(closest)})."
    )
    return Deciding(
        strategy=closest.strategy,
        other=closest.other,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p=p,
        margin=closest.margin,
        sentence=sentence,
    )
