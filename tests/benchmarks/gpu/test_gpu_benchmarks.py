"""What is to be trained on a card is what is meant; it trains on a CPU, too."""

from __future__ import annotations

import pytest
import torch
from converge import PEER, settings_of, share_of, table
from laia_network import FRAME, LaiaEncoder, build

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.train.finetune import RecognizerLearner
from htr_ray.train.job import finetune_job


def test_network_of_pylaia() -> None:
    encoder = LaiaEncoder()
    # 16,368 of the convolutions and 4,730,880 of the BiLSTM: what pylaia-htr-create-model made, less its last layer.
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4_747_248
    encoder.eval()
    images = torch.randint(0, 256, (2, 1, 128, 160), dtype=torch.uint8)
    images[1, ..., 100:] = 255
    features, frames = encoder(images, torch.tensor([160, 100]))
    assert features.shape == (2, 160 // FRAME, encoder.dim) and frames.tolist() == [20, 12]
    assert not features[1, 12:].any()


def test_pylaia_learns_in_our_harness() -> None:
    settings, pretext = settings_of(PEER, 1.0, 1.0, 0, [])
    assert pretext == "none" and settings.finetune.max_minutes == 1.0 and settings.model.height == 128
    recognizer = build(finetune_job(settings, "", "", None), Alphabet("ab"))
    optimizer = torch.optim.AdamW(RecognizerLearner(recognizer).groups(1e-3))
    torch.manual_seed(0)
    batch = {
        "images": torch.randint(0, 256, (2, 1, 128, 64), dtype=torch.uint8),
        "widths": torch.tensor([64, 64]),
        "targets": torch.tensor([[1, 2], [2, 1]]),
        "lengths": torch.tensor([2, 2]),
    }
    losses = []
    for _ in range(8):
        loss = recognizer(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[4:]) < losses[0]
    assert len(recognizer.read(batch["images"], batch["widths"], 1)) == 2


def test_pretraining_takes_a_third() -> None:
    settings, pretext = settings_of("small-sorting", 9.0, 0.1, 3, ["finetune.batch_size=4"])
    assert pretext == "sorting" and (settings.seed, settings.label_fraction) == (3, 0.1)
    assert (settings.pretrain.max_minutes, settings.finetune.max_minutes) == (3.0, 6.0)
    assert settings.finetune.batch_size == 4 and settings.model.height == 32


@pytest.mark.parametrize("name", ["large", "small-colouring", "pylaia-sorting"])
def test_unknown_contender(name: str) -> None:
    with pytest.raises(SystemExit, match=f"{name}: not one of paper, small, tiny"):
        settings_of(name, 1.0, 1.0, 0, [])


@pytest.mark.parametrize(("cards", "runs"), [(1, 6), (2, 3), (8, 6), (4, 4), (3, 7)])
def test_all_runs_fit_on_the_cards_at_once(cards: int, runs: int) -> None:
    share = share_of(cards, runs)
    assert 0 < share <= 1 and cards * int(1 / share + 1e-9) >= runs


def test_table_tells_failures() -> None:
    row = {"contender": "small", "fraction": 0.1, "test_cer": 12.345, "test_wer": 40.0, "val_cer": 11.0}
    row |= {"best_epoch": 1, "curve": [[1.0, 50.0, 2.0], [2.5, 11.0, 1.0]], "minutes": 3.0}
    row |= {"lines_per_second": 100.4, "waiting_share": 0.012}
    shown = table([row, {"contender": "paper", "fraction": 1.0, "failed": "out of memory"}]).splitlines()
    assert shown[2] == "| small | 10 % | 12.35 | 40.00 | 11.00 | 2.5 of 3.0 | 100 | 1.2 |"
    assert "failed: out of memory" in shown[3]
