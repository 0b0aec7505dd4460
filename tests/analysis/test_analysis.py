"""Evidence, summaries, ranks over data sets and mistakes: answers by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.analysis.errors_by_class import confused, confusion
from bench.analysis.evidence import Evidence, canonical
from bench.analysis.predictions.base import read
from bench.analysis.ranking import critical_difference, rank
from bench.analysis.summary import Summary, summarise
from tests.support.synthetic import LEVEL, make_evidence, make_study


class TestEvidence:
    def test_rows_are_sorted_and_absent_columns_added(self):
        made = make_evidence()
        shuffled = replace(
            made, runs=made.runs.sample(frac=1, random_state=0).drop(columns="peak_memory_bytes")
        )
        pd.testing.assert_frame_equal(shuffled.runs, made.runs, check_dtype=False)

    def test_order_is_ours_first_then_by_name(self):
        assert canonical(["zeta", "full", "alpha", "scratch", "full"]) == ["scratch", "full", "alpha", "zeta"]

    def test_answers_keep_the_images_that_every_run_has(self):
        made = make_evidence(images=20)
        short = made.predictions[
            ~((made.predictions["seed"] == 1) & (made.predictions["image"] == "0003.png"))
        ]
        found = read(replace(made, predictions=short))
        assert found.correct.shape == (15, 19)
        assert found.dropped == 1

    def test_an_image_named_twice_is_refused(self):
        made = make_evidence(images=5)
        with pytest.raises(ValueError, match="duplicate"):
            read(replace(made, predictions=pd.concat([made.predictions, made.predictions.iloc[:1]])))


class TestSummary:
    def test_means_agree_with_the_runs_own_metrics(self):
        for metric in ("accuracy", "balanced_accuracy"):
            summary = summarise(make_evidence(make_study(metric=metric)))
            for result in summary.results:
                assert result.test.value == pytest.approx(result.test_mean)

    def test_is_json_and_repeatable(self):
        first, second = (summarise(make_evidence()) for _ in range(2))
        assert json.dumps(first.as_json(), allow_nan=False) == json.dumps(second.as_json(), allow_nan=False)

    def test_comes_back_from_json(self):
        summary = summarise(make_evidence())
        assert Summary.from_json({"version": 1, **json.loads(json.dumps(summary.as_json()))}) == summary

    def test_best_is_chosen_by_validation_not_by_test(self):
        made = make_evidence()
        runs = made.runs.copy()
        runs.loc[runs["strategy"] == "scratch", "val_accuracy"] = 0.99
        summary = summarise(replace(made, runs=runs))
        assert summary.best == "scratch"
        assert summary.result("full").place == "better"
        assert (
            "On test it is worse than feature_extractor, partial, full and discriminative." in summary.verdict
        )
        assert summary.recommendation.strategy != "scratch"

    def test_what_is_far_behind_and_what_is_not(self):
        level = LEVEL | {"feature_extractor": -1.0, "partial": 1.5}
        summary = summarise(make_evidence(make_study(seeds=5), images=300, level=level))
        assert summary.best in {"partial", "full", "discriminative"}
        assert set(summary.not_worse) == {"partial", "full", "discriminative"}
        assert summary.result("scratch").place == summary.result("feature_extractor").place == "worse"
        assert summary.recommendation.strategy == "partial"  # of as many parameters the quickest
        assert summary.ruling.outcome == "contradicted"
        assert f"feature_extractor is worse than {summary.best} by 0." in summary.ruling.sentence

    def test_what_is_shown_to_be_small_enough_is_equivalent(self):
        study = make_study(seeds=5, smallest_effect=0.2)
        summary = summarise(make_evidence(study, images=300))
        others = {"feature_extractor", "partial", "full", "discriminative"} - {summary.best}
        assert {summary.result(name).place for name in others} == {"equivalent"}
        assert summary.verdict.endswith(" within 0.2.")
        assert (summary.ruling.outcome, summary.margin) == ("holds", 0.2)
        assert summary.recommendation.strategy == "feature_extractor"

    def grouped(self, groups, **changes):
        made = make_evidence(**changes)
        number = made.predictions["image"].str.removesuffix(".png").astype(int) % groups
        return replace(made, predictions=made.predictions.assign(group=number.astype(str)))

    def test_groups_of_images_are_counted_and_widen_intervals(self):
        summary, free = summarise(self.grouped(30)), summarise(make_evidence())
        assert (summary.images, summary.image_groups, free.image_groups) == (120, 30, 120)
        assert "(3 seeds, 120 test images in 30 groups)" in summary.verdict
        assert summary.result("full").test.value == free.result("full").test.value
        assert summary.result("full").test != free.result("full").test

    def test_images_without_a_group_stand_for_themselves(self):
        made = self.grouped(30)
        some = made.predictions["group"].where(made.predictions["image"] < "0060.png")
        summary = summarise(replace(made, predictions=made.predictions.assign(group=some)))
        assert summary.image_groups == 30 + 60

    def test_few_groups_are_an_estimate_and_no_verdict(self):
        summary = summarise(self.grouped(4, level=LEVEL | {"scratch": -3.0}))
        assert summary.verdict.endswith(
            "120 test images in 4 groups). "
            "Fewer than 10 groups of test images allow an estimate, but no verdict."
        )
        assert {c.relation for c in summary.pairs} == {"undecided"}
        assert (summary.recommendation, summary.groups_in_words, summary.ruling.outcome) == (None, "", "open")
        few = summarise(make_evidence(images=9))
        assert few.verdict.endswith("Fewer than 10 test images allow an estimate, but no verdict.")

    @pytest.mark.parametrize(
        ("overlap", "said"),
        [
            (0.0, []),
            (0.4, ["Two seeds have 40 % of their training images in common, so they differ less"]),
            (
                0.67,
                ["Two seeds have 67 % of their training images in common: what is said holds for training"],
            ),
            (1.0, ["All seeds train on the same images: what is said holds for these"]),
        ],
    )
    def test_training_images_in_common_are_said_and_answered_for(self, overlap, said):
        free = summarise(make_evidence())
        summary = summarise(replace(make_evidence(), overlap=overlap))
        notes = [note for note in summary.notes if "images in common" in note or "the same images" in note]
        assert [note.startswith(start) for note, start in zip(notes, said, strict=True)] == [True] * len(said)
        widths = [r.test.high - r.test.low for r in (free.result("full"), summary.result("full"))]
        assert (widths[1] > 1.3 * widths[0]) is (overlap == 0.4)

    @pytest.mark.parametrize(
        ("groups", "words"),
        [
            ([("full", "partial")], "Not shown to differ from one another: full, partial."),
            ([("full",), ("scratch",)], "Shown to differ from all others: full, scratch."),
            (
                [("full", "partial"), ("partial", "discriminative"), ("scratch",)],
                (
                    "Not shown to differ from one another: full, partial; partial, discriminative. "
                    "Shown to differ from all others: scratch."
                ),
            ),
            ([], ""),
        ],
    )
    def test_groups_in_words(self, groups, words):
        summary = summarise(make_evidence())
        assert replace(summary, groups=tuple(groups)).groups_in_words == words

    def test_costs_are_sums_of_trials_and_means_of_runs(self):
        result = summarise(make_evidence()).result("full")
        assert result.tuning_seconds == 5 * (22 + 1)
        assert result.train_seconds == pytest.approx(23)  # 22, 23, 24
        assert result.trials == {"done": 3 * 4, "pruned": 3, "failed": 0}

    def test_tuning_costs_the_same_whatever_was_stored_before(self):
        made = make_evidence(make_study(tuning={"trials": 4}), images=20)
        costs = {"cached_seconds": [1.0, 1.0, 2.0, np.nan], "feature_seconds": [5.0, 5.0, 3.0, 0.0]}
        for stored in ([6.0, 1.0, 5.0, 7.0], [1.0, 1.0, 2.0, 7.0]):  # features computed, or found
            own = costs | {"train_seconds": stored, "eval_seconds": 0.5}
            trials = made.trials.assign(**{k: np.resize(v, len(made.trials)) for k, v in own.items()})
            result = summarise(replace(made, trials=trials)).result("partial")
            assert result.tuning_seconds == (1 + 1 + 2 + 7.5) + (5 + 3)

    def test_failures_are_counted_and_never_imputed(self):
        made = make_evidence(failed=[("full", 0), ("scratch", 0), ("scratch", 1), ("scratch", 2)])
        summary = summarise(made)
        full, scratch = summary.result("full"), summary.result("scratch")
        assert (full.done, full.failed, full.test.seeds) == (2, 1, 2)
        assert full.test_mean == pytest.approx(made.done.query("strategy == 'full'")["test_accuracy"].mean())
        assert (scratch.place, scratch.test, scratch.test_mean) == ("no result", None, None)
        assert "scratch: of 3 final runs 3 failed (loss is NaN at epoch 3)." in summary.notes
        assert all(comparison.strategy != "scratch" for comparison in summary.comparisons)

    def test_pairs_use_common_seeds_only(self):
        summary = summarise(make_evidence(failed=[("full", 0), ("partial", 1)]))
        seeds = {c.strategy: c.difference.seeds for c in summary.comparisons} | {summary.best: None}
        expected = {"full": {"full": None, "partial": 1}, "partial": {"full": 1, "partial": None}}
        for name, count in expected.get(summary.best, {"full": 2, "partial": 2}).items():
            assert seeds[name] == count

    def test_one_seed_is_said_to_be_one(self):
        summary = summarise(make_evidence(make_study(seeds=1)))
        assert any("single seed" in note for note in summary.notes)

    def test_near_duplicates_of_training_images_are_said_and_what_they_are_worth(self):
        made = make_evidence()
        best = summarise(made).best
        mine = made.predictions[made.predictions["strategy"] == best]
        always = mine[mine["target"] == mine["prediction"]].groupby("image").size()
        near = list(always.index[always == made.study.seeds][:10])
        facts = {"near-duplicates across parts": "10 of 120 test images have a near-duplicate in train"}
        made = replace(
            made,
            near_duplicates=tuple((name, "test", "other", "train") for name in near),
            provenance=made.provenance | facts,
        )
        other = mine[~mine["image"].isin(near)]
        without, with_them = ((part["target"] == part["prediction"]).mean() for part in (other, mine))
        (note,) = (note for note in summarise(made).notes if note.startswith("Near"))
        expected = f"On the other test images {best} has {without:.3f} instead of {with_them:.3f}."
        assert note == f"Near-duplicates: {facts['near-duplicates across parts']}. {expected}"

    @pytest.mark.parametrize(
        ("said", "notes"),
        [("none are given, but x", ["Groups: none are given, but x."]), ({"kind": "module"}, [])],
    )
    def test_what_looks_like_groups_is_a_note(self, said, notes):
        made = replace(make_evidence(), provenance={"groups": said})
        assert [note for note in summarise(made).notes if note.startswith("Groups")] == notes

    def test_one_strategy_is_best_of_nothing(self):
        summary = summarise(make_evidence(make_study(strategies=["feature_extractor"])))
        assert (summary.best, summary.comparisons) == ("feature_extractor", ())
        assert (summary.ruling.outcome, summary.recommendation) == ("open", None)

    def test_neither_of_identical_strategies_is_worse(self):
        made = make_evidence(make_study(strategies=["full", "discriminative"]))
        one = made.predictions[made.predictions["strategy"] == "full"]
        same = replace(made, predictions=pd.concat([one, one.assign(strategy="discriminative")]))
        assert summarise(same).not_worse == ("full", "discriminative")

    def test_nothing_stored_is_said(self):
        empty = Evidence(make_study(), *(pd.DataFrame() for _ in range(4)))
        summary = summarise(empty)
        assert summary.verdict == "No final run is done, so there is nothing to compare."
        assert summary.ruling.outcome == "open"
        assert "full: of 3 final runs 3 not run." in summary.notes

    def test_all_failed_is_said(self):
        every = [(name, seed) for name in LEVEL for seed in range(3)]
        summary = summarise(make_evidence(failed=every))
        assert (summary.best, summary.images, summary.classes) == (None, 0, ())

    def test_runs_without_predictions_are_named(self):
        made = make_evidence()
        lost = made.predictions[(made.predictions["strategy"] != "full") | (made.predictions["seed"] != 2)]
        summary = summarise(replace(made, predictions=lost))
        assert any(note.endswith("comparisons: full seed 2.") for note in summary.notes)
        assert summary.result("full").test.seeds == 2

    def test_recall_by_class_averages_to_balanced_accuracy(self):
        summary = summarise(make_evidence(make_study(metric="balanced_accuracy"), classes=("a", "b", "c")))
        for name in LEVEL:
            mean = np.mean([found.recall[name] for found in summary.classes])
            assert mean == pytest.approx(summary.result(name).test_mean)


class TestRanks:
    def summaries(self, *scores, names=("full", "partial", "scratch")):
        made = [summarise(make_evidence(make_study(name=f"s{i}"), images=20)) for i in range(len(scores))]
        return [
            replace(
                s, results=tuple(replace(s.result(n), test_mean=v) for n, v in zip(names, row, strict=True))
            )
            for s, row in zip(made, scores, strict=True)
        ]

    def test_mean_ranks_by_hand_with_ties_shared(self):
        found = rank(self.summaries((0.9, 0.8, 0.7), (0.9, 0.9, 0.1), (0.5, 0.6, 0.4)))
        assert found.mean == pytest.approx({"full": (1 + 1.5 + 2) / 3, "partial": 4.5 / 3, "scratch": 3})
        assert found.apart == []

    def test_where_lower_is_better_the_lowest_is_first(self, error_rate):
        made = self.summaries((0.1, 0.2, 0.3), (0.1, 0.1, 0.9), (0.5, 0.4, 0.6))
        found = rank([replace(summary, metric=error_rate.name) for summary in made])
        assert found.mean == pytest.approx({"full": 1.5, "partial": 1.5, "scratch": 3})

    def test_friedmans_p_is_scipys(self):
        scores = [(0.9, 0.8, 0.7), (0.9, 0.85, 0.1), (0.5, 0.6, 0.4), (0.9, 0.5, 0.3)]
        found = rank(self.summaries(*scores))
        assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*zip(*scores, strict=True)).pvalue)

    def test_studies_on_the_same_data_are_one_data_set(self):
        scores = [(0.9, 0.8, 0.7), (0.7, 0.8, 0.4), (0.5, 0.6, 0.4)]
        made = [
            replace(s, data_digest=d)
            for s, d in zip(self.summaries(*scores), ("same", "same", "other"), strict=True)
        ]
        found = rank(made)
        assert found.scores.to_numpy().tolist() == [pytest.approx([0.8, 0.8, 0.55]), [0.5, 0.6, 0.4]]
        assert found.scores.index.tolist() == ["s0, s1", "s2"]
        assert (found.studies, found.difference) == (3, critical_difference(3, 2))
        assert found.mean == pytest.approx({"full": 1.75, "partial": 1.25, "scratch": 3})
        assert rank(made[:2]) is None

    def test_the_data_of_a_study_are_those_of_its_evidence(self):
        made = make_evidence(images=20)
        made.provenance["data digest"] = "abc"
        assert summarise(made).data_digest == "abc"

    def test_pairs_are_apart_only_if_not_all_are_alike(self, monkeypatch):
        import scikit_posthocs

        monkeypatch.setattr(scikit_posthocs, "posthoc_nemenyi_friedman", lambda _: np.full((3, 3), 0.01))
        agree = rank(self.summaries(*[(0.9, 0.8, 0.7)] * 5))
        differ = rank(self.summaries((0.9, 0.8, 0.7), (0.7, 0.8, 0.9)))
        assert agree.differ
        assert len(agree.apart) == 3
        assert not differ.differ
        assert differ.apart == []

    def test_a_summary_of_before_its_data_were_known_is_read(self):
        summary = self.summaries((0.9, 0.8, 0.7))[0]
        values = summary.as_json()
        del values["data_digest"]
        assert Summary.from_json(values).data_digest == ""

    def test_critical_difference_is_that_of_the_paper(self):
        """Demsar 2006, section 3.2.2: four classifiers on 14 data sets: 2.569 sqrt(4 5 / (6 14)) = 1.25."""
        assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)

    def test_too_few_to_rank(self):
        assert rank(self.summaries((0.9, 0.8, 0.7))) is None
        assert rank(self.summaries((0.9, None, 0.7), (0.9, 0.8, 0.7))) is None

    def test_equal_scores_share_their_rank(self):
        found = rank(self.summaries((0.9, 0.9, 0.9), (0.8, 0.8, 0.8)))
        assert (set(found.mean.values()), found.friedman_p, found.apart) == ({2.0}, 1.0, [])


class TestMistakes:
    def test_confused_pairs_by_hand(self):
        made = make_evidence(make_study(strategies=["full"], seeds=1), images=4)
        answered = made.predictions.assign(target=["a", "a", "b", "c"], prediction=["b", "a", "b", "b"])
        summary = summarise(replace(made, predictions=answered))
        found = [(c.target, c.prediction, c.predictions, c.share, c.examples) for c in summary.confused]
        assert found == [("a", "b", 1, 0.5, ("0000.png",)), ("c", "b", 1, 1.0, ("0003.png",))]
        counts = confusion(replace(made, predictions=answered), "full")
        assert counts.to_numpy().tolist() == [["a", "a", 1], ["a", "b", 1], ["b", "b", 1], ["c", "b", 1]]

    def test_examples_are_those_that_most_seeds_mistake_of_the_pictures_at_hand(self):
        made = make_evidence(make_study(strategies=["full"], seeds=3), images=3)
        answered = made.predictions.assign(target="a", prediction="a")
        mistaken = {("0000.png", 0), ("0001.png", 0), ("0001.png", 1), ("0001.png", 2), ("0002.png", 0)}
        mistaken |= {("0002.png", 1)}
        pairs = list(zip(answered["image"], answered["seed"], strict=True))
        answered.loc[[pair in mistaken for pair in pairs], "prediction"] = "b"
        for kept, examples in (
            ((), ("0001.png", "0002.png", "0000.png")),
            (("0000.png", "0002.png"), ("0002.png", "0000.png")),
            (("elsewhere.png",), ("0001.png", "0002.png", "0000.png")),
        ):
            evidence = replace(made, predictions=answered, images=dict.fromkeys(kept, b""))
            assert confused(evidence, "full")[0].examples == examples

    def test_gain_is_the_difference_of_recalls(self):
        summary = summarise(make_evidence())
        assert summary.gain_over == "feature_extractor"
        for found in summary.classes:
            difference = found.recall[summary.best] - found.recall["feature_extractor"]
            assert found.gain.value == pytest.approx(difference)
            assert found.gain.low <= found.gain.value <= found.gain.high

    def test_the_frozen_backbone_is_set_against_the_runner_up(self):
        summary = summarise(make_evidence(level=LEVEL | {"feature_extractor": 3.0}))
        means = {r.strategy: r.val_mean for r in summary.results if r.strategy != "feature_extractor"}
        assert (summary.best, summary.gain_over) == ("feature_extractor", max(means, key=means.get))
