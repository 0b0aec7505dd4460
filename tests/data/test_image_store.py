"""The store of decoded images: decoded once, checked, never half-written."""

import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import InputError
from bench.data import conversion, image_store
from bench.data.loading import load
from bench.data.sources.base import Source
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


def test_a_spoiled_entry_that_keeps_its_size_and_time_is_noticed(data, log):
    before = load(TARGET, data).digest
    pixels = entries()[0] / "images.u8"
    status = pixels.stat()
    spoil_a_pixel(entries()[0])
    os.utime(pixels, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(TARGET, data).digest == before
    assert decodings(log) == 2


def test_a_sound_file_is_summed_once_by_each_process(data, monkeypatch):
    load(TARGET, data)
    monkeypatch.setattr(image_store, "_crc32", lambda _: pytest.fail("summed again"))
    load(TARGET, data)


def forget_use() -> None:
    """Let go of all entries, as the end of the process that used them does."""
    for entry in list(image_store._in_use):
        image_store._release(entry)


def test_the_least_recently_used_entries_go_first_and_none_that_is_in_use(data, monkeypatch, caplog):
    sides = (28, 56, 84)  # stored at 32, 64 and 96: 0.18, 0.74 and 1.66 MB
    for side in sides[:2]:
        load(Target(data="unused", image_size=side), data)
    first, second = sorted(entries(), key=lambda entry: sum(f.stat().st_size for f in entry.iterdir()))
    monkeypatch.setenv("BENCH_IMAGES_GB", "0.002")
    load(Target(data="unused", image_size=84), data)
    assert len(entries()) == 3, "this process uses them"
    assert "in use" in caplog.text
    forget_use()
    load(TARGET, data)  # the first becomes the one used last
    forget_use()
    load(Target(data="unused", image_size=42), data)  # 0.41 MB
    assert first.is_dir()
    assert not second.is_dir()
    assert sum(image_store.sizes().values()) < 2e6 + 20_000  # what is no pixel is not counted before


def test_clearing_keeps_what_is_in_use(data):
    load(TARGET, data)
    used = image_store.sizes()
    assert image_store.clear() == 0
    forget_use()
    assert image_store.clear() == sum(used.values()) > 60 * 32 * 32 * 3
    assert image_store.sizes() == {}


def test_a_limit_that_is_no_number_is_one_clear_line(data, monkeypatch):
    monkeypatch.setenv("BENCH_IMAGES_GB", "much")
    with pytest.raises(InputError, match="BENCH_IMAGES_GB: 'much' is not a number of gigabytes"):
        load(TARGET, data)


def test_a_source_that_cannot_be_read_is_named_and_not_the_store():
    def read():
        raise PermissionError(13, "Permission denied", "/photos/labels.csv")

    with pytest.raises(InputError, match=r"mine can't be read \(Permission denied\)") as caught:
        image_store.open_or_decode(Source("mine", "", "", lambda: "mine", read), 32)
    assert "labels.csv" in str(caught.value)
    assert "store" not in str(caught.value)


def test_decoding_uses_the_processors_of_the_container_and_not_those_of_its_host(data, monkeypatch):
    threads = []
    monkeypatch.setattr(conversion, "usable_cpus", lambda: 3)
    monkeypatch.setattr(
        conversion, "ThreadPoolExecutor", lambda n: threads.append(n) or ThreadPoolExecutor(n)
    )
    load(TARGET, data)
    assert threads == [3]


def test_others_may_read_what_the_umask_lets_them_read(data):
    before = os.umask(0o022)
    try:
        load(TARGET, data)
    finally:
        os.umask(before)
    for path in (entries()[0], *entries()[0].iterdir()):
        assert path.stat().st_mode & 0o044 == 0o044


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_two_users_share_a_cache():
    """The first decodes, another reads it, and adds to it: into folders that both may write to."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        share(folder)
    finally:
        shutil.rmtree(folder)


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


def share(folder: Path) -> None:
    os.chmod(folder, 0o755)  # noqa: PTH101
    (folder / "cache" / "images").mkdir(parents=True)
    for shared in (folder / "cache", folder / "cache" / "images"):
        shared.chmod(0o1777)
    for name in ("ants", "bees"):
        (folder / "data" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red" if name == "ants" else "blue").save(folder / "data" / name / "0.png")
    code = """
import os, sys, logging
from pathlib import Path
from PIL import Image
from bench.data import image_store, loading
from bench.data.tasks import classification
from bench.study.schema import Target
Image.init()  # imports, as the next line reads, what the other user may have no right to
pillow = image_store.version("pillow")
image_store.version = lambda _: pillow
os.umask(0o022)
os.setuid(int(sys.argv[2]))
os.environ.update(BENCH_CACHE=sys.argv[1] + "/cache", HOME="/nowhere")
logging.basicConfig(level=logging.INFO, format="%(message)s")
for side in map(int, sys.argv[3:]):
    print(loading.load(Target(data="unused", image_size=side), Path(sys.argv[1]) / "data").digest)
"""
    one = run_python(code, str(folder), "54321", "28")
    other = run_python(code, str(folder), "54322", "28", "56")
    again = run_python(code, str(folder), "54321", "56")
    assert one.returncode == other.returncode == again.returncode == 0, (
        one.stderr,
        other.stderr,
        again.stderr,
    )
    assert other.stdout.splitlines() == [*one.stdout.splitlines(), *again.stdout.splitlines()]
    assert [done.stderr.count("decoding") for done in (one, other, again)] == [1, 1, 0]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_loading_imports_no_torch(data):
    code = """
import sys
from pathlib import Path
from bench.core.errors import InputError
from bench.data import conversion, image_store
from bench.data.loading import load
from bench.data.sources.base import Source
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
from bench.core.errors import InputError
from bench.data import conversion, image_store
from bench.data.loading import load
from bench.data.sources.base import Source
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
