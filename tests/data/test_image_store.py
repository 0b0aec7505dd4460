"""The store of decoded images: decoded once, checked, never half-written."""

import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.loading import load
from bench.study.schema import Target
from bench.system import locations

TARGET = Target(data="unused", image_size=28)  # stored at 32


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path) -> Path:
    rng = np.random.default_rng(1)
    for name in ("ants", "bees", "wasps"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number:02d}.png")
    return tmp_path / "data"


def entries() -> list[Path]:
    return [path for path in (locations.cache() / "images").iterdir() if path.is_dir()]


def decodings(caplog) -> int:
    return sum(record.getMessage().startswith("decoding") for record in caplog.records)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="bench.data.image_store")
    return caplog


def test_the_second_load_opens_the_store(data, log):
    first, second = load(TARGET, data), load(TARGET, data)
    assert decodings(log) == 1
    assert first.digest == second.digest
    assert (first.images == second.images).all()
    assert first.images.shape == (60, 32, 32, 3)
    assert first.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert (first.names, first.classes, first.rejected) == (second.names, second.classes, second.rejected)


def test_images_are_read_only_and_mapped(data):
    images = load(TARGET, data).images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_a_changed_folder_is_decoded_again(data, log):
    before = load(TARGET, data)
    Image.new("RGB", (50, 50)).save(data / "ants" / "new.png")
    after = load(TARGET, data)
    assert decodings(log) == 2
    assert len(after.images) == len(before.images) + 1
    assert after.digest != before.digest


def test_another_image_size_is_another_entry(data):
    load(TARGET, data)
    assert load(Target(data="unused", image_size=56), data).images.shape[1] == 64
    assert len(entries()) == 2


def test_the_digest_covers_pixels_labels_classes_and_parts(data, tmp_path):
    digests = {load(TARGET, data).digest}
    (data / "ants" / "00.png").rename(data / "bees" / "20.png")
    digests.add(load(TARGET, data).digest)
    (data / "ants").rename(data / "aardvarks")
    digests.add(load(TARGET, data).digest)
    (tmp_path / "whole").mkdir()
    data.rename(tmp_path / "whole" / "train")
    unassigned = load(TARGET, tmp_path / "whole").digest
    assert unassigned in digests  # the same images, labels and parts at another place
    (tmp_path / "whole" / "test" / "bees").mkdir(parents=True)
    (tmp_path / "whole" / "train" / "bees" / "20.png").rename(tmp_path / "whole" / "test" / "bees" / "20.png")
    digests.add(load(TARGET, tmp_path / "whole").digest)
    assert len(digests) == 4


def spoil_a_pixel(entry: Path) -> None:
    content = bytearray((entry / "images.u8").read_bytes())
    content[1234] ^= 1
    (entry / "images.u8").write_bytes(content)


def cut_the_pixels(entry: Path) -> None:
    with (entry / "images.u8").open("r+b") as file:
        file.truncate(1000)


def remove_the_pixels(entry: Path) -> None:
    (entry / "images.u8").unlink()


def cut_the_meta(entry: Path) -> None:
    text = (entry / "meta.json").read_text()
    (entry / "meta.json").write_text(text[: len(text) // 2])


def change_a_label(entry: Path) -> None:
    text = (entry / "meta.json").read_text()
    (entry / "meta.json").write_text(text.replace('"labels":[0,', '"labels":[1,'))


DAMAGE = [spoil_a_pixel, cut_the_pixels, remove_the_pixels, cut_the_meta, change_a_label]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_noticed_and_decoded_again(data, log, damage):
    before = load(TARGET, data)
    digest, images = before.digest, np.array(before.images)
    damage(entries()[0])
    after = load(TARGET, data)
    assert decodings(log) == 2
    assert after.digest == digest
    assert (after.images == images).all()
    assert len(entries()) == 1


def test_a_touched_but_sound_entry_is_kept_and_checked_only_once(data, log):
    load(TARGET, data)
    pixels = entries()[0] / "images.u8"
    written = pixels.stat().st_mtime_ns
    os.utime(pixels)
    load(TARGET, data)
    assert decodings(log) == 1
    assert pixels.stat().st_mtime_ns == written


def test_what_a_killed_process_left_is_removed(data):
    load(TARGET, data)
    entry = entries()[0]
    remains = entry.with_name(f".{entry.name}.killed")
    entry.rename(remains)
    load(TARGET, data)
    assert entries() == [entry]


def load_and_count(folder: str) -> tuple[str, int]:
    """In a process of its own: the digest, and how often this process decoded."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("bench.data.image_store").addHandler(handler)
    logging.getLogger("bench.data.image_store").setLevel(logging.INFO)
    digest = load(TARGET, Path(folder)).digest
    return digest, sum(record.getMessage().startswith("decoding") for record in records)


def test_two_processes_decode_once(data):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        results = pool.map(load_and_count, [str(data)] * 2, chunksize=1)
    assert len({digest for digest, _ in results}) == 1
    assert sum(count for _, count in results) == 1
    assert len(entries()) == 1


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_loading_imports_no_torch(data):
    code = """
import sys
from pathlib import Path
from bench.data.loading import load
from bench.study.schema import Target
load(Target(data="unused", image_size=28), Path(sys.argv[1]))
heavy = {"torch", "torchvision", "mlflow", "sklearn", "skimage", "pandas"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = run_python(code, str(data))
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(data):
    code = """
import resource, sys
from pathlib import Path
from bench.data.loading import load
from bench.core.errors import InputError
from bench.study.schema import Target
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    load(Target(data="unused", image_size=28), Path(sys.argv[1]))
except InputError as error:
    sys.exit(str(error))
"""
    done = run_python(code, str(data))
    assert done.returncode == 1
    assert "the image store can't be written" in done.stderr
    assert "BENCH_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
    assert entries() == []


@pytest.mark.parametrize(
    ("sizes", "stored"),
    [
        ([(20, 20), (20, 20)], 20),  # all one small square size: kept
        ([(20, 20), (21, 21)], 32),  # found out after the first
        ([(20, 22), (20, 22)], 32),
        ([(50, 50), (50, 50)], 32),
        ([(32, 32), (32, 32)], 32),
    ],
)
def test_which_size_is_stored(tmp_path, sizes, stored):
    for name in ("a", "b"):
        (tmp_path / "sized" / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new("RGB", size).save(tmp_path / "sized" / name / f"{number}.png")
    assert load(TARGET, tmp_path / "sized").images.shape == (4, stored, stored, 3)
