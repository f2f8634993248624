"""Both stages from corpus to model, in this process; real stream, real corpus, a tiny network."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from train_helpers import PLAIN, changed_copy, damage, finetuning, into, losses, pretraining

from htr_ray import storage
from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus
from htr_ray.errors import UserError
from htr_ray.model.files import load_encoder, load_recognizer
from htr_ray.train import checkpoint, finetune, fit
from htr_ray.train.data import FinetuneData, open_data
from htr_ray.train.launch import run_here
from htr_ray.train.metrics import count_errors, grapheme_error_rate
from htr_ray.train.schedule import Clock
from htr_ray.train.worker import Worker

pytestmark = pytest.mark.usefixtures("ray_local")


class Interrupted(Exception):
    """Stands for a lost machine: nothing in the training knows it."""


@pytest.fixture(scope="module")
def pretrained(sample_corpus: str, ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished pre-training of two epochs."""
    folder = tmp_path_factory.mktemp("pretrained")
    run_here(pretraining(sample_corpus, folder, "pretrain.max_epochs=2"), into([]))
    return folder


def encoder_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_encoder(folder / "model").state_dict()


@pytest.mark.parametrize("decoder", ["ctc", "transformer"])
def test_finetune(sample_corpus: str, tmp_path: Path, decoder: str) -> None:
    reports: list[dict[str, Any]] = []
    job = finetuning(
        sample_corpus, tmp_path, f"decoder={decoder}", "finetune.max_epochs=3", "finetune.learning_rate=0.01"
    )
    result = run_here(job, into(reports))
    curve = losses(result)
    assert len(curve) == len(reports) == 3 and curve[2] < 0.9 * curve[0]
    assert [report["epoch"] for report in reports] == [0, 1, 2]
    assert reports[-1]["progress"] == 1.0
    assert result["stopped"] == "max_epochs" and result["unreadable"] == result["set_aside"] == []

    info = Corpus.open(sample_corpus).info
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    readings = json.loads((tmp_path / "readings.json").read_text())
    assert len(readings) == result["test_lines"] == info.counts["test"]["lines"]
    assert result["lines"] == info.counts["train"]["lines"]
    pairs = [(reading["truth"], reading["reading"]) for reading in readings]
    count = count_errors(pairs)
    assert result["test_cer"] == pytest.approx(count.cer) and result["test_wer"] == pytest.approx(count.wer)
    assert result["test_gcer"] == pytest.approx(grapheme_error_rate(pairs)) and result["val_gcer"] > 0
    assert not any("gcer" in name for report in reports for name in report), "counted at the end only"
    assert sum(reading["edits"] for reading in readings) == count.character_edits
    assert load_recognizer(tmp_path / "model").alphabet == Corpus.open(sample_corpus).alphabet
    assert checkpoint.newest(str(tmp_path)) is None, "a finished trial needs no checkpoint"


def test_saved_model_is_that_of_the_best_epoch(
    sample_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation is made to say that the first epoch was the best."""
    weights: list[dict[str, torch.Tensor]] = []
    real = finetune.RecognizerLearner.evaluate

    def evaluate(self: Any, batches: Any, worker: Any) -> dict[str, float]:
        figures = real(self, batches, worker)
        weights.append({name: value.clone() for name, value in self.module.state_dict().items()})
        return {**figures, "val_cer": 10.0 * len(weights)}

    monkeypatch.setattr(finetune.RecognizerLearner, "evaluate", evaluate)
    result = run_here(finetuning(sample_corpus, tmp_path, "finetune.max_epochs=2"), into([]))
    assert result["best_epoch"] == 0
    saved = load_recognizer(tmp_path / "model").state_dict()
    assert all(torch.equal(saved[name], weights[0][name]) for name in saved)
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in saved)


def test_few_labels(sample_corpus: str, tmp_path: Path) -> None:
    """A tenth of the labels, repeated until an epoch has its steps."""
    reports: list[dict[str, Any]] = []
    job = finetuning(
        sample_corpus, tmp_path, "label_fraction=0.1", "finetune.max_epochs=1", "finetune.min_steps_per_epoch=4"
    )
    result = run_here(job, into(reports))
    train = Corpus.open(sample_corpus).info.counts["train"]["lines"]
    assert abs(result["lines"] - train / 10) <= 1
    assert result["label_fraction"] == 0.1


def test_a_preview_that_fails_costs_no_result(
    sample_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("htr_ray.train.pretrain.preview", broken)
    job = pretraining(sample_corpus, tmp_path, "pretrain.max_epochs=1", pretext="flip")
    run_here(job, into([]))
    assert storage.read_json(storage.join(job.folder, "result.json"))["epochs"] == 1
    assert not storage.exists(storage.join(job.folder, "preview.json"))
    assert "could not be made, the encoder is complete without it (RuntimeError: out of memory)" in caplog.text


@pytest.mark.parametrize("pretext", ["rotation", "sorting"])
def test_pretrain(sample_corpus: str, tmp_path: Path, pretext: str) -> None:
    reports: list[dict[str, Any]] = []
    job = pretraining(sample_corpus, tmp_path, "pretrain.max_epochs=3", "pretrain.learning_rate=0.005", pretext=pretext)
    result = run_here(job, into(reports))
    curve = losses(result)
    assert len(curve) == 3 and curve[2] < curve[0]
    assert result["pretext"] == pretext and result["lines"] == Corpus.open(sample_corpus).info.counts["train"]["lines"]
    assert result["val_accuracy"] == max(entry["val_accuracy"] for entry in result["history"])
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    assert load_encoder(tmp_path / "model").settings == job.model
    assert all(0 < entry["system/process_memory_usage_megabytes"] < 1e5 for entry in result["history"])


def test_preview_shows_what_the_encoder_answered(sample_corpus: str, tmp_path: Path) -> None:
    run_here(pretraining(sample_corpus, tmp_path, "pretrain.max_epochs=1", pretext="sorting"), into([]))
    shown = json.loads((tmp_path / "preview.json").read_text())
    assert len(shown) == 10
    for line in shown:
        whole, view = (decode_grey(base64.b64decode(line[name])) for name in ("line", "view"))
        assert whole.shape[0] == view.shape[0] == 32
        answer, guess = (line[name].removeprefix("pieces ").split() for name in ("answer", "guess"))
        assert sorted(answer) == ["1", "2", "3", "4", "5"]
        assert line["right"] == pytest.approx(sum(a == g for a, g in zip(answer, guess, strict=True)) / 5)
    assert len({line["view"] for line in shown}) == 10


def test_pretrain_needs_no_labels(sample_corpus: str, tmp_path: Path) -> None:
    """Fine-tuning names what is missing, pre-training does not ask for it."""
    corpus = changed_copy(sample_corpus, tmp_path / "corpus", lambda split, number, row: {**row, "text": None})
    result = run_here(pretraining(corpus, tmp_path / "a", "pretrain.max_epochs=1"), into([]))
    assert result["epochs"] == 1
    with pytest.raises(UserError, match="no training line has a text"):
        run_here(finetuning(corpus, tmp_path / "b"), into([]))


# --- resuming ---------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["finetune", "pretrain"])
def test_resume(sample_corpus: str, tmp_path: Path, stage: str) -> None:
    """Interrupted after two epochs of four: epochs, weights, rates and random numbers go on as if nothing had been."""
    make = finetuning if stage == "finetune" else pretraining
    # Dropout and augmentation are on: their random numbers must be continued too.
    options = [f"{stage}.max_epochs=4", f"{stage}.checkpoint_minutes=0", "model.dropout=0.2"]
    whole = run_here(make(sample_corpus, tmp_path / "whole", *options), into([]))

    def interrupt(figures: dict[str, Any]) -> None:
        if figures["epoch"] == 2:  # the third epoch is done but not saved
            raise Interrupted

    first: list[dict[str, Any]] = []
    job = make(sample_corpus, tmp_path / "cut", *options)
    with pytest.raises(Interrupted):
        run_here(job, into(first, interrupt))
    assert [figures["epoch"] for figures in first] == [0, 1, 2]
    assert checkpoint.newest(job.folder) is not None and not (tmp_path / "cut" / "result.json").exists()

    torch.manual_seed(999)
    second: list[dict[str, Any]] = []
    result = run_here(job, into(second))
    assert [figures["epoch"] for figures in second] == [2, 3]
    assert [entry["epoch"] for entry in result["history"]] == [0, 1, 2, 3] and result["epochs"] == 4
    assert losses(result) == pytest.approx(losses(whole), rel=1e-5)
    assert [e["learning_rate"] for e in result["history"]] == pytest.approx(
        [e["learning_rate"] for e in whole["history"]]
    )
    assert second[-1]["seconds"] > second[0]["seconds"] > first[1]["seconds"], "time spent before counts"
    if stage == "finetune":
        assert result["test_cer"] == pytest.approx(whole["test_cer"], abs=1e-6)


def test_checkpoint_of_other_settings(sample_corpus: str, tmp_path: Path) -> None:
    def interrupt(figures: dict[str, Any]) -> None:
        if figures["epoch"] == 1:
            raise Interrupted

    options = ["finetune.max_epochs=3", "finetune.checkpoint_minutes=0"]
    with pytest.raises(Interrupted):
        run_here(finetuning(sample_corpus, tmp_path, *options), into([], interrupt))
    with pytest.raises(UserError, match="does not fit these settings"):
        run_here(finetuning(sample_corpus, tmp_path, *options, "model.lstm_hidden=8"), into([]))


# --- encoders ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "taken", "whole"),
    [("semi_supervised", "resnet", False), ("semi_supervised", "encoder", True), ("frozen", "resnet", True)],
)
def test_what_is_taken_from_a_pretrained_encoder(
    sample_corpus: str, pretrained: Path, tmp_path: Path, protocol: str, taken: str, whole: bool
) -> None:
    settings = (f"protocol={protocol}", f"finetune.pretrained={taken}")
    job = finetuning(sample_corpus, tmp_path, *settings, encoder=str(pretrained / "model"))
    data = open_data(job)
    assert isinstance(data, FinetuneData)
    built = finetune.build(job, data.alphabet).encoder.state_dict()
    expected = encoder_weights(pretrained)
    scratch = finetune.build(finetuning(sample_corpus, tmp_path), data.alphabet).encoder.state_dict()
    assert built.keys() == expected.keys()
    for name in expected:
        source = expected if whole or name.startswith("resnet.") else scratch
        assert torch.equal(built[name], source[name]), name
    for part in ("resnet.", "lstm."):
        names = [name for name in expected if name.startswith(part)]
        assert names and any(not torch.equal(scratch[name], expected[name]) for name in names)


@pytest.mark.parametrize(
    ("taken", "slow"), [(None, ()), ("resnet", ("encoder.resnet.",)), ("encoder", ("encoder.resnet.", "encoder.lstm."))]
)
def test_encoder_rate_is_that_of_what_was_pretrained(
    sample_corpus: str, pretrained: Path, tmp_path: Path, taken: str | None, slow: tuple[str, ...]
) -> None:
    """A fresh BiLSTM, and the encoder of a training from scratch, learn at the rate of all else."""
    settings = ["finetune.max_epochs=1", "finetune.encoder_rate=1e-6"]
    settings += [f"finetune.pretrained={taken}"] if taken else []
    job = finetuning(sample_corpus, tmp_path, *settings, encoder=str(pretrained / "model") if taken else None)
    data = open_data(job)
    assert isinstance(data, FinetuneData)
    before = dict(finetune.build(job, data.alphabet).named_parameters())
    run_here(job, into([]))
    after = dict(load_recognizer(tmp_path / "model").named_parameters())
    moved = {name: float((after[name] - before[name]).detach().abs().max()) for name in before}
    for part in ("encoder.resnet.", "encoder.lstm.", "decoder."):
        largest = max(distance for name, distance in moved.items() if name.startswith(part))
        assert largest < 1e-6 if part in slow else largest > 1e-3, part


@pytest.mark.parametrize("protocol", ["frozen", "semi_supervised"])
def test_protocols(sample_corpus: str, pretrained: Path, tmp_path: Path, protocol: str) -> None:
    """``frozen`` leaves every weight and statistic of the encoder as it was; the other does not."""
    job = finetuning(
        sample_corpus,
        tmp_path,
        f"protocol={protocol}",
        "finetune.max_epochs=2",
        "finetune.learning_rate=0.01",
        encoder=str(pretrained / "model"),
    )
    result = run_here(job, into([]))
    before = encoder_weights(pretrained)
    after = load_recognizer(tmp_path / "model").encoder.state_dict()
    unchanged = [torch.equal(before[name], after[name]) for name in before]
    assert all(unchanged) if protocol == "frozen" else not all(unchanged)
    assert losses(result)[1] < losses(result)[0], "the decoder learns either way"


def test_encoder_of_another_size(sample_corpus: str, pretrained: Path, tmp_path: Path) -> None:
    job = finetuning(sample_corpus, tmp_path, "model.channels=32", encoder=str(pretrained / "model"))
    with pytest.raises(UserError, match="channels"):
        run_here(job, into([]))


# --- data that does not fit, and ends -----------------------------------------------------


def test_foreign_character_is_set_aside(sample_corpus: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A corpus whose corpus.json knows a letter less than its lines have."""
    shutil.copytree(sample_corpus, tmp_path / "corpus")
    info_file = tmp_path / "corpus" / "corpus.json"
    info = json.loads(info_file.read_text())
    table = Corpus.open(sample_corpus).index("train", columns=("id", "text"))
    texts = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    # The rarest letter, so that most lines stay.
    letter = min(info["alphabet"], key=lambda c: (sum(c in t for t in texts.values()) or 10**6, c))
    info["alphabet"] = info["alphabet"].replace(letter, "")
    info_file.write_text(json.dumps(info))
    affected = sorted(f"{line_id}: {letter}" for line_id, text in texts.items() if letter in text)
    assert affected
    with caplog.at_level(logging.WARNING, "htr_ray"):
        result = run_here(finetuning(str(tmp_path / "corpus"), tmp_path / "run", "finetune.max_epochs=1"), into([]))
    assert sorted(result["set_aside"]) == affected
    assert result["lines"] == len(texts) - len(affected)
    assert result["unreadable"] == []
    assert any(affected[0].split(":")[0] in record.message for record in caplog.records)


def test_unreadable_lines_of_every_split_are_named(sample_corpus: str, tmp_path: Path) -> None:
    corpus = changed_copy(sample_corpus, tmp_path / "corpus", damage(2))
    result = run_here(finetuning(corpus, tmp_path / "run", "finetune.max_epochs=2"), into([]))
    assert sorted(name.split(":")[0] for name in result["unreadable"]) == [
        f"{split}-{number}" for split in ("test", "train", "val") for number in range(2)
    ]
    assert result["test_lines"] == Corpus.open(corpus).info.counts["test"]["lines"] - 2


def test_validation_lines_that_nobody_can_read(sample_corpus: str, tmp_path: Path) -> None:
    """No errors among no lines would be the best of all figures."""
    corpus = changed_copy(sample_corpus, tmp_path / "corpus", damage(10**6, ("val",)))
    for job in (
        finetuning(corpus, tmp_path / "run", "finetune.max_epochs=1"),
        pretraining(corpus, tmp_path / "other", "pretrain.max_epochs=1"),
    ):
        with pytest.raises(UserError, match="none of the lines .* could be decoded.*--check"):
            run_here(job, into([]))


def test_a_sample_of_validation_lines_is_one_of_those_with_a_text(sample_corpus: str, tmp_path: Path) -> None:
    def few(split: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "text": None} if split == "val" and number >= 12 else row

    corpus = changed_copy(sample_corpus, tmp_path / "corpus", few)
    data = open_data(finetuning(corpus, tmp_path / "run", "finetune.eval_lines=10"))
    assert isinstance(data, FinetuneData)
    assert (data.validation.lines, data.validation_all.lines) == (10, 12)
    assert data.validation.cached is not None
    assert data.validation_all.cached is data.test.cached is None, "they are read once, at the end"


def test_workers_that_see_different_checkpoints(
    sample_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a folder that each node has for itself: their weights would drift apart, or they wait for ever."""
    monkeypatch.setattr(Worker, "gather", lambda self, value: [value, 3] if value == 0 else [value])
    with pytest.raises(UserError, match=r"run: the workers .* different epochs \(0, 3\); all nodes must"):
        run_here(finetuning(sample_corpus, tmp_path / "run"), into([]))


def test_patience_ends_it(sample_corpus: str, tmp_path: Path) -> None:
    """A rate so small that nothing improves after the first epoch."""
    job = finetuning(
        sample_corpus, tmp_path, "finetune.max_epochs=50", "finetune.patience=2", "finetune.learning_rate=1e-12"
    )
    result = run_here(job, into([]))
    assert result["stopped"] == "patience"
    assert result["epochs"] == result["best_epoch"] + 3 < 50


def test_max_minutes_ends_it(sample_corpus: str, tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []
    job = finetuning(sample_corpus, tmp_path, "finetune.max_epochs=1000", "finetune.max_minutes=0.03")
    result = run_here(job, reports.append)
    assert result["stopped"] == "max_minutes" and 1 <= result["epochs"] < 1000
    assert reports[-1]["progress"] == 1.0 and result["minutes"] >= 0.03
    rates = [report["learning_rate"] for report in reports if report["epoch_end"]]
    assert rates[-1] < 0.5 * max(job.settings.learning_rate, max(rates)), "the schedule is fitted to the clock"


def test_an_epoch_without_a_step_is_none(sample_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up between the second epoch's end and the third's first step."""

    class UpThen(Clock):
        asked = 0

        def progress(self, epochs: float) -> float:
            self.asked += epochs >= 2
            return 0.5 if self.asked <= 1 else 1.0

    monkeypatch.setattr(fit, "Clock", UpThen)
    reports: list[dict[str, Any]] = []
    job = finetuning(sample_corpus, tmp_path, "finetune.max_epochs=1000", "finetune.max_minutes=1000")
    result = run_here(job, reports.append)
    assert result["stopped"] == "max_minutes" and reports[-1]["progress"] == 1.0
    assert result["epochs"] == len(result["history"]) == sum(report["epoch_end"] for report in reports) == 2
    assert all(entry["train_loss"] > 0 and entry["lines_per_second"] > 0 for entry in result["history"])


def test_loss_that_is_not_finite(sample_corpus: str, tmp_path: Path) -> None:
    job = finetuning(sample_corpus, tmp_path, "finetune.learning_rate=1e38", "finetune.max_epochs=5")
    with pytest.raises(UserError, match="not finite.*lower learning_rate"):
        run_here(job, into([]))
    assert not storage.exists(storage.join(job.folder, "result.json"))


def test_one_bad_step_is_skipped(
    sample_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from htr_ray.model.recognizer import Recognizer

    calls = 0
    real = Recognizer.forward

    def forward(self: Recognizer, batch: dict[str, Any]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = real(self, batch)
        return loss * float("nan") if calls == 2 else loss

    monkeypatch.setattr(Recognizer, "forward", forward)
    with caplog.at_level(logging.WARNING, "htr_ray"):
        result = run_here(finetuning(sample_corpus, tmp_path, *PLAIN, "finetune.max_epochs=2"), into([]))
    assert any(
        "not finite in 1 of " in record.message and "the first is step 1" in record.message for record in caplog.records
    )
    curve = losses(result)
    assert len(curve) == 2 and 0 < curve[1] < curve[0]
