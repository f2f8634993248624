"""What people read on a run's page."""

from __future__ import annotations

from collections.abc import Callable

from htr_ray.config import GridSettings
from htr_ray.corpus.read import Corpus
from htr_ray.sweep.cells import expand
from htr_ray.sweep.notes import reproduction, title, trial_note
from htr_ray.track.environment import environment


def test_a_trial_says_what_it_is(sample_corpus: str, grid: Callable[..., GridSettings]) -> None:
    axes = ["pretexts=[none,flip]", "decoders=[ctc]", "label_fractions=[0.05]", "protocols=[frozen,semi_supervised]"]
    notes = {}
    for trial in expand(grid(f"corpora=[{sample_corpus}]", *axes)):
        notes[trial.key] = trial_note(trial, {"test_cer": 12.345, "lines": 1234, "val_accuracy": 51.0, "minutes": 2.0})
    pretraining = notes["pretrain/sample/flip/seed0"]
    assert pretraining.startswith("Encoder for **sample**, pre-trained on its images with **flip**, seed 0.")
    assert "| answers right on validation lines | 51.0 % |" in pretraining and "CER" not in pretraining
    scratch = notes["finetune/sample/semi_supervised/ctc/0.05/none/seed0"]
    assert "ctc decoder, 5 % of the labels, from scratch, everything trained" in scratch
    assert "| CER on test lines | 12.3 % |" in scratch and "| labelled training lines | 1,234 |" in scratch
    assert "| WER" not in scratch  # an older result knew none
    assert "pre-trained with **flip**, the encoder fixed" in notes["finetune/sample/frozen/ctc/0.05/flip/seed0"]


def test_runs_have_short_names_that_differ(grid: Callable[..., GridSettings]) -> None:
    trials = expand(
        grid(
            *("corpora=[/a/dhsd]", "pretexts=[none,sorting]", "label_fractions=[0.05,1.0]", "seeds=[0,1]"),
            *("protocols=[frozen,semi_supervised]", "search.pretrain={pretext.sorting_pieces: [4, 5, 6]}"),
        )
    )
    titles = {trial.key: title(trial) for trial in trials}
    assert len(set(titles.values())) == len(trials) and max(map(len, titles.values())) < 50
    assert titles["finetune/dhsd/frozen/transformer/0.05/sorting/seed1"] == (
        "dhsd: sorting, transformer, 5 %, frozen, seed 1"
    )
    assert titles["pretrain/dhsd/sorting/choice1"] == "dhsd: sorting, encoder, choice 1"


def test_how_to_make_it_again_names_data_versions_and_no_password(sample_corpus: str) -> None:
    found = environment([{"CPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}]) | {"revision": "0123abc-dirty"}
    command = "python jobs/full_grid.py tracking_uri=https://me:secret@mlflow name=x"
    text = reproduction({"sample": Corpus.open(sample_corpus)}, found, command)
    assert "git checkout 0123abc\n" in text and "changes that are not in this revision" in text
    assert "a Ray cluster of 2 nodes with 12 CPUs and 1 GPUs" in text and "ray 2." in text
    assert "secret" not in text and "tracking_uri=https://me:***@mlflow name=x" in text
    assert f"`{sample_corpus}`" in text
