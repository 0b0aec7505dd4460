"""Files that were left out take a few lines, however many they are."""

from bench.data.dataset import Rejected
from bench.data.left_out import SHOWN, summarise


def test_few_are_named_one_by_one():
    assert summarise([Rejected("a/b.gif", "not\na picture")]) == ["a/b.gif: not a picture"]
    assert summarise([]) == []


def test_many_are_counted_by_kind_and_the_first_are_named():
    rejected = [Rejected(f"a/{n}.xml", ".xml is no picture") for n in range(10_000)]
    rejected += [Rejected(f"a/{n}", "empty") for n in range(3)] + [Rejected("a/b.JPG", "can't be decoded")]
    lines = summarise(rejected)
    assert lines[:3] == [
        "10,000 .xml: .xml is no picture",
        "3 without a suffix: empty",
        "1 .jpg: can't be decoded",
    ]
    assert lines[3] == "the first: " + ", ".join(f"a/{n}.xml" for n in range(10))
    assert len(lines) == 4


def test_many_kinds_are_cut_off_and_none_is_lost_from_the_count():
    rejected = [Rejected(f"{n}.png", f"reason {n % 40}") for n in range(400)]
    lines = summarise(rejected)
    assert len(lines) == SHOWN + 2
    assert lines[SHOWN] == "300 of 30 other kinds"
