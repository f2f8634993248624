"""The grid: settings -> trials and what each waits for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from htr_ray import storage
from htr_ray.config import DecoderName, GridSettings, PretextChoice, PretextName, ProtocolName, Space
from htr_ray.corpus.read import corpus_name
from htr_ray.errors import UserError
from htr_ray.sweep import space
from htr_ray.sweep.recipe import changes_task, deciding_cell, first_task
from htr_ray.train.job import MODEL, Job

SAMPLE = "sample"
"""What stands for the URI of the embedded corpus, and its name."""


@dataclass(frozen=True)
class Trial:
    """One run of one cell (or one pre-training).

    key: stable name, also the trial's path below the grid's folder.
    waits_for: key of the pre-training whose encoder it starts from, or of the search among such; None: from scratch.
    takes: key of the search whose winning hyperparameters it takes, or None.
    group: key of the search that it is a choice of, or None; ``choice`` is its number there.
    probe: a fine-tuning that only judges an encoder for a search among pre-trainings.
    """

    key: str
    job: Job
    corpus: str
    pretext: str
    waits_for: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    takes: str | None = None
    group: str | None = None
    choice: int | None = None
    probe: bool = False

    @property
    def stage(self) -> str:
        return self.job.stage


def grid_folder(settings: GridSettings) -> str:
    """URI under which a grid keeps everything."""
    return storage.join(storage.normalise(settings.storage), settings.name)


def expand(settings: GridSettings) -> list[Trial]:
    """All trials of a grid, the pre-trainings first.

    Each encoder is pre-trained once per (corpus, pretext, seed) and shared by every cell
    that needs it. Where hyperparameters are searched, the first seed's trial is several, one for
    each choice; the other seeds take what won. Raises UserError when two corpora have the same
    name, or a search space is wrong.
    """
    names = {uri: corpus_name(uri) for uri in settings.corpora}
    if len(set(names.values())) < len(names):
        raise UserError(
            f"corpora: two URIs end in the same name ({', '.join(sorted(names.values()))}); "
            "the name tells them apart in tables and folders, so rename one"
        )
    space.check(settings)
    pretrainings: list[Trial] = []
    finetunings: list[Trial] = []
    for uri in names:
        made = _Corpus(settings, uri)
        for pretext in settings.pretexts:
            if pretext != "none":
                pretrainings += made.pretrainings(pretext)
            for protocol, decoder, fraction in itertools.product(
                settings.protocols, settings.decoders, settings.label_fractions
            ):
                finetunings += made.cell(protocol, decoder, fraction, pretext)
    # Longest path first: encoders (others wait for them), then cells with many labels.
    finetunings.sort(key=lambda trial: -(trial.job.label_fraction or 0.0))
    return pretrainings + finetunings


class _Corpus:
    """Makes the trials of one corpus."""

    def __init__(self, settings: GridSettings, uri: str) -> None:
        self._settings, self._uri, self._name = settings, uri, corpus_name(uri)
        self._folder = grid_folder(settings)
        self._first_seed = min(settings.seeds)  # not the first asked: another order is the same grid

    def pretrainings(self, pretext: PretextName) -> list[Trial]:
        """The encoders of a pretext task, and the probes that judge them where choices are not comparable."""
        stage = "pretrain"
        place = f"{stage}/{self._name}/{pretext}"
        searched = space.space_for(self._settings, stage, pretext)
        first = f"{stage}/{self._name}/{first_task(self._settings)}"
        trials = self._repeated(place, self._search(stage, place, first, searched), searched)
        made = [replace(trial, job=self._pretrain_job(trial, pretext), pretext=pretext) for trial in trials]
        probes = []
        if changes_task(searched):
            for encoder in (trial for trial in made if trial.group):
                key = f"{place}/probe{encoder.choice}"
                probe = replace(encoder, key=key, waits_for=encoder.key, probe=True)
                job = self._finetune_job(probe, *deciding_cell(self._settings)[:3])
                probes.append(replace(probe, job=job))
        return [self._tagged(trial) for trial in made + probes]

    def cell(
        self, protocol: ProtocolName, decoder: DecoderName, fraction: float, pretext: PretextChoice
    ) -> list[Trial]:
        """The fine-tunings of a cell."""
        stage = "finetune"

        def place(protocol: str, decoder: str, fraction: float, pretext: str) -> str:
            return f"{stage}/{self._name}/{protocol}/{decoder}/{fraction:g}/{pretext}"

        mine = place(protocol, decoder, fraction, pretext)
        searched = space.space_for(self._settings, stage, pretext)
        first = place(*deciding_cell(self._settings))
        made = []
        for trial in self._repeated(mine, self._search(stage, mine, first, searched), searched):
            wanted = replace(trial, pretext=pretext, waits_for=self._encoder(pretext, trial.job.seed))
            made.append(replace(wanted, job=self._finetune_job(wanted, protocol, decoder, fraction)))
        return [self._tagged(trial) for trial in made]

    def _search(self, stage: str, mine: str, first: str, searched: Space) -> str | None:
        """Key of the search that decides the hyperparameters at a place: its own, the stage's, or none."""
        if not searched:
            return None
        return mine if self._settings.search.scope == "cell" else first

    def _repeated(self, place: str, search: str | None, searched: Space) -> list[Trial]:
        """A trial for each seed, and for each choice of the first one; jobs follow."""
        trials = []
        for seed in self._settings.seeds:
            bare = self._bare(seed)
            if search == place and seed == self._first_seed:
                trials += [
                    replace(bare, key=f"{place}/choice{number}", group=place, choice=number)
                    for number in range(space.count(self._settings, searched))
                ]
            else:
                trials.append(replace(bare, key=f"{place}/seed{seed}", takes=search))
        return trials

    def _bare(self, seed: int) -> Trial:
        s = self._settings
        job = Job(
            stage="pretrain", corpus=self._uri, folder="", seed=seed, model=s.model, augment=s.augment, stream=s.stream
        )
        return Trial("", job, self._name, "none")

    def _encoder(self, pretext: str, seed: int) -> str | None:
        """Key of the pre-training, or of the search among them, that gives a cell's encoder."""
        if pretext == "none":
            return None
        place = f"pretrain/{self._name}/{pretext}"
        first = f"pretrain/{self._name}/{first_task(self._settings)}"
        searched = space.space_for(self._settings, "pretrain", pretext)
        own = self._search("pretrain", place, first, searched) == place
        return place if own and seed == self._first_seed else f"{place}/seed{seed}"

    def _pretrain_job(self, trial: Trial, pretext: PretextName) -> Job:
        settings = self._settings
        return trial.job.model_copy(
            update={
                "folder": storage.join(self._folder, trial.key),
                "pretext": pretext,
                "pretext_settings": settings.pretext,
                "pretrain": settings.pretrain,
            }
        )

    def _finetune_job(self, trial: Trial, protocol: ProtocolName, decoder: DecoderName, fraction: float) -> Job:
        settings = self._settings
        return self._bare(trial.job.seed).job.model_copy(
            update={
                "stage": "finetune",
                "folder": storage.join(self._folder, trial.key),
                "decoder": decoder,
                "label_fraction": fraction,
                "protocol": protocol,
                "finetune": settings.finetune,
                "encoder": trial.waits_for and storage.join(self._folder, trial.waits_for, MODEL),
            }
        )

    def _tagged(self, trial: Trial) -> Trial:
        return replace(trial, tags=_tags(trial))


def _tags(trial: Trial) -> dict[str, str]:
    """Coordinates of a trial, for tables and for MLflow's search."""
    job = trial.job
    tags = {"stage": job.stage, "corpus": trial.corpus, "pretext": trial.pretext, "seed": str(job.seed)}
    if job.stage == "finetune":
        tags |= {
            "decoder": str(job.decoder),
            "label_fraction": f"{job.label_fraction:g}",
            "protocol": str(job.protocol),
        }
    if trial.group is not None:
        tags |= {"search": trial.group, "choice": str(trial.choice)}
    if trial.probe:
        tags["probe"] = "true"
    return tags
