"""The registry against real MLflow, a database and a server: who is champion, who challenges, what is told."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from htr_ray.corpus.schema import SPLITS, Line
from htr_ray.corpus.write import CorpusWriter
from htr_ray.model.files import load_encoder, load_recognizer, save_encoder
from htr_ray.track.registry import encoder_name
from htr_ray.track.summary import registered_name
from htr_ray.track.tracker import Tracker


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return f"htr-ray {request.node.name}"


@pytest.fixture
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of a corpus of its own name: the server, and so its registry, is shared by all tests."""
    return write_corpus(str(tmp_path / f"c{zlib.crc32(request.node.name.encode())}"))


def write_corpus(uri: str, text: str = "Anna") -> str:
    """A corpus of a line in each split, whose validation line reads ``text``."""
    with CorpusWriter(uri, Path(uri).name, licence="CC0-1.0") as writer:
        for split in SPLITS:
            writer.add(Line(split, b"never read here", 90, 40, text if split == "val" else "Anna", f"w {split}"), split)
    return uri


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory, recognizer_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder, load_encoder(recognizer_dir))
    return folder


# Rules of ours, the same wherever MLflow keeps its rows; the other tests try a server as well.
one_store = pytest.mark.parametrize("uri", ["sqlite"], indirect=True)


class Grids:
    """Runs "grids" whose trials have the figures that a test asks for."""

    def __init__(self, uri: str, experiment: str, root: Path, corpus: str, model_dir: Path, encoder_dir: Path) -> None:
        self.uri, self.experiment, self.root, self.corpus_uri = uri, experiment, root, corpus
        self.dirs = {"finetune": model_dir, "pretrain": encoder_dir}
        self.client = MlflowClient(uri)
        self.corpus = Path(corpus).name
        self.name, self.encoders = registered_name(self.corpus), encoder_name(self.corpus)

    def run(
        self,
        grid: str,
        cers: dict[str, float | None] | None = None,
        accuracies: dict[str, tuple[float, float]] | None = None,
        *,
        corpora: list[str] | None = None,
        tries: str = "0",
    ) -> None:
        """One driver's life: recognizers with these validation CERs, encoders with (accuracy, chance)."""
        found = cers or {}
        with Tracker(self.uri, self.experiment, default_root=self.root) as tracker:
            tracker.start_grid(grid, {"corpora": [self.corpus_uri] if corpora is None else corpora}, {})
            for key, cer in found.items():
                metrics = {} if cer is None else {"val_cer": cer, "test_cer": cer + 1, "lines": 40}
                params = {"decoder": "ctc", "pretext": key, "label_fraction": "0.1", "protocol": "semi_supervised"}
                self._trial(tracker, key, "finetune", {**params, "seed": "0", "try": tries}, metrics)
            for key, (accuracy, chance) in (accuracies or {}).items():
                metrics = {"val_accuracy": accuracy, "chance": chance}
                self._trial(tracker, key, "pretrain", {"pretext": "flip", "seed": "0", "try": tries}, metrics)
            ranked = sorted(found, key=lambda key: found[key] or 0.0)
            if ranked:
                tracker.register_champion(self.corpus, ranked[0])
            if len(ranked) > 1:
                tracker.register_challenger(self.corpus, ranked[1])
            for key in accuracies or {}:
                tracker.register_encoder(self.corpus, "flip", key)
            tracker.finish_grid("done", {})
            assert tracker.close() == []

    def _trial(self, tracker: Tracker, key: str, stage: str, params: dict[str, str], metrics: dict[str, float]) -> None:
        tags = {**params, "stage": stage, "corpus": self.corpus}
        tracker.start_trial(key, f"trial {key}", {**tags}, tags)
        tracker.log_epoch(key, 0, {"loss": 1.0})
        files: dict[str, Any] = {"result.json": '{"unreadable": ["x"]}'}
        tracker.finish_trial(key, metrics, files, self.dirs[stage], None)

    def bearer(self, alias: str, name: str | None = None) -> str | None:
        """ "grid/trial" of the version with that alias."""
        name = name or self.name
        try:
            version = self.client.get_model_version_by_alias(name, alias)
        except MlflowException:
            return None
        grid = self.client.get_run(version.tags["htr_ray.grid_run"]).info.run_name
        return f"{grid}/{version.tags['htr_ray.trial']}"

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        found = self.client.search_model_versions(f"name = '{name or self.name}'")
        return sorted(found, key=lambda version: int(version.version))


@pytest.fixture
def grids(uri: str, experiment: str, tmp_path: Path, corpus: str, recognizer_dir: Path, encoder_dir: Path) -> Grids:
    return Grids(uri, experiment, tmp_path, corpus, recognizer_dir, encoder_dir)


def test_champion_and_challenger_of_a_grid_and_of_its_resumption(
    grids: Grids, make_line: Callable[..., bytes], recognizer_dir: Path
) -> None:
    for _ in range(2):  # the second replays everything
        grids.run("one", {"none": 12.0, "flip": 9.0, "sorting": 10.0})
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("one/flip", "one/sorting")
    assert len(grids.versions()) == 2
    [model] = {version.tags["htr_ray.model"] for version in grids.versions()[:1]}
    run = grids.client.get_run(grids.versions()[0].run_id)
    assert run.outputs.model_outputs[0].model_id == model

    mlflow.set_tracking_uri(grids.uri)
    try:
        reader = mlflow.pyfunc.load_model(f"models:/{grids.name}@champion")
    finally:
        mlflow.set_tracking_uri(None)
    assert reader.predict([make_line()])["error"][0] == ""


def test_the_card_is_the_version_s_description(grids: Grids) -> None:
    grids.run("one", {"none": 12.0, "flip": 9.0})
    [champion, _] = grids.versions()
    card = champion.description
    assert card.startswith(f"# Recognizer of {grids.corpus}")
    assert "CC0-1.0" in card and "| validation (" in card and "| 9.0 |" in card and "| 10.0 |" in card
    assert "| 10 % | ctc | semi\\_supervised | 13.0 | 10.0 |" in card  # none, flip
    assert "1 line took no part" in card
    assert f"models:/{grids.name}/{champion.version}" in card and f"models:/{grids.name}@champion" in card
    assert champion.tags["pretext"] == "flip" and champion.tags["htr_ray.val_cer"] == "9"


@one_store
def test_one_recognizer_has_no_challenger(grids: Grids) -> None:
    grids.run("one", {"none": 12.0})
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("one/none", None)


@one_store
def test_a_worse_grid_leaves_the_champion_and_says_so(grids: Grids, caplog: pytest.LogCaptureFixture) -> None:
    grids.run("one", {"none": 12.0, "flip": 9.0})
    grids.run("two", {"none": 11.0, "flip": 9.5})
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("one/flip", "two/flip")
    assert "champion stays version 1 (flip, validation CER 9.00 %)" in caplog.text
    assert "version 3 (flip, validation CER 9.50 %) is not better" in caplog.text
    grids.run("three", {"none": 9.0})  # as good is not better
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("one/flip", "three/none")


@one_store
def test_a_better_grid_takes_over_and_the_former_stays(grids: Grids, caplog: pytest.LogCaptureFixture) -> None:
    grids.run("one", {"none": 12.0, "flip": 9.0})
    grids.run("two", {"none": 8.5, "flip": 9.5})
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("two/none", "one/flip")
    assert "champion is now version 3 (none, validation CER 8.50 %); before it was version 1" in caplog.text
    assert [version.version for version in grids.versions()] in ([1, 2, 3, 4], ["1", "2", "3", "4"])


@one_store
def test_other_validation_lines_do_not_compare(grids: Grids, caplog: pytest.LogCaptureFixture) -> None:
    grids.run("one", {"none": 12.0, "flip": 9.0})
    write_corpus(grids.corpus_uri, "Hanna")  # prepared anew, with another text
    grids.run("two", {"none": 30.0})
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("two/none", None)
    assert "on other validation lines" in caplog.text
    assert len(grids.versions()) == 3


@one_store
def test_the_same_corpus_prepared_again_compares(grids: Grids) -> None:
    grids.run("one", {"none": 12.0})
    write_corpus(grids.corpus_uri)  # part files get other names
    grids.run("two", {"none": 30.0})
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("one/none", "two/none")


@one_store
def test_a_corpus_that_is_gone_costs_the_facts_and_no_more(grids: Grids, caplog: pytest.LogCaptureFixture) -> None:
    grids.run("one", {"none": 12.0}, corpora=[f"{grids.root}/gone/{grids.corpus}"])
    grids.run("two", {"none": 30.0}, corpora=[])
    assert grids.bearer("champion") == "one/none"
    assert "its facts are missing" in caplog.text
    assert "could not be read" in grids.versions()[0].description


@one_store
def test_figures_that_are_missing_never_win(grids: Grids) -> None:
    grids.run("one", {"none": None})
    assert grids.bearer("champion") == "one/none"
    grids.run("two", {"none": 99.0})
    grids.run("three", {"none": None})
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("two/none", "one/none")


@one_store
def test_a_trial_trained_anew_takes_its_own_place(grids: Grids, caplog: pytest.LogCaptureFixture) -> None:
    """Its run is deleted and replaced (see test_tracker): a result that nobody stands for holds no alias."""
    grids.run("one", {"none": 12.0, "flip": 9.0})
    with caplog.at_level(logging.WARNING):
        grids.run("one", {"none": 12.0, "flip": 10.0}, tries="1")
    assert (grids.bearer("champion"), grids.bearer("challenger")) == ("one/flip", "one/none")
    assert "was deleted" in caplog.text
    champion = grids.client.get_model_version_by_alias(grids.name, "champion")
    assert champion.tags["htr_ray.val_cer"] == "10"


def test_encoders_by_pretext_task(grids: Grids, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    grids.run("one", {}, {"seed0": (55.0, 25.0), "seed1": (52.0, 25.0)})
    assert grids.bearer("flip", grids.encoders) == "one/seed0"
    assert "encoder 'flip' stays version 1 (seed0, 30.00 points above chance)" in caplog.text
    grids.run("two", {}, {"seed0": (60.0, 50.0)})  # more often right, at an easier task
    assert grids.bearer("flip", grids.encoders) == "one/seed0"
    grids.run("three", {}, {"seed0": (56.0, 25.0)})
    assert grids.bearer("flip", grids.encoders) == "three/seed0"
    assert grids.versions() == [] and len(grids.versions(grids.encoders)) == 4
    best = grids.client.get_model_version_by_alias(grids.encoders, "flip")
    assert "| accuracy | 56.0 |" in best.description and "load_encoder" in best.description

    mlflow.set_tracking_uri(grids.uri)
    try:
        folder = mlflow.artifacts.download_artifacts(f"models:/{grids.encoders}@flip", dst_path=str(tmp_path / "e"))
    finally:
        mlflow.set_tracking_uri(None)
    assert load_encoder(Path(folder) / "artifacts" / "encoder").dim > 0


def test_logged_models_are_of_their_kind(grids: Grids, recognizer_dir: Path) -> None:
    grids.run("one", {"none": 12.0}, {"seed0": (55.0, 25.0)})
    experiment = grids.client.get_experiment_by_name(grids.experiment)
    models = grids.client.search_logged_models([experiment.experiment_id])
    assert {(model.name, model.model_type) for model in models} == {
        ("recognizer", "recognizer"),
        ("encoder", "encoder"),
    }
    assert {model.status.value for model in models} == {"READY"}
    mine = next(model for model in models if model.name == "recognizer")
    assert {metric.key: metric.value for metric in mine.metrics}["val_cer"] == 12.0
    folder = Path(grids.root) / "fetched"
    mlflow.set_tracking_uri(grids.uri)
    try:
        mlflow.artifacts.download_artifacts(f"models:/{mine.model_id}", dst_path=str(folder))
    finally:
        mlflow.set_tracking_uri(None)
    load_recognizer(folder / "artifacts" / "recognizer")
