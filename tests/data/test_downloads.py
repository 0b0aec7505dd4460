"""Data sets that are downloaded, torchvision's and the Hugging Face hub's; here nothing is downloaded."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import InputError
from bench.data.dataset import TEST, TRAIN, UNASSIGNED
from bench.data.image_store import open_or_decode
from bench.data.loading import load
from bench.data.sources.base import Source
from bench.data.sources.huggingface import read_dataset
from bench.data.sources.torchvision import _SETS
from bench.study.schema import Target
from bench.system import locations
from bench.system.locations import MARK


def target(data, image_size=28) -> Target:
    return Target(data=data, image_size=image_size)


def write_images(folder: Path, suffix: str = ".png", count: int = 3) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(list(folder.name.encode()))
    for number in range(count):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"0_{number}{suffix}")


# --- torchvision ---


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def downloaded(class_name: str) -> Path:
    folder = locations.cache() / "downloads" / "torchvision" / class_name
    folder.mkdir(parents=True)
    return folder


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return header + values.astype(np.uint8).tobytes()


def test_torchvision_sets_with_a_train_flag(own_cache):
    raw = downloaded("MNIST") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (count, 28, 28))))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    dataset = load(target("torchvision/MNIST", 64))
    assert dataset.images.shape == (50, 28, 28, 3)
    assert dataset.classes[3] == "3 - three"
    assert dataset.labels.tolist() == [*(np.arange(30) % 10), *(np.arange(20) % 10)]
    assert dataset.parts.tolist() == [TRAIN] * 30 + [TEST] * 20
    assert dataset.names[30] == "test/000000"


def test_torchvision_sets_without_parts(own_cache):
    root = downloaded("EuroSAT")
    for name in ("Forest", "River"):
        write_images(root / "eurosat" / "2750" / name)
    dataset = load(target("torchvision/EuroSAT"))
    assert dataset.classes == ("Forest", "River")
    assert (dataset.parts == UNASSIGNED).all()


def test_torchvision_sets_with_a_split_argument(own_cache):
    root = downloaded("Food101") / "food-101"
    (root / "meta").mkdir(parents=True)
    for name in ("pizza", "sushi"):
        write_images(root / "images" / name, ".jpg", count=4)
    (root / "images" / "pizza" / "0_3.jpg").write_bytes(b"broken")
    for part, numbers in (("train", (0, 1)), ("test", (2, 3))):
        listing = {name: [f"{name}/0_{n}" for n in numbers] for name in ("pizza", "sushi")}
        (root / "meta" / f"{part}.json").write_text(json.dumps(listing))
    dataset = load(target("torchvision/Food101"))
    assert dataset.classes == ("pizza", "sushi")
    assert dataset.parts.tolist() == [TRAIN] * 4 + [TEST] * 3
    assert [r.name for r in dataset.rejected] == ["test/000001"]


def test_what_can_not_be_downloaded_is_one_clear_line_and_leaves_nothing(own_cache, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("CIFAR10", "DTD", "FER2013"):
        with pytest.raises(InputError, match=f"torchvision/{name}: can't be downloaded or read") as caught:
            load(target(f"torchvision/{name}"))
        assert "\n" not in str(caught.value)
    files = [path for path in own_cache.rglob("*") if path.is_file()]
    left = [path for path in files if path.suffix != ".lock" and path.name != MARK]
    assert left == []
    assert not (own_cache / "downloads" / "torchvision" / "CIFAR10").exists()


def test_every_torchvision_set_can_be_constructed_as_the_table_says():
    """The arguments in the table are those that the installed torchvision takes."""
    import torchvision.datasets

    for name, entry in _SETS.items():
        kind = getattr(torchvision.datasets, name)
        taken = {parameter for base in kind.__mro__ for parameter in signature(base.__init__).parameters}
        for arguments in entry.parts.values():
            assert {*arguments, *entry.more} <= taken, name


# --- Hugging Face ---


def test_without_the_package_the_remedy_is_named():
    if find_spec("datasets"):
        pytest.skip("the package datasets is installed")
    with pytest.raises(
        InputError, match=r"'datasets' is not installed; pip install 'transfer-bench\[huggingface\]'"
    ):
        load(target("huggingface/owner/name"))


def hugging_face_data(columns=("image", "label")):
    datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    features = datasets.Features(
        {
            columns[0]: datasets.Image(),
            columns[1]: datasets.ClassLabel(names=["ants", "bees"]),
            "more": datasets.Value("string"),
        }
    )
    rng = np.random.default_rng(0)

    def part(labels):
        images = [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in labels]
        rows = {columns[0]: images, columns[1]: labels, "more": ["x"] * len(labels)}
        return datasets.Dataset.from_dict(rows, features=features)

    return datasets.DatasetDict(
        {"train": part([0, 1, 0, 1]), "validation": part([1, 0]), "test": part([-1, -1]), "extra": part([0])}
    )


@pytest.mark.parametrize("columns", [("image", "label"), ("picture", "kind")])
def test_hugging_face_columns_and_splits(columns):
    raw = read_dataset(hugging_face_data(columns), "huggingface/made")
    dataset = open_or_decode(Source("made", "", "", lambda: f"made {columns}", lambda: raw), 32)
    assert dataset.classes == ("ants", "bees")
    assert dataset.images.shape == (6, 32, 32, 3)
    assert dataset.labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert dataset.parts.tolist() == [TRAIN] * 4 + [TEST] * 2  # test has no labels, so validation is held out
    assert dataset.names[4] == "validation/000000"


def test_a_hugging_face_set_without_classes_is_refused():
    data = hugging_face_data().remove_columns("label")
    with pytest.raises(InputError, match=r"has no ClassLabel column \(columns: image, more\)"):
        read_dataset(data, "huggingface/made")


def test_a_hugging_face_set_that_can_not_be_loaded():
    pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    code = """
import sys
from bench.data.loading import load
from bench.core.errors import InputError
from bench.study.schema import Target
try:
    load(Target(data="huggingface/no-one/nothing@v1"))
except InputError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 1
    assert "huggingface/no-one/nothing@v1: can't be loaded" in done.stderr
    assert "Traceback" not in done.stderr
