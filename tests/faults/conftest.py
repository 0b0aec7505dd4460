"""A tiny real study, three classes of stripes and a small model with weights in a file; a small real disk."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.tiny_bench import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    import timm
    import torch

    folder = tmp_path_factory.mktemp("a tiny study")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[:, (number % 4) :: 4, label] += 60
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), folder / "weights.pth")
    study = {
        "question": "Which stripes?",
        "source": {"model": "timm/test_efficientnet", "weights": "weights.pth"},
        "target": {"data": "images", "image_size": 32},
        "strategies": ["full", "feature_extractor", "linear_probe"],
        "training": {"epochs": 6, "batch_size": 4, "precision": "fp32"},  # not what is faster at the moment
        "tuning": {"trials": 5},
        "seeds": 3,
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study))
    return Bench(folder)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of its own, and a function that mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder, lambda how: subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)
    subprocess.run(["umount", "-l", folder], check=True)
