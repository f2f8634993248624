"""Where training and reading work in bfloat16 by themselves."""

import pytest
import torch

from htr_ray.train.worker import autocast_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def processor(monkeypatch):
    """``processor(amx=..., avx512=...)``: one that multiplies bfloat16 with these and no other instructions."""

    def has(*, amx: bool, avx512: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)

    return has


@pytest.mark.parametrize(("amx", "avx512"), [(True, True), (True, False), (False, True)])
def test_auto_takes_bfloat16_where_a_cpu_multiplies_it(processor, amx, avx512):
    processor(amx=amx, avx512=avx512)
    assert autocast_dtype("auto", CPU) is torch.bfloat16


def test_auto_stays_with_float32_where_a_cpu_would_convert(processor):
    processor(amx=False, avx512=False)
    assert autocast_dtype("auto", CPU) is None


def test_auto_takes_bfloat16_on_gpus(processor):
    processor(amx=False, avx512=False)
    assert autocast_dtype("auto", GPU) is torch.bfloat16


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("fast", [True, False])
def test_what_is_asked_for_is_what_is_taken(processor, device, fast):
    processor(amx=fast, avx512=fast)
    assert autocast_dtype("bfloat16", device) is torch.bfloat16
    assert autocast_dtype("float32", device) is None


def test_torch_can_still_be_asked():
    """The names are not public: a torch that drops them would silently train CPUs at half the speed."""
    assert isinstance(torch.cpu._is_amx_tile_supported(), bool)
    assert isinstance(torch.cpu._is_avx512_bf16_supported(), bool)
