"""Groups: where they come from, and that no part shares one with another."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from bench.core.errors import InputError
from bench.data.dataset import TEST, TRAIN, UNASSIGNED, VAL, Dataset
from bench.data.groups import regroup, signs, signs_of_copies
from bench.data.loading import load
from bench.data.near_duplicates import alike
from bench.data.splits import split
from bench.study.schema import Target

PARTS = ("train", "val", "test")


def target(**values) -> Target:
    return Target(data="made", **values)


def made(labels, groups=None, parts=None, names=None, masks=None) -> Dataset:
    labels = np.asarray(labels, dtype=np.int64)
    dataset = Dataset(
        name="made",
        classes=tuple(f"class {label}" for label in range(labels.max() + 1)),
        images=np.zeros((len(labels), 2, 2, 3), dtype=np.uint8),
        labels=labels,
        parts=np.full(len(labels), UNASSIGNED, np.int8) if parts is None else np.asarray(parts, np.int8),
        names=tuple(names or map(str, range(len(labels)))),
        digest="d",
        masks=masks,
    )
    return dataset if groups is None else dataset.grouped([f"m{number:03}" for number in groups], "module")


@st.composite
def grouped(draw, fewest=1):
    """Data whose groups hold images of one or several classes; each class is in `fewest` groups or more."""
    classes = draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = random.integers(1, 12, draw(st.integers(classes * fewest, 40)))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    of_group = np.concatenate(
        [np.repeat(np.arange(classes), fewest), random.integers(0, classes, len(sizes))]
    )
    labels = of_group[groups]
    if draw(st.booleans()):  # of several classes, but for the first image of each
        mixed = np.diff(groups, prepend=-1) == 0
        labels = np.where(mixed, random.integers(0, classes, len(labels)), labels)
    order = random.permutation(len(labels))
    return made(labels[order], groups[order])


def groups_in(dataset, parts):
    return [set(dataset.groups[getattr(parts, part)].tolist()) for part in PARTS]


FRACTIONS = st.floats(0.05, 0.6)
SEEDS = st.integers(0, 2**32)


@given(grouped(fewest=1), FRACTIONS, FRACTIONS, SEEDS, SEEDS, st.data())
def test_no_group_is_in_two_parts(dataset, test_fraction, val_fraction, split_seed, seed, data):
    asked = target(test_fraction=test_fraction, val_fraction=val_fraction, split_seed=split_seed)
    try:
        whole = split(dataset, asked, seed)
    except InputError:
        assume(False)
    train, val, test = groups_in(dataset, whole)
    assert not train & val
    assert not (train | val) & test
    again = split(dataset, asked, seed + 1)
    assert (again.val.tolist(), again.test.tolist()) == (whole.val.tolist(), whole.test.tolist())
    fewer = data.draw(st.integers(len(dataset.classes), len(whole.train)))
    limited = split(dataset, asked.model_copy(update={"train_labels": fewer, "test_labels": 5}), seed)
    assert len(limited.train) == fewer
    assert set(limited.train) <= set(whole.train)
    assert set(limited.test) <= set(whole.test)


@given(grouped(fewest=6), SEEDS)
def test_classes_in_six_groups_or_more_are_in_every_part(dataset, split_seed):
    parts = split(dataset, target(split_seed=split_seed), 1)
    for part in PARTS:
        assert not dataset.missing_classes(getattr(parts, part))


@given(st.integers(1, 5), st.integers(40, 120), st.integers(1, 20), FRACTIONS, FRACTIONS, SEEDS)
def test_equal_groups_of_one_class_each_are_shared_out_as_asked(classes, count, size, of_test, of_val, seed):
    """Each part has a first group of a class before any has a second, and then what its share is."""
    groups = np.repeat(np.arange(classes * count), size)
    dataset = made(groups % classes, groups)
    parts = split(dataset, target(test_fraction=of_test, val_fraction=of_val, split_seed=seed), 1)
    shares = {"test": of_test, "val": of_val * (1 - of_test)}
    assume(shares["val"] < 1 - sum(shares.values()) - 4 / count)  # val is never larger than train
    for label in range(classes):
        for part, share in shares.items():
            found = (dataset.labels[getattr(parts, part)] == label).sum() / size
            assert abs(found - share * count) < 2


def test_another_split_seed_moves_groups():
    dataset = made(np.arange(200) % 2, np.arange(200) // 5)
    tests = [frozenset(groups_in(dataset, split(dataset, target(split_seed=s), 1))[2]) for s in range(8)]
    assert len(set(tests)) == 8


def test_without_groups_nothing_changes():
    labels = np.arange(100) % 3
    alone = made(labels, np.arange(100)).ungrouped()
    assert split(alone, target(), 1).hash == split(made(labels), target(), 1).hash


def test_a_class_in_too_few_groups_is_named():
    groups = np.arange(60) // 5
    labels = np.where(groups < 2, 1, 0)
    with pytest.raises(InputError, match=r"the class 'class 1' is missing from \w+: each module goes to one"):
        split(made(labels, groups), target(), 1)


def test_too_few_groups_are_counted():
    masks = np.zeros((30, 2, 2), np.uint8)  # where no class can be missing
    with pytest.raises(InputError, match="2 modules can't be shared out among 3 parts"):
        split(made([0] * 30, np.arange(30) // 15, masks=masks), target(), 1)
    enough = made([0] * 30, np.arange(30) // 10, masks=masks)
    assert [len(found) for found in groups_in(enough, split(enough, target(), 1))] == [1, 1, 1]


def test_given_parts_are_kept_and_val_is_cut_by_group():
    groups = np.arange(80) // 4
    dataset = made(np.arange(80) % 2, groups, np.where(groups < 15, TRAIN, TEST))
    train, val, test = groups_in(dataset, split(dataset, target(), 1))
    assert test == {15, 16, 17, 18, 19}
    assert train | val == set(range(15))
    assert not train & val
    assert len(val) == 3


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([TRAIN, TEST, TEST, TEST, VAL, VAL], "the module 'm000' is in both train and test; keep"),
        ([UNASSIGNED, TEST, VAL, TEST, TRAIN, TRAIN], "the module 'm000' is in both train and test; keep"),
        (
            [TRAIN, VAL, TEST, TRAIN, VAL, VAL],
            "the module 'm000' .one of 2 such. is in both train and val; keep",
        ),
        ([TRAIN, TRAIN, VAL, TEST, TEST, TEST], "the module 'm001' is in both val and test; keep"),
    ],
)
def test_a_group_that_crosses_given_parts_is_named(parts, said):
    dataset = made([0] * 6, [0, 0, 1, 1, 2, 2], parts)
    with pytest.raises(InputError, match=said):
        split(dataset, target(), 1)
    looks_alike = replace(dataset, group_kind="set of near-duplicates")
    assert len(split(looks_alike, target(), 1).test)  # what is only found is a note of the report


# --- where they come from ---


def write_images(folder, count, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([seed, *str(folder.name).encode()])
    for number in range(count):
        pixels = draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}_{number}.png")


def names_by_group(dataset):
    found = {}
    for name, group in zip(dataset.names, dataset.groups_of(np.arange(len(dataset.names))), strict=True):
        found.setdefault(group, []).append(name)
    return found


class TestFolders:
    @pytest.mark.parametrize("part", ["", "train"])
    def test_a_group_is_the_outermost_folder_in_its_class(self, tmp_path, part):
        for place in ("ants/one", "ants/two/left", "ants/two/right", "bees/two", "bees/three"):
            write_images(tmp_path / part / place, 2)
        dataset = load(target(image_size=16, groups="folder"), tmp_path)
        assert {group: len(names) for group, names in names_by_group(dataset).items()} == {
            "one": 2,
            "two": 6,  # of the same name: taken to be the same, which leaks nothing
            "three": 2,
        }
        assert dataset.group_kind == "folder"

    def test_an_image_in_no_folder_is_named(self, tmp_path):
        for place in ("ants/one", "ants", "bees/two"):
            write_images(tmp_path / place, 1)
        with pytest.raises(
            InputError, match=r"target.groups: ants/0_0.png lies in no folder within its class"
        ):
            load(target(image_size=16, groups="folder"), tmp_path)

    def test_only_where_they_are_asked_for(self, tmp_path):
        for place in ("ants/one", "bees/two"):
            write_images(tmp_path / place, 2)
        assert load(target(image_size=16), tmp_path).groups is None


class TestPatterns:
    names = ("a/p1_01.png", "a/p1_02.png", "b/p2_01.png", "b/p1_03.png")

    def test_a_group_is_what_the_parentheses_find(self):
        dataset = regroup(made([0, 0, 1, 1], names=self.names), target(group_pattern=r"/(\w+)_"))
        assert names_by_group(dataset) == {"p1": [*self.names[:2], self.names[3]], "p2": [self.names[2]]}
        assert dataset.digest != "d"

    def test_a_name_in_which_it_finds_nothing_is_given(self):
        with pytest.raises(
            InputError, match=r"target.group_pattern: it finds nothing in the name b/p2_01.png"
        ):
            regroup(made([0, 0, 1, 1], names=self.names), target(group_pattern="(p1)"))

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"group_pattern": "(a"}, "not a regular expression"),
            ({"group_pattern": "a"}, "one pair of parentheses, around what is the group; it has 0"),
            ({"group_pattern": "(a)(b)"}, "it has 2"),
            ({"group_pattern": "(a)", "groups": "folder"}, "give one"),
        ],
    )
    def test_a_mistake_is_found_in_the_study(self, values, said):
        with pytest.raises(ValidationError, match=said):
            target(**values)


class TestLooks:
    def pictures(self, count=12):
        draw = np.random.default_rng(0)
        small = draw.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
        return np.stack([np.asarray(Image.fromarray(s).resize((32, 32))) for s in small])

    def test_those_that_look_alike_have_the_same_first(self):
        images = np.concatenate([self.pictures(), self.pictures()[[3, 5]], self.pictures()[[3]]])
        assert alike(images).tolist() == [*range(12), 3, 5, 3]

    def test_it_is_passed_on(self):
        """A fade from one picture to another: neighbours look alike, the ends don't."""
        first, last = self.pictures(2).astype(float)
        fade = np.stack([first + (last - first) * step for step in np.linspace(0, 1, 40)]).astype(np.uint8)
        assert set(alike(fade).tolist()) == {0}
        assert alike(fade[[0, -1]]).tolist() == [0, 1]

    def test_more_than_a_chunk_of_the_same(self):
        assert set(alike(np.zeros((600, 16, 16, 3), np.uint8)).tolist()) == {0}

    def test_they_become_groups(self):
        images = np.concatenate([self.pictures(), self.pictures()[:4]])
        dataset = replace(made(np.arange(16) % 2), images=images)
        found = regroup(dataset, target(groups="near_duplicates"))
        assert found.groups.tolist() == [*found.groups[:12].tolist(), *found.groups[:4].tolist()]
        assert len(found.group_names) == 12
        assert (
            regroup(replace(dataset, images=self.pictures(16)), target(groups="near_duplicates")).groups
            is None
        )


class TestTables:
    def folder(self, path, columns=("label", "group")):
        rows = []
        for number in range(24):
            name, label = f"images/{number:02}.png", "ants" if number % 2 else "bees"
            row = {
                "label": label,
                "group": f"nest {number // 4}",
                "split": ("train", "test")[number // 4 % 2],
            }
            rows.append({"file_name": name, **{column: row[column] for column in columns}})
            (path / "images").mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name)
        pd.DataFrame(rows).to_csv(path / "metadata.csv", index=False)
        return path

    def test_classes_groups_and_parts_are_those_of_the_columns(self, tmp_path):
        dataset = load(target(image_size=16), self.folder(tmp_path, ("label", "group", "split")))
        assert dataset.classes == ("ants", "bees")
        assert dataset.labels.tolist() == [1, 0] * 12
        assert [len(names) for names in names_by_group(dataset).values()] == [4] * 6
        assert set(dataset.parts.tolist()) == {TRAIN, TEST}
        assert not dataset.rejected

    def test_a_table_by_itself_is_the_same(self, tmp_path):
        folder = self.folder(tmp_path)
        whole = load(target(image_size=16), folder)
        (folder / "metadata.csv").rename(folder / "mine.csv")
        assert load(target(image_size=16), folder / "mine.csv").digest == whole.digest
        assert load(Target(data=str(folder / "mine.csv"), image_size=16)).digest == whole.digest

    def test_groups_are_part_of_the_digest_and_can_be_left_alone(self, tmp_path):
        grouped_, without = self.folder(tmp_path / "a"), self.folder(tmp_path / "b", ("label",))
        digests = {
            load(target(image_size=16), grouped_).digest,
            load(target(image_size=16), without).digest,
            load(target(image_size=16, groups="none"), grouped_).digest,
        }
        assert len(digests) == 3
        assert load(target(image_size=16, groups="none"), grouped_).groups is None

    def test_an_image_whose_group_is_empty_stands_for_itself(self, tmp_path):
        folder = self.folder(tmp_path)
        table = pd.read_csv(folder / "metadata.csv")
        table.loc[table.index < 4, "group"] = ""
        table.to_csv(folder / "metadata.csv", index=False)
        assert len(load(target(image_size=16), folder).group_names) == 4 + 5

    def test_class_folders_may_have_a_table_of_groups(self, tmp_path):
        for name in ("ants", "bees"):
            write_images(tmp_path / name, 3)
        rows = "".join(f"{name}/0_{n}.png,nest {n}\n" for name in ("ants", "bees") for n in range(2))
        (tmp_path / "metadata.csv").write_text(f"file_name,group\n{rows}")
        dataset = load(target(image_size=16), tmp_path)
        assert (dataset.classes, dataset.group_names) == (("ants", "bees"), ("nest 0", "nest 1"))
        assert [(r.name, r.reason) for r in dataset.rejected] == [
            ("ants/0_2.png", "is not in metadata.csv"),
            ("bees/0_2.png", "is not in metadata.csv"),
        ]

    def test_a_table_that_says_neither_label_nor_group_is_none(self, tmp_path):
        for name in ("ants", "bees"):
            write_images(tmp_path / name, 2)
        before = load(target(image_size=16), tmp_path).digest
        (tmp_path / "metadata.csv").write_text("file_name,licence\nants/0_0.png,CC0\n")
        assert load(target(image_size=16), tmp_path).digest == before

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ("../x.png,ants", "lies outside of the folder"),
            ("gone.png,ants", "is not there"),
            ("images/00.png,ants\nimages/00.png,ants", "is listed twice"),
            ("images/00.png,", "has no label"),
            (f"{'x' * 5000}.png,ants", "can't be followed"),
            ("a\0b.png,ants", "can't be followed"),
        ],
    )
    def test_what_can_not_be_used_is_named(self, tmp_path, rows, reason):
        folder = self.folder(tmp_path)
        good = "images/01.png,ants\nimages/02.png,bees\n"
        (folder / "mine.csv").write_text(f"file_name,label\n{good}{rows}\n")
        Image.new("RGB", (8, 8)).save(tmp_path.parent / "x.png")
        assert reason in {r.reason for r in load(target(image_size=16), folder / "mine.csv").rejected}

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("file_name,split,label\nimages/00.png,dev,ants\n", "unknown split 'dev'"),
            ("name,label\nimages/00.png,ants\n", "has the columns name, label; give the columns file_name"),
            ("file_name,label\ngone.png,ants\n", r"no usable images \(gone.png: is not there\)"),
            ("file_name,label\nimages/00.png,ants\n", "there is only one class, 'ants'"),
            ("", "has the columns none"),
        ],
    )
    def test_unusable_tables_are_explained(self, tmp_path, table, message):
        folder = self.folder(tmp_path)
        (folder / "mine.csv").write_text(table)
        with pytest.raises(InputError, match=message):
            load(target(image_size=16), folder / "mine.csv")


# --- signs of groups ---


class TestSigns:
    def test_series_of_names(self):
        names = [f"images/drive{drive}_{frame:04}.png" for drive in "abcdef" for frame in range(50)]
        found = signs(made([0] * 300, names=names), target())
        assert found.startswith("the names of images form 6 series, of which 'drivea_' has 50; if those of")

    def test_folders(self):
        names = [
            f"{name}/{person}/{n}.png" for name in ("class 0", "class 1") for person in "xyz" for n in "12"
        ]
        assert "folders within their class" in signs(made([0] * 6 + [1] * 6, names=names), target())

    @pytest.mark.parametrize(
        "names",
        [
            [f"class {n % 2}/{n:04}.png" for n in range(100)],
            [f"class {n % 2}/cat.{n}.png" for n in range(100)],
            [f"class {n % 2}/{('cat', 'dog')[n % 2]}_{n}.png" for n in range(100)],
            [f"class {n % 2}/{('train', 'test')[n % 3 > 1]}_{'cd'[n % 2]}{n}.png" for n in range(100)],
            [f"class {n % 2}/{n * 7919:x}_{n * 104729:x}.png" for n in range(100)],
        ],
    )
    def test_ordinary_names_are_none(self, names):
        assert signs(made(np.arange(100) % 2, names=names), target()) == ""

    def test_what_is_settled_is_no_sign(self):
        names = [f"p{n // 5}_{n}.png" for n in range(100)]
        assert signs(made(np.arange(100) % 2, names=names), target())
        assert signs(made(np.arange(100) % 2, names=names), target(groups="none")) == ""
        assert signs(made(np.arange(100) % 2, np.arange(100) // 5, names=names), target()) == ""

    def test_many_copies(self):
        dataset = made(np.arange(100) % 2)
        assert signs_of_copies(dataset, target(), 9, 100).startswith("9 of 100 test images have a near-dup")
        assert signs_of_copies(dataset, target(), 4, 100) == ""
        assigned = made(np.arange(100) % 2, parts=np.arange(100) % 3)
        assert signs_of_copies(assigned, target(), 50, 100) == ""
