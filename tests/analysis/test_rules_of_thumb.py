"""What studies say on rules of thumb: from the relations of strategies to a ruling and its sentence."""

from itertools import combinations

import pytest

from bench.analysis.rules_of_thumb import ADVICE, Standing, judge
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Scenario
from tests.support.synthetic import LEVEL, comparison

SMALL = Scenario(size="small", similarity="similar")
DIFFERENT = Scenario(size="small", similarity="different")
LARGE = Scenario(size="large", similarity="similar")
LARGE_DIFFERENT = Scenario(size="large", similarity="different")
SIZE = {"better": 0.1, "worse": -0.1}
FIVE = list(LEVEL)


def standing(order, strategies=None, default="undecided", sizes=None, **relations):
    """Return what a ruling is made from; `a__b="worse"`: a is worse than b."""
    pairs = {}
    for one, other in combinations(order, 2):
        value = (sizes or {}).get((one, other))
        relation = relations.get(f"{one}__{other}", default)
        if (turned := relations.get(f"{other}__{one}")) is not None:
            relation = {"better": "worse", "worse": "better"}.get(turned, turned)
        found = comparison(one, other, relation, SIZE.get(relation, 0.0) if value is None else value)
        pairs |= {(one, other): found, (other, one): found.reversed()}
    return Standing(strategies or list(order), list(order), pairs)


def best(name, relation, others=FIVE):
    return {f"{name}__{other}": relation for other in others if other != name}


class TestSmall:
    def test_confirmed_is_better_than_every_rival(self):
        ruling = judge(SMALL, standing(FIVE, **best("feature_extractor", "better")))
        assert ruling.outcome == "confirmed"
        assert "feature_extractor is better than full by 0.100" in ruling.sentence

    def test_holds_is_worse_than_no_rival_by_the_margin(self):
        made = best("feature_extractor", "equivalent") | {"feature_extractor__scratch": "better"}
        ruling = judge(SMALL, standing(FIVE, **made))
        assert ruling.outcome == "holds"
        assert ruling.measured == (
            "feature_extractor is not worse than scratch, partial, full or discriminative by 0.02 or more."
        )

    def test_open_is_neither(self):
        ruling = judge(SMALL, standing(FIVE, feature_extractor__scratch="better"))
        assert ruling.outcome == "open"
        assert "may be worse by 0.02 or more than partial (difference 0.000" in ruling.measured
        assert "scratch" not in ruling.measured

    def test_contradicted_is_beaten_and_by_the_margin(self):
        ruling = judge(SMALL, standing(FIVE, feature_extractor__full="worse"))
        assert ruling.outcome == "contradicted"
        assert ruling.measured == "feature_extractor is worse than full by 0.100 [0.050, 0.150], p = 0.020."

    def test_a_difference_below_the_margin_never_contradicts(self):
        sizes = {("feature_extractor", "full"): -0.003}
        made = standing(FIVE, sizes=sizes, feature_extractor__full="worse")
        assert judge(SMALL, made).outcome == "open"

    @pytest.mark.parametrize("relation", ["better", "equivalent"])
    def test_to_beat_scratch_alone_while_rivals_failed_says_nothing(self, relation):
        order = ["feature_extractor", "scratch"]
        ruling = judge(SMALL, standing(order, FIVE, **best("feature_extractor", relation, order)))
        assert ruling.outcome == "open"
        assert ruling.measured == (
            "feature_extractor can't be compared with partial, full and discriminative."
        )

    def test_without_what_it_advises_against_it_is_not_put_to_the_test(self):
        order = ["feature_extractor", "scratch"]
        ruling = judge(SMALL, standing(order, **best("feature_extractor", "better", order)))
        assert ruling.outcome == "open"
        assert ruling.measured == "Nothing that it advises against has a result here."

    def test_without_a_result_it_is_open(self):
        ruling = judge(SMALL, standing(["full", "partial"], FIVE))
        assert (ruling.outcome, ruling.deciding) == ("open", None)
        assert ruling.measured == "Nothing that follows it has a result here."

    def test_a_solved_classifier_follows_the_rule_and_is_no_rival(self):
        order = ["linear_probe", "feature_extractor", "full"]
        made = {"linear_probe__full": "better", "linear_probe__feature_extractor": "better"}
        ruling = judge(SMALL, standing(order, **made))
        assert (ruling.outcome, ruling.advised) == ("confirmed", ("feature_extractor", "linear_probe"))

    def test_one_that_follows_it_and_is_not_beaten_saves_it(self):
        order = ["full", "linear_probe", "feature_extractor"]
        assert judge(SMALL, standing(order, feature_extractor__full="worse")).outcome == "open"
        both = {"feature_extractor__full": "worse", "linear_probe__full": "worse"}
        assert judge(SMALL, standing(order, **both)).outcome == "contradicted"
        failed = standing(["full", "feature_extractor"], order, feature_extractor__full="worse")
        assert judge(SMALL, failed).outcome == "open"

    def test_partial_is_a_rival_where_only_a_classifier_is_advised(self):
        for scenario in (SMALL, DIFFERENT):
            made = standing(FIVE, feature_extractor__partial="worse")
            assert judge(scenario, made).outcome == "contradicted"

    def test_earlier_features_follow_the_rule_for_different_data(self):
        order = ["earlier_features", "earlier_features_svm", "feature_extractor", "full"]
        ruling = judge(DIFFERENT, standing(order, earlier_features__full="better"))
        assert (ruling.outcome, ruling.advised) == ("confirmed", tuple(order[:3]))
        assert judge(SMALL, standing(order)).advised == ("feature_extractor",)


class TestLarge:
    def test_confirmed_is_not_worse_than_any_and_better_than_the_frozen(self):
        made = best("full", "equivalent", ["partial"]) | best(
            "full", "better", ["scratch", "feature_extractor"]
        )
        ruling = judge(
            LARGE, standing(["full", "discriminative", "partial", "feature_extractor", "scratch"], **made)
        )
        assert ruling.outcome == "confirmed"
        assert ruling.measured == (
            "full is not worse than partial, feature_extractor or scratch by 0.02 or more, and is better "
            "than feature_extractor by 0.100 [0.050, 0.150], p = 0.020."
        )

    def test_to_be_better_than_scratch_alone_confirms_for_different_data_only(self):
        made = best("full", "equivalent", ["partial", "feature_extractor"]) | {"full__scratch": "better"}
        order = ["full", "discriminative", "partial", "feature_extractor", "scratch"]
        assert judge(LARGE, standing(order, **made)).outcome == "holds"
        assert judge(LARGE_DIFFERENT, standing(order, **made)).outcome == "confirmed"

    def test_a_rival_that_may_be_better_leaves_it_open(self):
        made = {"full__feature_extractor": "better", "full__scratch": "better"}
        order = ["full", "discriminative", "partial", "feature_extractor", "scratch"]
        ruling = judge(LARGE, standing(order, **made))
        assert (ruling.outcome, ruling.deciding.other) == ("open", "partial")

    def test_both_fine_tunes_have_to_be_beaten(self):
        order = ["partial", "full", "discriminative", "feature_extractor"]
        assert judge(LARGE, standing(order, full__partial="worse")).outcome == "open"
        made = {"full__partial": "worse", "discriminative__partial": "worse"}
        assert judge(LARGE, standing(order, **made)).outcome == "contradicted"


def test_the_closest_call_is_the_least_sure():
    made = standing(FIVE, **best("feature_extractor", "equivalent"))
    pairs = dict(made.pairs)
    pairs["feature_extractor", "full"] = comparison(
        "feature_extractor", "full", "undecided", -0.012, p_worse=0.21
    )
    deciding = judge(SMALL, Standing(FIVE, made.order, pairs)).deciding
    assert (deciding.strategy, deciding.other, deciding.p) == ("feature_extractor", "full", 0.21)
    assert deciding.sentence == (
        "The closest call: the test of feature_extractor being worse than full by 0.02 or more has p = 0.210 "
        "(difference \N{MINUS SIGN}0.012 [\N{MINUS SIGN}0.062, +0.038])."
    )


def test_every_scenario_has_advice_on_strategies_that_exist():
    assert set(ADVICE) == {(s, t) for s in ("small", "large") for t in ("similar", "different")}
    for advice in ADVICE.values():
        assert {*advice.advised, *advice.instead} <= set(STRATEGIES)
        assert not set(advice.advised) & set(advice.instead)
