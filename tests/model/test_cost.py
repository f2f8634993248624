"""The paper preset lands on the figures of DESIGN.md."""

from __future__ import annotations

import pytest
from model_helpers import small_recognizer, small_settings

from htr_ray.config import PRESETS, ModelSettings
from htr_ray.model.cost import Part, cost
from htr_ray.model.encoder import Encoder

PAPER = ModelSettings(**PRESETS["paper"].get("model", {}))


@pytest.mark.parametrize(
    ("height", "width", "gflops"),
    [(32, 100, "10.1"), (64, 100, "20.2"), (32, 200, "19.9"), (64, 200, "39.8")],
)
def test_convolution_of_the_paper_preset(height: int, width: int, gflops: str) -> None:
    found = cost(PAPER, "convolution", height, width)
    assert found.parameters == 44_263_904
    assert f"{found.gflops:.1f}" == gflops


def test_paper_preset_with_ctc_is_the_papers_20_4_gflops() -> None:
    assert f"{cost(PAPER, 'ctc', 64, 100).gflops:.1f}" == "20.4"


@pytest.mark.parametrize("preset", ["small", "tiny"])
def test_smaller_presets_are_the_same_network_narrower_and_shallower(preset: str) -> None:
    small = Encoder(ModelSettings(**PRESETS[preset]["model"]))
    paper = Encoder(PAPER.model_copy(update={"blocks": small.settings.blocks}))
    ours, papers = small.resnet.state_dict(), paper.resnet.state_dict()
    assert ours.keys() == papers.keys()
    for key, value in ours.items():
        if value.dim() and key != "stem.0.conv.weight":
            wide = [size * 512 // small.settings.channels if i < 2 else size for i, size in enumerate(value.shape)]
            assert wide == list(papers[key].shape), key


@pytest.mark.parametrize("part", ["ctc", "transformer"])
def test_parameters_are_those_of_the_real_model(part: Part) -> None:
    recognizer = small_recognizer(part)  # type: ignore[arg-type]
    counted = cost(small_settings(), part, 32, 64, classes=len(recognizer.alphabet))
    assert counted.parameters == sum(p.numel() for p in recognizer.parameters())
    assert counted.gflops > cost(small_settings(), "encoder", 32, 64).gflops
