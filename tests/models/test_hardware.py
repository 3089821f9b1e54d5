"""Compute dtype and device by hardware."""

import subprocess
import sys

import pytest
import torch

from ftkit.errors import SettingsError
from ftkit.models import cache_dir, compute_dtype
from ftkit.models.hardware import pick_device


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_gpu_computes_in_bf16_where_it_is_native(monkeypatch, capability, expected):
    monkeypatch.setattr("ftkit.models.hardware.pick_device", lambda name: torch.device(name))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype("cuda:0") == expected


def test_a_cpu_computes_in_float32():
    assert compute_dtype("cpu") == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error():
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(SettingsError, match="use 'auto' or 'cpu'"):
        pick_device("cuda")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("FTKIT_CACHE")
    assert cache_dir().name == "ftkit"


def test_the_room_opens_without_torch():
    code = (
        "import sys, ftkit.models; ftkit.models.cache_dir();"
        "assert not {'torch', 'transformers', 'bitsandbytes'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
