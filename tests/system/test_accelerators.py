"""GPUs as files of the system and the version of torch show them."""

import pytest

from bench.system import accelerators


@pytest.mark.parametrize(
    ("version", "kernel", "reason"),
    [
        ("2.15.0+cu130", "6.8.0-generic", ""),
        ("2.15.0+rocm7.0", "6.8.0-generic", "torch is built for ROCm"),
        ("2.15.0+cu130", "5.15.1-microsoft-standard-WSL2", "this is Windows' subsystem for Linux"),
    ],
)
def test_sharing(tmp_path, monkeypatch, version, kernel, reason):
    monkeypatch.setattr(accelerators.metadata, "version", lambda _name: version)
    file = tmp_path / "osrelease"
    file.write_text(kernel)
    assert accelerators.why_not_shared(file) == reason


@pytest.mark.parametrize(
    ("version", "device", "there"),
    [
        ("2.15.0+cu130", "nvidiactl", True),
        ("2.15.0+rocm7.0", "kfd", True),
        ("2.15.0+cpu", "dxg", False),
        ("2.15.0", "other", False),
    ],
)
def test_a_gpu_is_one_that_torch_could_use(tmp_path, monkeypatch, version, device, there):
    monkeypatch.setattr(accelerators.metadata, "version", lambda _name: version)
    (tmp_path / device).touch()
    assert accelerators.may_have_gpu(tmp_path) is there
