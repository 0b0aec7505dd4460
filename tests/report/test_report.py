"""The report's files: complete, the same bytes each time, safe with hostile names, whole until replaced."""

import csv
import io
import json
import re
import shutil
import subprocess
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from reportlab.lib.enums import TA_LEFT, TA_RIGHT

from bench.analysis.evidence import Evidence
from bench.analysis.summary import summarise
from bench.analysis.verdict import SMOKE_TEST
from bench.core.text import plain
from bench.core.versions import REPORT
from bench.data.dataset import Rejected
from bench.data.left_out import summarise as summarise_left_out
from bench.report import export_formats, pdf, title_facts
from bench.report.figures import cost, errors_by_class, results, stages, studies, study_figures
from bench.report.figures.base import Stamp
from bench.report.figures.cost import pareto
from bench.report.figures.label_layout import spread
from bench.report.figures.study_figures import FIGURES
from bench.report.figures.style import (
    DARK,
    DARK_SHADES,
    LIGHT_SHADES,
    LOOKS,
    SPARE,
    ink_on,
    look,
    theme,
)
from bench.report.overview_report import write_overview
from bench.report.preview import preview
from bench.report.study_report import write
from bench.report.tables import NOTHING, overview, seconds, table
from bench.study.metrics import METRICS
from bench.study.tasks import TASKS
from bench.system.csv_tables import from_csv
from bench.system.locations import MARK, is_marked
from tests.support.synthetic import (
    LEVEL,
    RUN_PAGES,
    make_evidence,
    make_images,
    make_stages,
    make_study,
)

NAMES = tuple(name for name in FIGURES if name not in TASKS["segmentation"].figures)
FILES = {
    MARK,
    *("runs.csv", "trials.csv", "summary.json", "report.md", "report.pdf", "index.html", "card.png"),
    "recipe.yaml",
    *(f"tables/{name}.csv" for name in ("results", "comparisons", "classes")),
    *("tables/results.tex", "tables/comparisons.tex"),
    *(f"figures/{name}.{form}" for name in NAMES for form in ("png", "svg", "csv")),
}
HOSTILE = "<script>alert('x')</script>|`*[a](javascript:b)"


class Page(HTMLParser):
    """Collects what a browser would load, follow and run, and checks that every element is closed."""

    EMPTY = frozenset({"meta", "img", "br", "link"})
    OWN = ("https://cs231n.github.io/", RUN_PAGES)

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.links, self.alts, self.text = [], [], [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.alts += [values["alt"]] if tag == "img" else []
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def catch(monkeypatch, module):
    """Return a dict that gets every figure which a module draws, by name."""
    figures, take = {}, module.take

    def keep(figure, data, **words):
        figures[words["name"]] = figure
        return take(figure, data, **words)

    monkeypatch.setattr(module, "take", keep)
    return figures


@pytest.fixture
def one_figure(monkeypatch):
    """Reports with a single figure: drawing all takes longer than everything else."""
    monkeypatch.setattr(study_figures, "FIGURES", {"accuracy": FIGURES["accuracy"]})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    evidence = make_evidence(failed=[("partial", 1)])
    evidence = replace(evidence, stages=make_stages(evidence), images=make_images(evidence))
    write(evidence, folder)
    return evidence, folder


class TestStudyReport:
    def test_every_file_and_nothing_else(self, written):
        assert set(contents(written[1])) == FILES

    def test_the_same_evidence_gives_the_same_bytes(self, written, tmp_path):
        evidence, folder = written
        shuffled = replace(evidence, runs=evidence.runs.sample(frac=1, random_state=1))
        write(shuffled, tmp_path)
        assert contents(tmp_path) == contents(folder)

    def test_rows_in_csv_are_all_runs_failed_ones_included(self, written):
        evidence, folder = written
        runs = pd.read_csv(folder / "runs.csv")
        assert len(runs) == 15
        assert runs.columns[:6].tolist() == ["study", "size", "similarity", "strategy", "seed", "status"]
        assert runs["strategy"].drop_duplicates().tolist() == list(LEVEL)
        assert runs.query("status == 'failed'")[["strategy", "seed"]].to_numpy().tolist() == [["partial", 1]]
        assert len(pd.read_csv(folder / "trials.csv")) == len(evidence.trials) == 5 * 3 * 5

    def test_summary_is_strict_json_with_its_version(self, written):
        found = json.loads((written[1] / "summary.json").read_text(), parse_constant=pytest.fail)
        assert found["version"] == REPORT
        assert [result["strategy"] for result in found["results"]] == list(LEVEL)
        assert found["ruling"]["advised"] == ["feature_extractor"]
        assert found["provenance"]["device"] == "cpu"

    def test_the_page_needs_nothing_but_itself(self, written):
        page = Page((written[1] / "index.html").read_text())
        assert len(page.sources) == len(NAMES) + 8 + 1  # and test images, and the enlarged one, empty
        assert all(source.startswith("data:") for source in page.sources)
        assert page.tags.count("script") == 1
        assert not {"link", "iframe", "object"} & set(page.tags)
        text = (written[1] / "index.html").read_text()
        for address in Page.OWN:
            text = text.replace(address, "")
        assert "http" not in text.replace("http-equiv", "")

    def test_every_link_of_the_page_leads_somewhere(self, written):
        page = Page((written[1] / "index.html").read_text())
        local = [link for link in page.links if not link.startswith((*Page.OWN, "#"))]
        assert len(local) >= 3 * len(NAMES)
        assert all((written[1] / link).is_file() for link in local)

    def test_every_run_leads_to_its_page(self, written):
        evidence, folder = written
        links = [
            link for link in Page((folder / "index.html").read_text()).links if link.startswith(RUN_PAGES)
        ]
        assert links == [RUN_PAGES + run_id for run_id in evidence.runs["mlflow_run_id"]]

    def test_both_forms_say_the_same(self, written):
        evidence, folder = written
        summary = summarise(evidence)
        page = " ".join(Page((folder / "index.html").read_text()).text.split())
        markdown = (folder / "report.md").read_text().replace("\\", "")
        for words in (
            summary.verdict,
            summary.recommendation.reason,
            summary.settling.sentence,
            summary.settling.command,
            summary.ruling.sentence,
            *summary.notes,
        ):
            assert words in page
            assert words in markdown
        for row in table(summary)[1]:
            assert "| " + " | ".join(row) + " |" in markdown
            assert all(cell in page for cell in row)

    def test_the_protocol_says_what_intervals_take_for_granted(self, written):
        for name in ("index.html", "report.md"):
            assert "independent of each other where no groups are known" in (written[1] / name).read_text()

    def test_every_figure_has_words_for_who_cannot_see_it(self, written):
        evidence, folder = written
        alts = Page((folder / "index.html").read_text()).alts
        assert alts[:8] == [
            f"test image of {name}, {n} of 4" for name in ("ant", "bee") for n in (1, 2, 3, 4)
        ]
        alts = alts[8:]
        full = summarise(evidence).result("full").test
        assert f"full {full.value:.3f}" in alts[0]
        assert alts.pop() == ""  # what is enlarged gets the words of its figure
        assert all(len(alt) > 40 for alt in alts)

    def test_figures_are_wide_enough_and_white_behind(self, written):
        for name in NAMES:
            picture = Image.open(written[1] / "figures" / f"{name}.png").convert("RGB")
            assert picture.width >= 1100  # 5 inches
            assert picture.getpixel((1, 1)) == (255, 255, 255)

    def test_every_colour_of_ours_has_another_in_the_dark(self, written):
        for name in NAMES:
            text = (written[1] / "figures" / f"{name}.svg").read_text()
            rules, drawing = re.search(r"<style>(.*?)</style>(.*)", text, re.DOTALL).groups()
            for light, dark in DARK.items():
                assert (light in drawing) == (f'[style*="fill: {light}"]{{fill:{dark}!important}}' in rules)

    def test_the_data_of_figures_are_what_is_drawn(self, written):
        _, folder = written
        data = {name: pd.read_csv(folder / "figures" / f"{name}.csv") for name in NAMES}
        assert data["accuracy"].query("what == 'seed'").groupby("strategy").size()["partial"] == 2
        full = data["cost"].set_index("strategy").loc["feature_extractor"]
        assert full["uncached_seconds"] - full["cached_seconds"] == pytest.approx(2)
        assert full["with_tuning_seconds"] == pytest.approx(5 * 4)
        assert len(data["curves"]) == 5 * 3
        best = data["tuning"].groupby("strategy")["expected_best"].last()
        assert best.to_dict() == dict.fromkeys(LEVEL, 0.5)
        assert data["confusion"]["predictions"].sum() == 3 * 120  # the best has all seeds
        assert data["gain_by_class"]["class"].tolist() in (["ant", "bee"], ["bee", "ant"])
        assert data["stages"].query("strategy == 'feature_extractor'")["change_mean"].eq(0).all()

    def test_the_pdf_says_the_verdict(self, written):
        content = (written[1] / "report.pdf").read_bytes()
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        assert content.count(b"/Subtype /Image") >= len(NAMES)

    def test_tables_to_paste(self, written):
        evidence, folder = written
        summary = summarise(evidence)
        results = pd.read_csv(folder / "tables" / "results.csv").set_index("strategy")
        assert results.loc["full", "test"] == pytest.approx(summary.result("full").test.value)
        assert len(pd.read_csv(folder / "tables" / "comparisons.csv")) == 10
        text = (folder / "tables" / "results.tex").read_text().replace(r"\allowbreak{}", "")
        assert text.count(r"\\") == 1 + len(LEVEL)
        assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"feature\_extractor"))

    def test_figures_that_are_not_drawn_now_go_and_an_address_that_is_no_web_page_is_no_link(
        self, written, tmp_path
    ):
        shutil.copytree(written[1], tmp_path, dirs_exist_ok=True)
        evidence = replace(make_evidence(images=20, epochs=1), run_pages="javascript:alert(1)//")
        write(evidence, tmp_path)
        assert "javascript:" not in (tmp_path / "index.html").read_text()
        assert FILES - set(contents(tmp_path)) == {f"figures/stages.{form}" for form in ("png", "svg", "csv")}

    def test_hostile_names_do_nothing(self, tmp_path):
        evidence = make_evidence(classes=(HOSTILE, "bee"))
        evidence.provenance["rejected_images"] = [{"name": HOSTILE, "reason": "truncated"}]
        write(evidence, tmp_path)
        page = Page((tmp_path / "index.html").read_text())
        assert page.tags.count("script") == 1
        assert page.text.count(HOSTILE) == 2
        for svg in (tmp_path / "figures").glob("*.svg"):
            assert b"<script" not in svg.read_bytes()
        for name in ("comparisons", "results"):
            assert "<script" not in (tmp_path / "tables" / f"{name}.tex").read_text()
        markdown = (tmp_path / "report.md").read_text()
        assert "<script" not in markdown
        assert r"\|\`\*[a]\(javascript:b)" in markdown
        rows = [line for line in markdown.splitlines() if line.startswith("| &lt;script")]
        assert [row.replace(r"\|", "").count("|") for row in rows] == [len(LEVEL) + 3]

    def test_control_characters_in_names_are_seen_and_do_nothing(self, tmp_path):
        signs = [*map(chr, range(32)), "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\uffff"]
        write(make_evidence(classes=[f"a{sign}=1 {ord(sign)}" for sign in signs], epochs=1), tmp_path)
        for svg in (tmp_path / "figures").glob("*.svg"):
            ET.parse(svg)
        for name in ("index.html", "report.md"):
            text = (tmp_path / name).read_text()
            assert not set(text) & {*signs} - {"\n", "\t"}
        for path in tmp_path.rglob("*.csv"):
            with path.open(newline="") as file:
                assert len({len(row) for row in csv.reader(file)}) == 1

    def test_of_thousands_of_classes_only_the_pairs_that_occur_are_kept(self):
        """A whole matrix of 20,000 classes takes 3 GB, and its table as much again on the disk."""
        classes = tuple(f"c{number:05d}" for number in range(20_000))
        study = make_study(strategies=["full"], seeds=1)
        made = make_evidence(study, images=len(classes), classes=classes, epochs=1)
        summary = replace(summarise(make_evidence(images=20, epochs=1)), best="full", confused=())
        tracemalloc.start()
        drawn = errors_by_class.matrix(made, summary)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(drawn.data) <= len(classes)
        assert "The 20 most confused of" in drawn.caption
        assert most < 200e6

    @pytest.mark.usefixtures("one_figure")
    def test_thousands_of_files_left_out_are_a_file_beside_the_report(self, tmp_path):
        left_out = tuple((f"a/{number}.xml", "=no picture") for number in range(10_000))
        evidence = make_evidence(images=20, epochs=1)
        evidence.provenance["images left out"] = summarise_left_out([Rejected(*pair) for pair in left_out])
        write(replace(evidence, left_out=left_out), tmp_path)
        assert from_csv((tmp_path / "left_out.csv").read_bytes(), ("file", "reason")).shape == (10_000, 2)
        page = (tmp_path / "index.html").read_text()
        assert "10,000 .xml: =no picture" in page
        assert 'href="left_out.csv"' in page
        assert page.count(".xml") < 20
        assert "left_out.csv" in (tmp_path / "report.md").read_text()

    @pytest.mark.usefixtures("one_figure")
    def test_a_report_with_fewer_results_takes_no_place_of_one_with_more(self, tmp_path, caplog):
        folder = tmp_path / "study"
        write(make_evidence(images=20, epochs=1), folder)
        before = contents(folder)
        fewer = make_study(strategies=["scratch", "full"])
        write(make_evidence(fewer, images=20, epochs=1), folder)
        earlier = tmp_path / "study-earlier-1"
        assert contents(earlier) == before
        assert f"rests on more final runs than the new one: kept in {earlier}" in caplog.text
        assert is_marked(folder)
        caplog.clear()
        write(make_evidence(fewer, images=20, epochs=1), folder)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["study", "study-earlier-1"]
        assert not caplog.text

    @pytest.mark.usefixtures("one_figure")
    def test_results_of_different_hardware_are_named_as_such(self, tmp_path):
        evidence = make_evidence(images=20, epochs=1)
        evidence.provenance["different hardware"] = ["cpu, Xeon", "cuda, H100"]
        write(evidence, tmp_path)
        assert "2 kinds of hardware (cpu, Xeon; cuda, H100)" in (tmp_path / "report.md").read_text()

    @pytest.mark.usefixtures("one_figure")
    def test_an_earlier_report_stays_when_a_new_one_fails(self, written, tmp_path):
        shutil.copytree(written[1], tmp_path, dirs_exist_ok=True)
        before = contents(tmp_path)
        broken = make_evidence(images=30)
        broken.provenance["wall_seconds"] = float("nan")
        with pytest.raises(ValueError, match="JSON"):
            write(broken, tmp_path)
        assert contents(tmp_path) == before

    def test_all_failed_is_a_report_too(self, tmp_path):
        write(make_evidence(failed=[(name, seed) for name in LEVEL for seed in range(3)]), tmp_path)
        drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
        assert drawn == {"accuracy", "cost", "curves", "tuning", "hyperparameters"}
        assert "nothing to compare" in (tmp_path / "report.md").read_text()
        assert f"| full | {NOTHING} | {NOTHING} |" in (tmp_path / "report.md").read_text()

    @pytest.mark.parametrize("changes", [{"seeds": 1}, {"strategies": ["full"]}, {"scenario": None}])
    def test_small_studies(self, changes, tmp_path):
        before = dict(mpl.rcParams)
        write(make_evidence(make_study(**changes), images=20, epochs=1), tmp_path)
        assert {path for path in FILES if "/" not in path} < set(contents(tmp_path))
        assert dict(mpl.rcParams) == before
        assert plt.get_fignums() == []


class TestSmokeTest:
    """It shows that everything works, and says so wherever its numbers are."""

    CLAIMS = re.compile(
        "(is|be) (better|worse)|equivalent|undecided|settle|power 0|recommended|Use |Rule of thumb"
        "|Bold:|Tinted|best by validation"
    )

    @pytest.fixture(scope="class")
    @classmethod
    def smoke(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("smoke")
        evidence = replace(make_evidence(failed=[("partial", 1)], images=40), budget="smoke")
        write(evidence, folder)
        return summarise(evidence), folder

    def test_the_page_and_the_documents_say_it_and_claim_nothing(self, smoke):
        folder = smoke[1]
        html, text = ((folder / name).read_text() for name in ("index.html", "report.md"))
        assert html.index(SMOKE_TEST) < html.index("<h1>")
        assert SMOKE_TEST in text.partition("## Results")[0]
        said = [text.partition("## Protocol")[0], Page(html).text.partition("Protocol")[0]]
        for words in said:
            assert not self.CLAIMS.search(words.replace(SMOKE_TEST, "")), words
        assert "of 3 final runs 1 failed" in text, "what does not work is named"

    def test_so_does_the_pdf(self, smoke):
        pdftotext = shutil.which("pdftotext")
        if pdftotext is None:
            pytest.skip("there is no pdftotext: apt-get install poppler-utils")
        command = [pdftotext, str(smoke[1] / "report.pdf"), "-"]
        text = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert text.startswith(SMOKE_TEST)
        assert not self.CLAIMS.search(text.partition("Where the numbers come from")[0])

    def test_and_what_programs_read(self, smoke):
        said = json.loads((smoke[1] / "summary.json").read_text())
        assert (said["smoke"], said["verdict"], said["best"]) == (True, SMOKE_TEST, None)
        assert not any(said[key] for key in ("pairs", "comparisons", "ruling", "recommendation"))
        assert {result["place"] for result in said["results"]} == {"not compared"}
        assert not (smoke[1] / "tables" / "comparisons.csv").exists()

    def test_several_say_it_together(self, smoke, tmp_path):
        write_overview([(make_study(), smoke[0])] * 2, tmp_path)
        html, text = ((tmp_path / name).read_text() for name in ("index.html", "report.md"))
        assert html.index(SMOKE_TEST) < html.index("<h1>")
        assert SMOKE_TEST in text
        assert not self.CLAIMS.search(text.replace(SMOKE_TEST, ""))
        assert not list(tmp_path.glob("figures/*"))


class TestTop:
    """What stands above everything else: what was asked of which data, the answer, three numbers."""

    def test_on_what_the_study_ran(self):
        made = make_evidence(images=20)
        known = {"images": {"train images": 1200, "val images": 60, "test images": 20}, "classes": 2}
        known |= {"computed on": ["cpu fp32"], "date": "2026-11-28", "seconds of all runs together": 1234}
        said = dict(title_facts.facts(replace(made, provenance=known)))
        assert said == {
            "transfer": "tf_efficientnet_lite0 > photo_textures",
            "images": "1,200 train, 60 val, 20 test",
            "classes": "2",
            "budget": "default: 5 trials for each of 3 seeds",
            "device": "cpu fp32",
            "date": "2026-11-28",
            "computing time": "21 min",
        }
        assert set(dict(title_facts.facts(made))) == {"transfer", "budget"}, "what is not known is not said"

    @pytest.mark.parametrize(
        ("seconds", "words"), [(41, "41 s"), (1234, "21 min"), (3599, "60 min"), (11100, "3 h 05 min")]
    )
    def test_durations(self, seconds, words):
        assert title_facts.duration(seconds) == words

    def test_numbers_are_those_of_what_is_recommended(self):
        summary = summarise(make_evidence(images=400))
        name = summary.recommendation.strategy
        score, parameters, seconds = title_facts.numbers(summary)
        assert score.value == f"{summary.result(name).test.value:.3f}"
        assert name in score.detail
        assert parameters.value == "1,000"
        assert seconds.name == "Seconds"

    def test_a_smoke_test_has_no_numbers_and_claims_nothing(self):
        summary = summarise(replace(make_evidence(images=20), budget="smoke"))
        assert title_facts.numbers(summary) == []
        assert title_facts.headline(summary) == "Smoke test"

    def test_a_link_to_it_shows_a_card(self, written):
        picture = Image.open(written[1] / "card.png")
        assert picture.size == (1200, 630)
        page = (written[1] / "index.html").read_text()
        assert '<meta property="og:image" content="card.png">' in page
        assert re.search('og:title" content="small_similar: Use [a-z_]+"', page)

    def test_the_contents_lead_to_places_of_the_page(self, written):
        page = (written[1] / "index.html").read_text()
        places = re.findall(r'<a href="#([a-z]+)">', page)
        assert places[:4] == ["verdict", "results", "recipe", "cost"]
        assert all(f'id="{place}"' in page for place in places)


class TestUnusual:
    """What may go wrong in a study gives a right report or says what is lacking."""

    def test_nan_identical_answers_and_pruned_trials(self, tmp_path):
        made = make_evidence(images=20, epochs=1)
        runs, curves, trials = made.runs.copy(), made.curves.copy(), made.trials.assign(status="pruned")
        runs.loc[runs["strategy"] == "full", ["test_accuracy", "val_accuracy"]] = np.nan
        curves["val_accuracy"] = np.nan
        right = made.predictions.assign(prediction=made.predictions["target"])
        images = dict.fromkeys(right["image"], b"no picture")
        unusual = replace(made, runs=runs, curves=curves, trials=trials, predictions=right, images=images)
        write(unusual, tmp_path)
        found = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
        assert "full: of 3 final runs 3 failed." in found["notes"]
        assert all(c["minimum_detectable_effect"] is None for c in found["pairs"])
        assert all(c["relation"] == "undecided" and c["difference"]["value"] == 0 for c in found["pairs"])
        assert any("No prediction for a test image differs" in note for note in found["notes"])
        assert not (tmp_path / "figures" / "confused_pairs.png").exists()

    def test_an_overview_of_nothing(self, tmp_path):
        study = make_study()
        empty = summarise(Evidence(study, *(pd.DataFrame() for _ in range(4))))
        write_overview([(study, empty)] * 2, tmp_path)
        assert "No final run is done" in (tmp_path / "index.html").read_text()


class TestTable:
    def test_a_row_per_strategy_the_best_on_test_first(self):
        summary = summarise(make_evidence(failed=[("partial", 1)]))
        headers, rows = table(summary)
        means = [summary.result(row[0]).test_mean for row in rows]
        assert means == sorted(means, reverse=True)
        assert {len(row) for row in rows} == {len(headers)}
        by_name = {row[0]: row for row in rows}
        assert "(1 failed" in by_name["partial"][-1]
        assert by_name["scratch"][2:6] == ["26", "130", "15 (3 pruned)", "1,000"]
        verdicts = [row[-1].split(" (")[0] for row in rows]
        assert sum(verdict.split(", ")[0] == "best" for verdict in verdicts) == 1
        assert sum(verdict.endswith(", recommended") for verdict in verdicts) == 1

    @pytest.mark.parametrize(
        ("value", "text"), [(None, NOTHING), (0.04, "0.0"), (3.44, "3.4"), (9.97, "10"), (1240.4, "1,240")]
    )
    def test_seconds(self, value, text):
        assert seconds(value) == text

    def test_overview_has_a_column_per_study(self):
        one = summarise(make_evidence())
        two = summarise(make_evidence(make_study(name="other", strategies=["full"])))
        headers, rows = overview([one, two])
        assert headers == ["Strategy", "small_similar", "other"]
        assert [row[2] == NOTHING for row in rows] == [True, True, True, False, True]


class TestPdf:
    @pytest.mark.parametrize(
        "sentence", ["short", "It hangs on partial, which is told apart from full. " * 3]
    )
    def test_no_word_of_a_table_is_broken(self, sentence):
        headers = ["Study", "Scenario", "Rule of thumb", "Advised", "Best", "Outcome", "What decides"]
        row = ["large_different", "large, different", "fine-tune through the full network"]
        row += ["full or discriminative", "feature_extractor", "contradicted", sentence]
        made = pdf.table(headers, [row])
        assert sum(made._colWidths) == pytest.approx(pdf.WIDTH)
        for width, cell in zip(made._colWidths, made._cellvalues[1], strict=True):
            lines = cell.breakLines(width - 2 * pdf.PADDING).lines
            words = [word for line in lines for word in (line.words if hasattr(line, "words") else line[1])]
            assert " ".join(words).split() == cell.getPlainText().split()

    def test_it_has_the_date_of_the_numbers_and_numbers_its_pages(self):
        story = [pdf.paragraph("word " * 3000)]
        content = pdf.document("a", story, "2026-11-28")
        assert b"/CreationDate (D:20261128" in content
        assert content == pdf.document("a", [pdf.paragraph("word " * 3000)], "2026-11-28")
        assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") > 1

    def test_numbers_are_aligned(self):
        made = pdf.table(["Study", "n", "p"], [["a", "2,000", "< 0.001"], ["b", "7", "\N{EN DASH}"]])
        sides = [cell.style.alignment for cell in made._cellvalues[1]]
        assert sides == [TA_LEFT, TA_RIGHT, TA_RIGHT]


class TestOverview:
    def test_files_links_and_verdicts(self, tmp_path):
        studies = [make_study(name=name) for name in ("one", "two", "three")]
        summaries = [(study, summarise(make_evidence(study, images=40))) for study in studies]
        write_overview(summaries, tmp_path)
        assert set(contents(tmp_path)) == {
            *(MARK, "summary.json", "report.md", "report.pdf", "index.html"),
            *(f"tables/{name}.{form}" for name in ("overview", "rules") for form in ("csv", "tex")),
            *(
                f"figures/{name}.{form}"
                for name in ("overview", "costs", "ranks")
                for form in ("png", "svg", "csv")
            ),
        }
        page = Page((tmp_path / "index.html").read_text())
        assert {f"../{study.name}/index.html" for study in studies} <= set(page.links)
        assert all(summary.recommendation.sentence in page.text for _, summary in summaries)
        assert "The rule of thumb is" in page.text
        assert len(json.loads((tmp_path / "summary.json").read_text())["studies"]) == 3

    def test_who_is_far_behind_is_an_arrow_and_does_not_set_the_scale(self, monkeypatch):
        figures = catch(monkeypatch, studies)
        summary = summarise(make_evidence(level=LEVEL | {"scratch": -3.0}, images=400))
        with theme():
            studies.of_studies([summary])
        (axes,) = figures["overview"].axes
        assert axes.get_xlim()[0] > summary.result("scratch").test.high
        assert [line.get_marker() for line in axes.lines].count("<") == 1

    def test_where_lower_is_better_the_lowest_comes_first(self, monkeypatch):
        lower = replace(METRICS["accuracy"], direction="lower")
        monkeypatch.setitem(METRICS._records, "accuracy", lower)
        figures, summary = catch(monkeypatch, studies), summarise(make_evidence())
        with theme():
            (drawn, *_) = studies.of_studies([summary])
        lowest = min(summary.results, key=lambda result: result.test.value)
        assert figures["overview"].axes[0].get_yticklabels()[0].get_text() == lowest.strategy
        assert f"{summary.study}: {lowest.strategy}" in drawn.alt

    def test_ranks_are_drawn_where_they_tell_something_apart(self):
        level = dict(zip(LEVEL, (-1.0, 0.0, 0.7, 1.4, 2.4), strict=True))
        one = summarise(make_evidence(images=300, level=level))
        apart = [replace(one, study=name, data_digest=name) for name in "abcdefgh"]
        with theme():
            names = [[p.name for p in studies.of_studies(some)] for some in (apart, apart[:2])]
        assert ["ranks" in each for each in names] == [True, False]


class TestPreview:
    def test_a_picture_per_cell_first_as_evaluated(self, tmp_path):
        colours = np.zeros((2, 3, 8, 8, 3), np.uint8)
        colours[0, 0], colours[0, 1], colours[1, 2] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
        preview(colours, ["ant", "bee"], tmp_path / "preview.png")
        picture = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))
        left, top = (
            {
                c: np.argwhere((picture == c).all(axis=2))[:, axis].mean()
                for c in ((250, 0, 0), (0, 250, 0), (0, 0, 250))
            }
            for axis in (1, 0)
        )
        red, green, blue = left
        assert left[red] < left[green] < left[blue]
        assert top[red] == pytest.approx(top[green], abs=1)
        assert top[red] < top[blue]

    def test_a_label_is_needed_for_each_row(self, tmp_path):
        with pytest.raises(ValueError, match="zip"):
            preview(np.zeros((2, 1, 4, 4, 3), np.uint8), ["one"], tmp_path / "preview.png")
        assert not list(tmp_path.iterdir())


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    """WCAG 2.2, 1.4.3: a text needs at least 4.5 to 1."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


class TestForms:
    def test_latex_acts_on_nothing(self):
        hostile = r"\input{x} & 100% $y$ #1 _^~ {}"
        text = export_formats.latex(["Class", "a_b"], [[hostile, "\N{MINUS SIGN}0.5"]], "50 % & more", "name")
        row = next(line for line in text.splitlines() if "input" in line)
        assert row.startswith(
            r"\textbackslash{}input\{x\} \& 100\% \$y\$ \#1 \_\textasciicircum{}\textasciitilde{}"
        )
        assert row.endswith(r"& $-$0.5 \\")
        assert r"\caption{50 \% \& more}" in text

    def test_latex_labels_tell_studies_apart(self, written):
        for name in ("results", "comparisons"):
            text = (written[1] / "tables" / f"{name}.tex").read_text()
            assert rf"\label{{tab:{name}-small_similar}}" in text
        text = export_formats.latex(["a"], [["b"]], "", "results-a b}\\input")
        assert r"\label{tab:results-a-b-input}" in text

    def test_a_latex_table_that_is_too_wide_gets_columns_that_fill_the_line(self):
        sentence = "It hangs on partial, which is told apart from full if it is behind by 0.008 or more."
        text = export_formats.latex(
            ["Study", "n", "What decides"], [["large_different", "2,000", sentence]], "", "x"
        )
        widths = [float(width) for width in re.findall(r"p\{([\d.]+)\\linewidth\}", text)]
        assert len(widths) == 3
        assert sum(widths) == pytest.approx(1 - 2 * export_formats.GAP, abs=0.01)
        assert widths[2] == max(widths)
        assert re.findall(r"raggedright|raggedleft", text) == ["raggedright", "raggedleft", "raggedright"]
        assert r"p{" not in export_formats.latex(["Study", "n"], [["large_different", "2,000"]], "", "x")

    def test_tables_of_a_report_are_no_wider_than_the_page(self, written, tmp_path):
        if not shutil.which("pdflatex"):
            pytest.skip("pdflatex is not installed")
        bodies = [(written[1] / "tables" / f"{name}.tex").read_text() for name in ("results", "comparisons")]
        head = r"\documentclass{article}\usepackage{array, booktabs}\begin{document}"
        (tmp_path / "paper.tex").write_text("\n".join([head, *bodies, r"\end{document}"]))
        command = ["pdflatex", "-interaction=nonstopmode", "paper.tex"]
        said = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
        assert said.returncode == 0, said.stdout
        too_wide = [float(more) for more in re.findall(r"Overfull \\hbox \(([\d.]+)pt", said.stdout)]
        assert max(too_wide, default=0) < 3


class TestFrame:
    """Every figure says what it shows to be so, what it is of, and whose it is: it may be shown alone."""

    def test_in_both_forms_and_nothing_lies_over_it(self, monkeypatch):
        figures, made = catch(monkeypatch, cost), make_evidence(images=60)
        evidence = replace(made, provenance=made.provenance | {"date": "2026-11-28"})
        summary = summarise(evidence)
        with theme():
            picture = cost.cost(summary).rendered(study_figures.stamp_of(evidence, summary))
        figure = figures["cost"]
        texts = [text.get_text() for text in figure.texts]
        assert "tf_efficientnet_lite0 > photo_textures \N{MIDDLE DOT} 60 test images, 3 seeds" in texts
        assert texts[-1].startswith("small_similar \N{MIDDLE DOT} bench ")
        assert texts[-1].endswith("2026-11-28")
        assert picture.finding
        words = [text.get_window_extent() for text in figure.texts]
        legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
        assert not any(axes.overlaps(box) for box in (*words, legend))
        assert not any(legend.overlaps(box) for box in words)
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in words)

    def test_a_long_finding_is_wrapped(self):
        words = {"name": "a", "title": "b", "caption": "c", "alt": "d", "finding": "so it is " * 9}
        with theme():
            figure = Figure(figsize=(3, 2), layout="constrained")
            figure.add_subplot().plot([1, 2])
            results.take(figure, pd.DataFrame(), **words).rendered(Stamp("e", "f"))
        assert all(text.get_window_extent().x1 <= figure.bbox.width for text in figure.texts)

    def test_letters_on_every_shade_can_be_read_on_both_pages(self):
        for place, (light, dark) in enumerate(zip(LIGHT_SHADES, DARK_SHADES, strict=True)):
            ink = ink_on((place + 0.5) / len(LIGHT_SHADES))
            assert contrast(light, ink) >= 4.5
            assert contrast(dark, DARK[ink]) >= 4.5

    def test_a_matrix_is_dark_on_a_dark_page(self, written):
        text = (written[1] / "figures" / "confusion.svg").read_text()
        rules, drawing = re.search(r"<style>(.*?)</style>(.*)", text, re.DOTALL).groups()
        assert LIGHT_SHADES[0] in drawing
        assert f"{{fill:{DARK_SHADES[0]}!important}}" in rules
        assert "<image" not in drawing  # of the colour bar, whose colours could not be exchanged

    @pytest.mark.parametrize(
        ("value", "text"), [(1e-5, "0.00001"), (0.3, "0.3"), (1.0, "1"), (2e4, "20,000"), (1234.5, "1,234.5")]
    )
    def test_no_number_has_an_exponent(self, value, text):
        assert plain(value) == text


class TestLooks:
    def test_every_strategy_has_its_own_look_and_keeps_it(self):
        looks = [look(name) for name in LEVEL]
        assert len({style.colour for style in looks}) == len({style.marker for style in looks}) == len(LEVEL)
        assert look("adapter") == look("adapter")

    @pytest.mark.parametrize("colour", [colour for colour, _, _ in (*LOOKS.values(), *SPARE)])
    def test_labels_read_on_white(self, colour):
        assert contrast(colour, "#ffffff") >= 4.5

    @pytest.mark.parametrize("colour", [dark for _, dark, _ in (*LOOKS.values(), *SPARE)])
    def test_labels_read_in_the_dark(self, colour):
        assert contrast(colour, DARK["#ffffff"]) >= 4.5

    def test_theme_does_not_depend_on_the_users_settings(self):
        def draw():
            from matplotlib.figure import Figure

            with theme():
                figure = Figure()
                figure.add_subplot().plot([1, 2])
                figure.savefig(buffer := io.BytesIO())
            return buffer.getvalue()

        plain = draw()
        with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
            assert draw() == plain


class TestSpread:
    @given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0.1, 2))
    def test_apart_inside_and_in_order(self, places, gap):
        moved = spread(places, gap, 0, 10)
        apart = min(gap, 10 / max(1, len(places) - 1))
        assert all(-1e-6 <= place <= 10 + 1e-6 for place in moved)
        ordered = [after for _, after in sorted(zip(places, moved, strict=True))]
        assert all(b - a >= apart - 1e-6 for a, b in pairwise(ordered))

    def test_what_has_room_stays(self):
        assert spread([1, 5, 9], 2, 0, 10) == [1, 5, 9]

    def test_two_in_the_same_place_part_evenly(self):
        assert spread([5, 5], 2, 0, 10) == [4, 6]


class TestStages:
    def test_who_did_not_start_from_the_pretrained_weights_is_named(self, monkeypatch):
        figures, evidence = catch(monkeypatch, stages), make_evidence(images=20)
        known = make_stages(evidence)
        elsewhere = known.assign(change=known["change"].where(known["strategy"] != "scratch"))
        with theme():
            pictures = [stages.moved(replace(evidence, stages=s)) for s in (known, elsewhere)]
        said = ["scratch did not start from the pretrained weights" in p.caption for p in pictures]
        assert said == [False, True]
        assert figures["stages"].axes[1].get_ylabel() == "CKA with the pretrained features"


class TestCost:
    def drawn(self, monkeypatch, **level):
        """Return the axes, and the picture, of a figure of costs."""
        figures = catch(monkeypatch, cost)
        with theme():
            picture = cost.cost(summarise(make_evidence(level=LEVEL | level, images=400)))
        return figures["cost"].axes[0], picture

    def test_who_is_far_behind_is_on_the_edge_and_does_not_set_the_scale(self, monkeypatch):
        axes, picture = self.drawn(monkeypatch, scratch=-2.0)
        scratch = picture.data.set_index("strategy").loc["scratch", "value"]
        assert axes.get_ylim()[0] > scratch + 0.15
        assert f"scratch {scratch:.3f}" in [text.get_text() for text in axes.texts]
        assert "On the lower edge" in picture.caption

    def test_nobody_is_on_the_edge_whom_the_axis_reaches(self):
        """Behind by more than `FAR`, but within the interval of one that is not."""
        summary = summarise(make_evidence(level=LEVEL | {"scratch": 0.0}, images=400))
        scratch = summary.result("scratch").test_mean
        assert max(result.test_mean for result in summary.results) - scratch > results.FAR
        assert results.far_behind(summary) == ["scratch"]
        wide = [
            replace(r, test=replace(r.test, low=scratch)) if r.strategy == "full" else r
            for r in summary.results
        ]
        assert results.far_behind(replace(summary, results=tuple(wide))) == []

    def test_where_lower_is_better_far_behind_is_above(self, monkeypatch):
        lower = replace(METRICS["accuracy"], direction="lower")
        monkeypatch.setitem(METRICS._records, "accuracy", lower)
        axes, picture = self.drawn(monkeypatch, scratch=-2.0)
        values = picture.data.set_index("strategy")["value"]
        assert axes.get_ylim()[1] < values["full"] - 0.15
        assert f"full {values['full']:.3f}" in [text.get_text() for text in axes.texts]
        assert "On the upper edge" in picture.caption
        assert picture.data.set_index("strategy")["on_front"].to_dict()["scratch"]

    def test_who_is_near_is_at_its_place(self, monkeypatch):
        axes, picture = self.drawn(monkeypatch, scratch=1.2)
        assert axes.get_ylim()[0] < picture.data["low"].min()
        assert "On the lower edge" not in picture.caption

    def test_the_line_of_the_front_is_named_where_there_is_one(self, monkeypatch):
        cheapest_best = dict.fromkeys(LEVEL, 0.0) | {"feature_extractor": 2.0}
        assert "Pareto" not in self.drawn(monkeypatch, **cheapest_best)[1].caption
        assert "Pareto" in self.drawn(monkeypatch, feature_extractor=0.5, full=2.0)[1].caption


class TestPareto:
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
    def test_is_what_no_other_point_beats(self, points):
        def beaten(one):
            return any(p[0] <= one[0] and p[1] >= one[1] and p != one for p in points)

        assert pareto(points) == sorted({p for p in points if not beaten(p)})
