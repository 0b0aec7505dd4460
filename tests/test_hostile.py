"""What strangers write, study files and pictures, is refused with a clear line and never executed."""

import contextlib
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.data.conversion import _or_reason
from bench.data.decoding import open_image, to_square
from bench.data.tasks.classification import find_source
from bench.models.weights import _read
from bench.study.loading import load
from bench.study.schema import Head, Source

ROOT = Path(__file__).resolve().parent.parent
VALID = "question: q\nsource: {model: timm/resnet18}\ntarget: {data: x}\n"
NINE = "[" + ",".join("x" * 9) + "]"
BOMB = f"a: &a {NINE}\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.fixture
def study_file(tmp_path):
    return tmp_path / "study.yaml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{BOMB}question: *j\n", "aliases"),
        ("&a {question: *a}", "aliases"),
        ("!!python/object/apply:os.system ['touch pwned']", "tag"),
        ("[" * 100_000, "nested"),
        ("{a: " * 5_000, "nested"),
        ("x" * 1_000_000, "characters"),
        (f"{VALID}seeds: 1{'0' * 5000}", "digits"),
        (f"{VALID}seeds: 1000000000000", "seeds"),
        (f"{VALID}seeds: .inf", "seeds"),
        (f"{VALID}name: ../../escape", "name"),
        (f"{VALID}name: /etc/passwd", "name"),
        ("question: 2001-99-99", "month"),
        ("? [a]\n: b", "key"),
    ],
    ids=range(13),
)
def test_a_hostile_study_is_one_line(study_file, monkeypatch, text, says):
    monkeypatch.chdir(study_file.parent)
    study_file.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        load(str(study_file))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [path.name for path in study_file.parent.iterdir()] == ["study.yaml"]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.sampled_from(
    ["question", "source", "target", "seeds", "training", "model", "data", "strategies", "x"]
)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | LEAVES, inner, max_size=5)
)


@given(TREES | st.dictionaries(NAMES, TREES, max_size=8))
def test_any_values_are_a_study_or_an_input_error(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    with_input_error_only(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_study_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    with_input_error_only(path)


def with_input_error_only(path):
    with contextlib.suppress(InputError):
        load(str(path))


class Touch:
    """What a pickle would do when it is opened."""

    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("save", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickle_among_weights_or_checkpoints_is_not_executed(tmp_path, monkeypatch, save):
    from bench.training.checkpoints import CheckpointFile

    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "weights.pth", CheckpointFile("a")._path):
        path.parent.mkdir(exist_ok=True, parents=True)
        with path.open("wb") as file:
            save({"weight": Touch()}, file)
    with pytest.raises(InputError, match="not a file of weights"):
        _read(tmp_path / "weights.pth")
    assert CheckpointFile("a").load() is None
    assert not (tmp_path / "pwned").exists()


def _old_format_of_gigabytes(path):
    """A file as `torch.save` wrote it before 1.6: a storage's size stands in it before any of its bytes."""
    torch.save({"weight": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    small, large = pickle.dumps(3, protocol=2)[2:-1], pickle.dumps(800_000_000, protocol=2)[2:-1]
    content = path.read_bytes()
    start = content.index(b"cpu")
    path.write_bytes(content[:start] + content[start:].replace(small, large, 1))


def _deflated_zeros(path):
    torch.save({"weight": torch.zeros(50_000_000)}, path.with_suffix(".big"))
    with zipfile.ZipFile(path.with_suffix(".big")) as big, zipfile.ZipFile(path, "w") as deflated:
        for entry in big.infolist():
            deflated.writestr(entry.filename, big.read(entry), zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize("write", [_old_format_of_gigabytes, _deflated_zeros])
def test_a_small_file_of_weights_takes_little_memory(tmp_path, write, monkeypatch):
    path = tmp_path / "weights.pth"
    write(path)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(InputError, match=r"not a file of weights .* bytes that would become"):
        _read(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as before torch 1.6"])
def test_ordinary_weights_are_read_in_both_formats(tmp_path, zipped):
    base = torch.arange(12.0)
    state = {"a": base.view(3, 4), "b": base[2:5], "half": torch.ones(5, dtype=torch.float16)}
    torch.save(
        {"state_dict": state, "epoch": 10**12}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped
    )
    loaded = _read(tmp_path / "w.pth")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({0: torch.zeros(2)}, "holds no state dict"),
        ({"w": torch.eye(3).to_sparse()}, "the weights 'w' are sparse"),
        ({"w": torch.zeros(2, device="meta")}, "the weights 'w' are without values"),
        (
            {"w": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)},
            "the weights 'w' are quantised",
        ),
    ],
    ids=["integer keys", "sparse", "meta", "quantised"],
)
def test_weights_that_no_model_takes_are_named(tmp_path, state, says):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=says):
        _read(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as before torch 1.6"])
def test_a_pickle_among_downloaded_weights_is_not_executed(tmp_path, monkeypatch, zipped):
    from torchvision.models import DenseNet121_Weights, densenet121

    from bench.models.factory import _template, build

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    _template.cache_clear()
    cached = tmp_path / "hub" / "checkpoints" / Path(DenseNet121_Weights.DEFAULT.url).name
    cached.parent.mkdir(parents=True)
    source, state = Source(model="torchvision/densenet121"), densenet121().state_dict()
    torch.save(state, cached, _use_new_zipfile_serialization=zipped)
    model = build(source, Head(), 2, 32, "pretrained", 0)
    assert torch.equal(next(model.backbone.parameters()), next(iter(state.values())))
    _template.cache_clear()
    torch.save({**state, "more": Touch()}, cached, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="default weights of torchvision/densenet121"):
        build(source, Head(), 2, 32, "pretrained", 0)
    assert not (tmp_path / "pwned").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_in_place_of_a_batch_of_cifar_is_not_executed(tmp_path, monkeypatch, file):
    """All files of CIFAR are pickles; torchvision compares their MD5 with its own before it opens one."""
    from torchvision.datasets import CIFAR10

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "downloads" / "torchvision" / "CIFAR10" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    for name in [entry[0] for entry in CIFAR10.train_list + CIFAR10.test_list] + ["batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Touch() if name == file else {"data": [], "labels": []}))
    with pytest.raises(InputError, match="corrupted"):
        find_source("torchvision/CIFAR10").read()
    assert not (tmp_path / "pwned").exists()


@given(
    st.binary(max_size=200),
    st.sampled_from([b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", b"P6 ", b""]),
)
def test_any_bytes_are_a_picture_or_unreadable(content, start):
    def read():
        with open_image(start + content) as image:
            return to_square(image, 8)

    answer = _or_reason(read)
    assert isinstance(answer, str) or answer.shape == (8, 8, 3)


def test_the_container_is_not_root_and_publishes_nothing_to_the_world():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    stages = dockerfile.split("\nFROM ")[2:]
    assert len(stages) == 2
    assert all("USER 1000:1000" in stage for stage in stages)
    assert dockerfile.count("--constraint /tmp/constraints.txt") == 2
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    ports = [port for service in compose.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(service.get("privileged") for service in compose.values())
