"""A tiny real study: three classes of stripes, and a small model with weights in a file."""

import numpy as np
import yaml
from PIL import Image


def write_tiny_study(folder, **changes):
    """Write `tiny.yaml` and what it reads to a folder, from where it is to be run; return the file."""
    import timm
    import torch

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
        "tuning": {"trials": 3},
        "seeds": 2,
    }
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(study | changes))
    return file
