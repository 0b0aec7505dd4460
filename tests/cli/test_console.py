"""What is printed is fit for any terminal, and a stream that can't be written is a line, not a traceback."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.analysis.summary import summarise
from bench.cli import console, inspect
from bench.core.errors import InputError
from bench.core.text import printable
from bench.data.dataset import Dataset, Split
from bench.experiment import progress
from bench.report.tables import table
from bench.study.schema import Target
from tests.support.synthetic import make_evidence

CLOSED = {"stdout": ">&-", "stderr": "2>&-", "stdin": "<&-", "all three": "<&- >&- 2>&-"}


def shell(folder, command, **environment):
    """Run a command line with `bench` for the command, in a folder."""
    bench = f'"{sys.executable}" -m bench'
    return subprocess.run(
        ["bash", "-c", command.replace("bench", bench, 1)],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("redirection", CLOSED.values(), ids=CLOSED)
def test_a_closed_stream_discards_what_it_is_given(tmp_path, redirection):
    done = shell(tmp_path, f"bench list strategies {redirection}")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("scratch" in done.stdout) == (">&-" not in redirection.replace("2>&-", ""))
    assert not list(tmp_path.iterdir())


def test_a_complaint_that_nobody_can_read_leaves_with_its_status(tmp_path):
    for redirection in ("2>&-", "2>/dev/full"):
        assert shell(tmp_path, f"bench run --study nowhere.yaml {redirection}").returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_stdout_is_one_line(tmp_path):
    done = shell(tmp_path, "bench list strategies >/dev/full")
    assert (done.returncode, done.stderr) == (2, "bench: No space left on device: standard output\n")


def test_letters_that_a_terminal_lacks_are_escaped(tmp_path):
    (tmp_path / "studies").mkdir()
    study = "question: Käfer?\nsource: {model: timm/resnet18}\ntarget: {data: x}\n"
    (tmp_path / "studies" / "mine.yaml").write_text(study, encoding="utf-8")
    done = shell(tmp_path, "bench list studies mine", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["mine", r"K\xe4fer?"])


@pytest.mark.parametrize("sign", ["\x1b[2J", "\r", "\x9b2J", "\u202e", "\x07", "\nbench: forged", "\udce4"])
def test_a_name_can_neither_steer_a_terminal_nor_forge_a_line(capsys, sign):
    console.say(f"left out {sign}.png")
    console.complain(f"bench: {sign}")
    logging.getLogger("bench.test").handlers.clear()
    output = capsys.readouterr()
    for text in output:
        assert sign not in text
        assert text.count("\n") == 1
    assert printable("Käfer 数据 👩‍👩‍👧") == "Käfer 数据 👩‍👩‍👧"


def test_a_log_line_is_one_line_on_the_stderr_of_the_moment(capsys):
    handler = console._StderrHandler()
    handler.setFormatter(console._LineFormatter("%(message)s"))
    handler.handle(logging.makeLogRecord({"msg": "not %s", "args": ("kept\nbench: \x1b[31mdone",)}))
    assert capsys.readouterr().err == "not kept bench: \\x1b[31mdone\n"


def test_what_a_report_says_is_printed_and_not_read_as_markup(capsys, tmp_path):
    said = {
        "study": "[/b]",
        "table": {"headers": ["[red]", "b"], "rows": [["[/x]", "\x1b[2J"]]},
        "verdict": "[/]",
        "recommendation": {"sentence": "[bold]"},
        "notes": ["[red]"],
        "ruling": {"outcome": "[i]", "sentence": "[u]"},
    }
    console.conclude(said, tmp_path, "nowhere")
    shown = capsys.readouterr().out
    for text in ("[/b]", "[red]", "[/x]", r"\x1b[2J", "[/]", "[bold]", "[i]. [u]"):
        assert text in shown


@pytest.mark.parametrize(
    ("grouped", "said"),
    [
        (True, "  groups   by drive: 2 in train, 1 in val, 1 in test\n"),
        (
            False,
            "  groups   none are given, but the names of images form 8 series, of which 'a\\x1b_' has 3; if",
        ),
    ],
)
def test_an_announcement_names_everything(capsys, grouped, said):
    names = tuple(f"{'abcdefgh'[n // 3]}\x1b_{n}.png" for n in range(24))
    images, labels = np.zeros((24, 1, 1, 3), np.uint8), np.arange(24) % 2
    dataset = Dataset("d", ("a", "b"), images, labels, np.zeros(24, np.int8), names, "", origin="here")
    if grouped:
        dataset = dataset.grouped([str(number) for number in np.arange(24) // 6], "drive")
    study = SimpleNamespace(
        name="s", question="Why\x1b[2J?", strategies=["full"], target=Target(data="d"),
        looks=(2,), most_seeds=2, tuning=SimpleNamespace(trials=3), training=SimpleNamespace(),
        source=SimpleNamespace(model="timm/x"), metric="accuracy",
    )  # fmt: skip
    split = Split(np.arange(12), np.arange(12, 18), np.arange(18, 24))
    origin = SimpleNamespace(text="a file")
    console.announce(
        SimpleNamespace(
            study=study,
            dataset=dataset,
            splits={1: split},
            shortfalls=["few"],
            origin=origin,
            evaluations=(2, 4),
            also_test={},
        )
    )
    shown = capsys.readouterr().out
    assert r"s: Why\x1b[2J?" in shown
    assert "2 classes; train 12, val 6, test 6 images (here)" in shown
    assert "3 trials of at most 4 steps for each of 2 seeds of full" in shown
    assert said in shown


@pytest.mark.parametrize(("columns", "shown"), [(120, 7), (80, 4), (75, 3)])
def test_a_table_has_as_many_columns_as_there_is_room_for(monkeypatch, capsys, columns, shown):
    summary = summarise(make_evidence())
    headers, rows = table(summary)
    said = {"study": "s", "table": {"headers": headers, "rows": rows}, "verdict": "v", "notes": []}
    monkeypatch.setattr(console, "terminal_width", lambda: columns)
    console.conclude(said, Path("there"), "nowhere")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    named = [header for header in headers if any(header in line for line in lines)]
    assert len(named) == shown
    assert max(map(len, lines)) <= columns


def test_a_list_is_wrapped_for_a_terminal_alone(monkeypatch, capsys):
    for columns in (60, None):
        monkeypatch.setattr(console, "terminal_width", lambda columns=columns: columns)
        inspect.list_(inspect.Listing.strategies)
        lines = capsys.readouterr().out.splitlines()
        assert (max(map(len, lines)) <= 60) == (columns == 60)
        assert (len(lines) > len(inspect.LISTINGS[inspect.Listing.strategies]())) == (columns == 60)


SAID = {"study": "s", "verdict": "full is best.", "recommendation": {"sentence": "Use full."}, "table": {}}


@pytest.fixture
def voice(monkeypatch):
    monkeypatch.setattr(console, "_voice", console.Voice.full)
    return console.speak


@pytest.mark.parametrize(
    ("summary", "answer"), [(SAID, "Use full."), ({**SAID, "recommendation": None}, "full is best.")]
)
def test_quiet_prints_the_answer_and_nothing_else(voice, capsys, summary, answer):
    voice(console.Voice.quiet)
    console.say("loading")
    console.conclude(summary, Path("reports/s"), "nowhere")
    assert capsys.readouterr().out == f"{answer}\nreports/s/index.html\n"


def test_json_prints_what_the_report_says_in_a_line(voice, capsys):
    voice(console.Voice.json)
    console.say("loading")
    console.conclude(SAID, Path("reports/s"), "nowhere")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {**SAID, "report": "reports/s"}


def test_only_one_of_them(voice):
    voice(console.Voice.quiet)
    with pytest.raises(InputError, match="--quiet and --json both"):
        voice(console.Voice.json)


def test_a_view_that_is_not_shown_shows_only_complaints(capsys):
    view = progress.choose("accuracy", shown=False)
    view.say("full: seed 1/2")
    view.say("bench: a process died")
    assert capsys.readouterr().err == "bench: a process died\n"
