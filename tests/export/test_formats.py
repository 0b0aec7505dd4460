"""Each form of a model answers as the model does, whatever its task, and what doesn't is never written."""

import dataclasses
import importlib.util
import stat

import numpy as np
import pytest
import torch

from bench.core.errors import InputError
from bench.export import exporting
from bench.export.exported import FACTS, is_export, load
from bench.export.exporting import TOLERANCE, check_folder
from bench.export.formats import FORMATS, formats_named
from tests.export.test_served_model import HEADS, model_for


@pytest.fixture(params=HEADS)
def model(request):
    return model_for(request.param, temperature=0.7)


@pytest.mark.parametrize("name", FORMATS)
def test_its_answers_are_the_models_for_one_image_and_for_several(name, model, tmp_path):
    form = FORMATS[name]
    if any(importlib.util.find_spec(package) is None for package in form.needs):
        pytest.skip(f"needs {', '.join(form.needs)}")
    if name != "safetensors" and model.facts.task == "multilabel":
        pytest.skip("the same graph as classification but for its end")
    file = tmp_path / form.file
    form.write(model, file)
    answers, side = form.read(file, model.facts), model.facts.side
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    assert np.abs(answers(images) - expected).max() < TOLERANCE
    assert np.abs(answers(images[:1]) - expected[:1]).max() < TOLERANCE
    assert file.stat().st_mode & stat.S_IRUSR


def test_what_answers_otherwise_is_refused(tmp_path):
    model = model_for("classification")
    images = np.zeros((2, model.facts.side, model.facts.side, 3), np.uint8)
    safetensors = FORMATS["safetensors"]

    def of_another_model(file, facts):
        return safetensors.read(file, facts.model_copy(update={"temperature": 3.0}))

    broken = dataclasses.replace(safetensors, read=of_another_model)
    with pytest.raises(
        InputError, match=r"the format safetensors: its probabilities differ from the run's by"
    ):
        exporting._write(model, broken, tmp_path, images)
    written = exporting._write(model, safetensors, tmp_path, images)
    assert written.difference == 0
    assert 0 < written.median <= written.slow


def test_an_export_is_loaded_from_its_files_alone(tmp_path):
    model = model_for("classification")
    FORMATS["safetensors"].write(model, tmp_path / "model.safetensors")
    assert not is_export(tmp_path)
    (tmp_path / FACTS).write_text(model.facts.model_dump_json())
    images = torch.zeros(2, model.facts.side, model.facts.side, 3, dtype=torch.uint8)
    with torch.inference_mode():
        for path in (tmp_path, tmp_path / "model.safetensors"):
            assert is_export(path)
            assert torch.equal(load(path)(images), model(images))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model.safetensors: is damaged"):
        load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors: can't be read"):
        load(tmp_path)


def test_a_folder_that_is_no_export_is_left_alone(tmp_path):
    check_folder(tmp_path / "new")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="no exported model"):
        check_folder(tmp_path)


def test_safetensors_are_always_among_the_formats_and_a_wrong_name_is_answered():
    assert [form.name for form in formats_named("torch, torch")] == ["safetensors", "torch"]
    with pytest.raises(InputError, match=r"--format: unknown format 'onx'; did you mean 'onnx'\?"):
        formats_named("onx")
    missing = dataclasses.replace(FORMATS["onnx"], needs=("no_such_package",))
    with pytest.raises(InputError, match=r"needs no_such_package; pip install 'transfer-bench\[onnx\]'"):
        missing.check_installed()
