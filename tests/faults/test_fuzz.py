"""What strangers write, made up by a fuzzer: an error of ours, or nothing."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from bench.study.loading import available

pytest.importorskip("atheris", reason="atheris is not installed: nothing is fuzzed")
pytestmark = pytest.mark.slow

RUNS = 20_000
FUZZ = Path(__file__).parents[1] / "support" / "fuzz.py"


def studies():
    return [path.read_bytes() for path in available().values()]


def pictures():
    for name in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"):
        file = BytesIO()
        Image.new("RGB", (9, 7), (200, 100, 50)).save(file, name)
        yield file.getvalue()


@pytest.mark.parametrize("made_of", [studies, pictures])
def test_nothing_made_up_is_more_than_refused(made_of, tmp_path):
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, content in enumerate(made_of()):
        (seeds / str(number)).write_bytes(content)
    target = {studies: "study", pictures: "picture"}[made_of]
    limits = [f"-runs={RUNS}", "-timeout=20", "-rss_limit_mb=3000", "-seed=1", "-max_len=4000"]
    command = [sys.executable, str(FUZZ), target, f"-artifact_prefix={tmp_path}/", *limits, str(seeds)]
    # Linux counts the parent's peak memory as the child's, and a process of pytest grows.
    between = ["sh", "-c", '"$@"; exit $?', "sh"]
    done = subprocess.run([*between, *command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
