"""The model registry: per corpus a champion, a challenger, and the best encoder of each pretext task.

Registered models: ``htr-ray-<corpus>`` holds recognizers, ``htr-ray-<corpus>-encoder`` encoders. An alias moves,
versions stay: what was champion once can still be loaded by its number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from htr_ray.corpus.read import Corpus, corpus_name
from htr_ray.errors import UserError
from htr_ray.track.card import Facts, encoder_card, recognizer_card
from htr_ray.track.connect import Place
from htr_ray.track.runs import children
from htr_ray.track.summary import registered_name, slug

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
TRIAL_TAG = "htr_ray.trial"
MODEL_TAG = "htr_ray.model"
GRID_RUN_TAG = "htr_ray.grid_run"  # run id of the grid that a version comes from
VALIDATION_TAG = "htr_ray.validation"  # fingerprint of the validation lines: scores on others do not compare
CER_TAG = "htr_ray.val_cer"  # percent
ACCURACY_TAG = "htr_ray.above_chance"  # percentage points
UNKNOWN = "unknown"  # validation lines of a corpus that cannot be read
COORDINATES = ("corpus", "pretext", "decoder", "label_fraction", "protocol", "seed")


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A finished trial whose model is to be registered."""

    key: str
    run_id: str
    name: str
    """Of its run."""
    grid_run: str
    """Run id of its grid."""
    model_id: str
    """Of its logged model."""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def encoder_name(corpus: str) -> str:
    """Name of the registered model that holds a corpus' encoders; an alias for each pretext task."""
    return f"{registered_name(corpus)}-encoder"


class Registry:
    """Registers models and decides who bears an alias. Every call may be repeated: nothing is doubled.

    Not thread-safe: the thread of :class:`~htr_ray.track.record.Record` calls.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._client = place, place.client

    def champion(self, corpus: str, trial: Entrant) -> None:
        """Register the best recognizer of a grid; ``champion`` if none that was registered before is better.

        Better is the lower CER on the same validation lines. Where the lines differ (the corpus was prepared
        anew), or the standing champion's run was deleted, the newcomer takes the alias. The log tells.
        """
        name = registered_name(corpus)
        version = self._recognizer(corpus, trial)
        self._contend(name, CHAMPION, version, f"{corpus}: champion")
        self._appoint_challenger(name)

    def challenger(self, corpus: str, trial: Entrant) -> None:
        """Register the runner-up of a grid; ``challenger`` is the best recognizer beside the champion."""
        self._recognizer(corpus, trial)
        self._appoint_challenger(registered_name(corpus))

    def encoder(self, corpus: str, pretext: str, trial: Entrant) -> None:
        """Register an encoder; it bears the pretext task's name if none is further above chance."""
        accuracy, chance = trial.metrics.get("val_accuracy", math.nan), trial.metrics.get("chance", math.nan)
        version = self._register(
            encoder_name(corpus),
            corpus,
            trial,
            about=f"Encoders pre-trained on the images of the corpus {corpus}; one alias per pretext task.",
            alias=slug(pretext),
            card=encoder_card,
            score={ACCURACY_TAG: accuracy - chance},
        )
        self._contend(encoder_name(corpus), slug(pretext), version, f"{corpus}: encoder '{pretext}'")

    def _recognizer(self, corpus: str, trial: Entrant) -> ModelVersion:
        return self._register(
            registered_name(corpus),
            corpus,
            trial,
            about=f"Recognizers of the corpus {corpus}; by validation CER the best is `@{CHAMPION}`, the second "
            f"`@{CHALLENGER}`.",
            alias=CHAMPION,
            card=recognizer_card,
            score={CER_TAG: trial.metrics.get("val_cer", math.nan)},
        )

    def _register(
        self,
        name: str,
        corpus: str,
        trial: Entrant,
        *,
        about: str,
        alias: str,
        card: Callable[[Facts], str],
        score: dict[str, float],
    ) -> ModelVersion:
        """The version that holds the trial's model, made if need be, with a new card."""
        try:
            self._client.create_registered_model(name, tags={"htr_ray.corpus": corpus}, description=about)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
                raise
        opened = self._corpus(corpus, trial.grid_run)
        version = next((v for v in self._versions(name) if v.tags.get(MODEL_TAG) == trial.model_id), None)
        if version is None:
            tags = {
                **{key: trial.params[key] for key in COORDINATES if key in trial.params},
                **{tag: f"{value:.6g}" for tag, value in score.items()},
                TRIAL_TAG: trial.key,
                MODEL_TAG: trial.model_id,
                GRID_RUN_TAG: trial.grid_run,
                VALIDATION_TAG: UNKNOWN if opened is None else validation_digest(opened),
            }
            source = self._source(trial.model_id)
            version = self._client.create_model_version(
                name, source, run_id=trial.run_id, model_id=trial.model_id, tags=tags
            )
        facts = Facts(
            uri=f"models:/{name}/{version.version}",
            best_uri=f"models:/{name}@{alias}",
            corpus=corpus,
            info=None if opened is None else opened.info,
            grid=self._client.get_run(trial.grid_run).info.run_name or trial.grid_run,
            key=trial.key,
            params=trial.params,
            metrics=trial.metrics,
            result=self._document(trial.run_id, "result.json"),
            rows=self._rows(corpus, trial.grid_run),
        )
        self._client.update_model_version(name, version.version, description=card(facts))
        return version

    # ---- Who bears an alias.

    def _contend(self, name: str, alias: str, new: ModelVersion, what: str) -> None:
        """Give ``alias`` to the version unless the one that has it is better."""
        old = self._bearer(name, alias)
        if old is not None and old.version == new.version:
            return
        if old is None:
            log.info("%s is %s", what, _told(new))
        elif self._deleted(old):
            log.warning("%s is now %s; the run of the former, %s, was deleted", what, _told(new), _told(old))
        elif old.tags.get(VALIDATION_TAG) != new.tags.get(VALIDATION_TAG):
            log.warning(
                "%s is now %s; before it was %s, on other validation lines, so that the two do not compare "
                "(the former stays registered)",
                what, _told(new), _told(old),
            )  # fmt: skip
        elif _rank(new) < _rank(old):
            log.warning("%s is now %s; before it was %s, which stays registered", what, _told(new), _told(old))
        else:
            log.warning("%s stays %s; %s is not better", what, _told(old), _told(new))
            return
        self._client.set_registered_model_alias(name, alias, new.version)

    def _appoint_challenger(self, name: str) -> None:
        """The best recognizer that is comparable with the champion, and of another trial."""
        champion = self._bearer(name, CHAMPION)
        if champion is None:
            return
        rivals = [
            version
            for version in self._versions(name)
            if version.tags.get(VALIDATION_TAG) == champion.tags.get(VALIDATION_TAG)
            and _trial_of(version) != _trial_of(champion)
            and not self._deleted(version)
        ]
        best = min(rivals, key=_rank, default=None)
        bearer = self._bearer(name, CHALLENGER)
        if best is not None and (bearer is None or bearer.version != best.version):
            self._client.set_registered_model_alias(name, CHALLENGER, best.version)
        elif best is None and bearer is not None:
            self._client.delete_registered_model_alias(name, CHALLENGER)

    def _bearer(self, name: str, alias: str) -> ModelVersion | None:
        number = self._client.get_registered_model(name).aliases.get(alias)
        return None if number is None else self._client.get_model_version(name, str(number))

    def _versions(self, name: str) -> list[ModelVersion]:
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _deleted(self, version: ModelVersion) -> bool:
        """Whether the version's run is gone: by hand, or because its trial was trained anew."""
        try:
            return self._client.get_run(str(version.run_id)).info.lifecycle_stage != "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return True
            raise

    # ---- Where things lie.

    def _source(self, model_id: str) -> str:
        """Where a registered version finds its model."""
        if self._place.uri.startswith(("http://", "https://")):
            return f"models:/{model_id}"
        # Without a server, MLflow looks such a URI up in its process-wide tracking URI, which is
        # not ours to set (mlflow/store/model_registry/sqlalchemy_store.py, create_model_version).
        return self._client.get_logged_model(model_id).artifact_location

    def _corpus(self, corpus: str, grid_run: str) -> Corpus | None:
        """The corpus as the grid's ``config.yaml`` names it; None when it cannot be read any more."""
        for uri in self._document(grid_run, "config.yaml").get("corpora") or []:
            if corpus_name(str(uri)) == corpus:
                try:
                    return Corpus.open(str(uri))
                except UserError as error:
                    log.warning("%s: its facts are missing in the registry (%s)", corpus, error)
        return None

    def _rows(self, corpus: str, grid_run: str) -> list[dict[str, Any]]:
        """The grid's finished fine-tunings on the corpus, as its runs tell."""
        rows: list[dict[str, Any]] = []
        for run in children(self._place, grid_run, "attributes.status = 'FINISHED'"):
            known = {**run.data.params, **run.data.tags}
            if known.get("stage") == "finetune" and known.get("corpus") == corpus:
                place = {key: known.get(key) for key in COORDINATES}
                rows.append(place | {"test_cer": run.data.metrics.get("test_cer")})
        return rows

    def _document(self, run_id: str, name: str) -> dict[str, Any]:
        """A YAML or JSON file of a run; empty when it was not logged."""
        if not any(item.path == name for item in self._client.list_artifacts(run_id)):
            return {}
        with tempfile.TemporaryDirectory(prefix="htr-ray-") as folder:
            path = Path(self._client.download_artifacts(run_id, name, folder))
            found = (json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}


def validation_digest(corpus: Corpus) -> str:
    """A fingerprint of the validation lines, ids and texts: error rates compare where it is the same."""
    index = corpus.index("val", columns=("id", "text"))
    lines = sorted(zip(index["id"].to_pylist(), index["text"].to_pylist(), strict=True))
    return hashlib.blake2b(repr(lines).encode(), digest_size=8).hexdigest()


def _rank(version: ModelVersion) -> tuple[float, int]:
    """Lower is better: CER, or minus the accuracy above chance; among equals the earlier version."""
    if ACCURACY_TAG in version.tags:
        score = -float(version.tags[ACCURACY_TAG])
    else:
        score = float(version.tags.get(CER_TAG, "nan"))
    return (math.inf if math.isnan(score) else score, int(version.version))


def _trial_of(version: ModelVersion) -> tuple[str | None, str | None]:
    return version.tags.get(GRID_RUN_TAG), version.tags.get(TRIAL_TAG)


def _told(version: ModelVersion) -> str:
    if ACCURACY_TAG in version.tags:
        score = f"{float(version.tags[ACCURACY_TAG]):.2f} points above chance"
    else:
        score = f"validation CER {float(version.tags.get(CER_TAG, 'nan')):.2f} %"
    return f"version {version.version} ({version.tags.get(TRIAL_TAG)}, {score})"
