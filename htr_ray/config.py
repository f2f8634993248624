"""Every setting of htr-ray: typed, validated, one line of doc each; and the presets.

Settings are layered, the later wins: preset < YAML file < ``HTR_RAY_...`` environment <
``key=value`` on the command line. Parsing is OmegaConf's, validation is pydantic's.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from htr_ray.errors import UserError

PretextName = Literal["rotation", "flip", "jigsaw", "sorting"]
PretextChoice = Literal["none", "rotation", "flip", "jigsaw", "sorting"]
DecoderName = Literal["ctc", "transformer"]
ProtocolName = Literal["semi_supervised", "frozen"]
PresetName = Literal["paper", "small", "tiny"]
Precision = Literal["auto", "float32", "bfloat16"]

PRETEXTS: tuple[str, ...] = get_args(PretextName)
ENV_PREFIX = "HTR_RAY_"
NOT_SETTINGS = frozenset({"HTR_RAY_CACHE"})  # the folder of downloaded corpora (corpus/catalogue)

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
# Ray's label selectors (https://docs.ray.io/en/latest/ray-core/scheduling/labels.html).
NodeLabel = Annotated[str, Field(pattern=r"^!?([\w.-]+|in\([\w.-]+(,[\w.-]+)*\))$")]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values are checked on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, frozen=False)


class TransformerSettings(Settings):
    """The transformer decoder (the paper's "TD")."""

    dim: Count = Field(256, description="Width of the decoder's vectors.")
    layers: Count = Field(2, description="Number of decoder layers.")
    heads: Count = Field(8, description="Attention heads; divides dim.")
    feedforward: Count = Field(1024, description="Hidden width of the feed-forward part.")
    dropout: Probability = Field(0.1, description="Dropout inside the decoder.")
    label_smoothing: Probability = Field(0.1, description="Label smoothing of the cross-entropy.")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> TransformerSettings:
        if self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        return self


class ModelSettings(Settings):
    """Encoder and decoders. Defaults are the paper's network."""

    height: Annotated[int, Field(ge=16, le=256)] = Field(
        64, description="Line height in pixels after scaling, aspect ratio kept."
    )
    width_scale: Positive = Field(1.0, description="Extra horizontal stretch; more frames per letter for CTC.")
    max_width: Annotated[int, Field(ge=32)] = Field(
        2048, description="Wider lines are squeezed to this width in pixels; bounds memory."
    )
    channels: Annotated[int, Field(ge=16, multiple_of=16)] = Field(
        512, description="Channels of the last ResNet stages; earlier ones are 1/16 to 1/2 of it."
    )
    blocks: Annotated[list[Count], Field(min_length=4, max_length=4)] = Field(
        default_factory=lambda: [1, 2, 5, 3],
        description="Residual blocks of the ResNet's four stages; fewer, wider ones learn sooner.",
    )
    lstm_hidden: Count = Field(256, description="Units of each BiLSTM direction.")
    lstm_layers: Annotated[int, Field(ge=0)] = Field(2, description="BiLSTM layers; 0 leaves them out.")
    lstm_skip: bool = Field(
        True, description="Each BiLSTM layer adds to its input; learns several times faster. false: as in the paper."
    )
    dropout: Probability = Field(0.1, description="Dropout between encoder and decoder.")
    transformer: TransformerSettings = Field(default_factory=TransformerSettings)  # type: ignore[arg-type]
    beam: Count = Field(1, description="Beam width when reading; 1 is greedy.")
    sync_batchnorm: bool = Field(
        True, description="Batch statistics over all DDP workers, so results do not depend on their number."
    )


class Family(Settings):
    """One family of augmentations."""

    probability: Probability = Field(0.5, description="How often it is applied to a line.")
    strength: Annotated[float, Field(ge=0.0, le=3.0)] = Field(
        1.0, description="Scale of the family's ranges; 0 does nothing, 1 is the usual, 3 the limit."
    )


class AugmentSettings(Settings):
    """Augmentation while training (paper: geometric, colour, blur, noise, morphological)."""

    ramp: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Passes over the lines in which a recognizer's augmentation grows from none to its probabilities: "
        "lines that were never seen need no varying. 0: full from the start.",
    )
    geometric: Family = Field(default_factory=Family, description="Affine, elastic or perspective.")  # type: ignore[arg-type]
    colour: Family = Field(default_factory=Family, description="Brightness, contrast, inversion.")  # type: ignore[arg-type]
    blur: Family = Field(default_factory=lambda: Family(probability=0.2), description="Gaussian or motion blur.")  # type: ignore[call-arg]
    noise: Family = Field(default_factory=lambda: Family(probability=0.2), description="Gaussian or speckle noise.")  # type: ignore[call-arg]
    morphological: Family = Field(default_factory=lambda: Family(probability=0.3), description="Erosion or dilation.")  # type: ignore[call-arg]


class PretextSettings(Settings):
    """The pretext tasks' own settings."""

    adaptation: Literal["window", "resize"] = Field(
        "window", description="How a line fits a fixed-size task: crop a window, or warp the whole line."
    )
    window_aspect: Annotated[float, Field(ge=0.5, le=8.0)] = Field(
        2.0, description="Width of a window over its height (flip, jigsaw); rotation is always square."
    )
    jigsaw_rows: Count = Field(1, description="Rows of the jigsaw grid.")
    jigsaw_columns: Annotated[int, Field(ge=2, le=12)] = Field(4, description="Columns of the jigsaw grid.")
    jigsaw_permutations: Annotated[int, Field(ge=2, le=1000)] = Field(
        24, description="Size of the permutation set, chosen for large Hamming distance."
    )
    jigsaw_gap: Annotated[float, Field(ge=0.0, le=0.4)] = Field(
        0.1, description="Gap cut between tiles, as a share of the tile; hides strokes that continue."
    )
    sorting_pieces: Annotated[int, Field(ge=2, le=16)] = Field(5, description="Vertical pieces of a line.")
    augment: bool = Field(True, description="Augment the lines before the view is made.")


class StreamSettings(Settings):
    """Lines in motion."""

    workers: Count = Field(1, description="CPU workers per training worker that decode and make views.")
    cpus_per_worker: Positive = Field(1.0, description="CPUs that Ray reserves for each of them.")
    shuffle_lines: Count = Field(
        2048, description="Lines shuffled and sorted by width together; larger means less padding."
    )
    prefetch_batches: Count = Field(4, description="Batches held ready beside the trainer, at the least.")
    cache_mb: Annotated[int, Field(ge=0)] = Field(
        512, description="A split's lines stay in Ray's object store where they fit: decoded and scaled, else as files."
    )
    read_retries: Count = Field(
        5, description="How often a task is tried again whose storage did not answer, or whose process died."
    )


class StageSettings(Settings):
    """What both stages share."""

    workers: Count = Field(1, description="DDP workers; the global batch is split over them.")
    min_workers: Count | None = Field(
        None,
        description="As many workers as there is room for, from this to `workers`, while nodes come and go; "
        "null: exactly `workers`.",
    )
    cpus_per_worker: Positive = Field(1.0, description="CPUs that Ray reserves for each worker.")
    gpus_per_worker: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="GPUs (or a fraction) per worker; null: 1 (pretrain) or 0.25 (finetune) if there are any.",
    )
    threads: Count | None = Field(None, description="torch threads per worker; null: cpus_per_worker, rounded.")
    batch_size: Count = Field(64, description="Lines per optimizer step over all workers (global batch).")
    max_epochs: Count = Field(200, description="Upper bound; the learning rate decays towards it.")
    max_minutes: Positive | None = Field(
        None, description="Wall-clock bound of a trial; the learning-rate schedule is fitted to it."
    )
    min_steps_per_epoch: Count = Field(
        1, description="Few lines are repeated within an epoch until it has this many optimizer steps."
    )
    max_steps_per_epoch: Count | None = Field(
        None,
        description="Many lines: a pass over them is cut into epochs of about this many optimizer steps (of whole "
        "stream.shuffle_lines), each with its validation; max_epochs and patience count these. null: not cut.",
    )
    patience: Count = Field(30, description="Epochs without a better validation figure before a trial ends.")
    learning_rate: Positive = Field(1e-3, description="Peak learning rate of Adam.")
    warmup: Probability = Field(0.02, description="Share of the schedule in which the rate rises linearly.")
    final_rate: Probability = Field(0.01, description="Rate at the end of the cosine decay, as a share of the peak.")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        1e-4, description="Decoupled weight decay of AdamW: every step takes rate x decay off each weight."
    )
    clip_norm: Positive = Field(5.0, description="Gradients are scaled down to this norm.")
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 autocast on GPUs, and on CPUs with AMX or AVX-512 BF16; else float32.",
    )
    eval_lines: Count | None = Field(
        None,
        description="Validation lines used between epochs (seeded sample); null: all. The best is checked on all.",
    )
    checkpoint_minutes: Annotated[float, Field(ge=0.0)] = Field(
        2.0,
        description="A checkpoint for resuming is written at the first epoch end after this many minutes.",
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        2, description="How often a trial that broke is resumed; nodes that leave do not count."
    )
    node_labels: dict[str, NodeLabel] = Field(
        default_factory=dict,
        description="Training workers run on nodes with these Ray labels only, {ray.io/market-type: spot} for "
        "instance; a value may be !spot, in(a,b) or !in(a,b). {}: anywhere.",
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> StageSettings:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers ({self.min_workers}) is more than workers ({self.workers})")
        return self


class PretrainSettings(StageSettings):
    """Stage ``pretrain``: a pretext task on unlabelled lines."""

    batch_size: Count = Field(256, description="Views per optimizer step over all workers (global batch).")
    patience: Count = Field(20, description="Epochs without better held-out pretext accuracy before it ends.")


class FinetuneSettings(StageSettings):
    """Stage ``finetune``: a recognizer on labelled lines."""

    max_epochs: Count = Field(1000, description="Upper bound; the learning rate decays towards it.")
    encoder_rate: Positive = Field(
        1.0,
        description="Learning rate of what is taken from a pre-trained encoder, as a share of that of all else; "
        "without pre-training it changes nothing.",
    )
    pretrained: Literal["resnet", "encoder"] = Field(
        "resnet",
        description="What is taken from a pre-trained encoder: its ResNet, under a fresh BiLSTM, or all of it "
        "(protocol frozen: always all).",
    )
    auxiliary_ctc: Probability = Field(
        0.5,
        description="Share of the loss that a CTC head beside a transformer decoder has while training, so that it "
        "learns sooner where characters stand; it does not read. 0: as in the paper.",
    )
    sample_lines: Annotated[int, Field(ge=0)] = Field(
        20, description="Test lines on the picture of every trial, with truth and reading; 0: no picture."
    )


class Range(Settings):
    """Values between two limits, for a search."""

    low: float = Field(description="Lowest value.")
    high: float = Field(description="Highest value.")
    log: bool = Field(False, description="Draw orders of magnitude evenly, as for learning rates.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low ({self.low:g}) must be above 0 where log is true")
        return self


def _kind(spec: Any) -> str:
    return "range" if isinstance(spec, Range | dict) else "values"


# What a search draws a setting from: a list of values, or a range.
Spec = Annotated[
    Annotated[Annotated[list[Any], Field(min_length=1)], Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(_kind),
]
Space = dict[str, Spec]


class SearchSettings(Settings):
    """Choices of hyperparameters, tried within a cell (never between cells); off while both spaces are empty."""

    pretrain: Space = Field(
        default_factory=dict,
        description="Settings to search while pre-training: {setting: [values] or {low, high, log}}; * stands for "
        "any part, as in augment.*.strength.",
    )
    finetune: Space = Field(default_factory=dict, description="Settings to search while fine-tuning, likewise.")
    choices: Annotated[int, Field(ge=2)] = Field(
        8, description="Choices tried in each search; the first is the recipe as it stands."
    )
    scope: Literal["cell", "stage"] = Field(
        "cell",
        description="cell: every cell (every encoder) has a search of its own. stage: one search per corpus, in the "
        "first cell with most labels, and all cells take what won.",
    )
    method: Literal["random", "optuna"] = Field(
        "random",
        description="Where choices come from; optuna learns from earlier ones (pip install 'htr-ray[optuna]').",
    )
    halving: bool = Field(
        True, description="Successive halving (ASHA): choices that fall behind those of the same cell end early."
    )
    reduction: Annotated[float, Field(ge=2.0, le=8.0)] = Field(
        3.0, description="At each rung one choice in so many goes on, and trains so many times as long."
    )
    first_rung: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="Share of its schedule that a choice trains before it is compared for the first time."
    )

    def space(self, stage: str) -> Space:
        """The space of ``pretrain`` or ``finetune``."""
        return self.pretrain if stage == "pretrain" else self.finetune


class BudgetSettings(Settings):
    """Limits of one run of a grid; where one is reached it stops in good order, and the same command goes on."""

    max_hours: Positive | None = Field(None, description="Wall clock.")
    max_gpu_hours: Positive | None = Field(None, description="GPUs held by trials, times hours.")
    max_cost: Positive | None = Field(None, description="GPU hours times gpu_hour_price.")
    gpu_hour_price: Positive | None = Field(None, description="What a GPU costs per hour, in any currency.")

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> BudgetSettings:
        if self.max_cost is not None and self.gpu_hour_price is None:
            raise ValueError("max_cost needs gpu_hour_price, the price of a GPU per hour")
        return self


class RunSettings(Settings):
    """What a single stage run needs (``jobs/pretrain.py``, ``jobs/finetune.py``), without the grid's axes."""

    preset: PresetName = Field("small", description="Model and training recipe; single keys override it.")
    seed: Seed = Field(0, description="Seed of weights, label subset, shuffling and views.")
    model: ModelSettings = Field(default_factory=ModelSettings)  # type: ignore[arg-type]
    augment: AugmentSettings = Field(default_factory=AugmentSettings)
    pretext: PretextSettings = Field(default_factory=PretextSettings)  # type: ignore[arg-type]
    stream: StreamSettings = Field(default_factory=StreamSettings)  # type: ignore[arg-type]
    pretrain: PretrainSettings = Field(default_factory=PretrainSettings)  # type: ignore[arg-type]
    finetune: FinetuneSettings = Field(default_factory=FinetuneSettings)  # type: ignore[arg-type]
    label_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Share of the training labels used by jobs/finetune.py."
    )
    protocol: ProtocolName = Field("semi_supervised", description="Fine-tune everything, or the decoder only.")
    decoder: DecoderName = Field("ctc", description="Decoder of jobs/finetune.py.")


def _unique(values: list[Any]) -> list[Any]:
    if len(values) != len(set(values)):
        raise ValueError("has the same value twice")
    return values


# After validation: 1 and 1.0 are the same share of labels.
Axis = AfterValidator(_unique)


class GridSettings(Settings):
    """The settings of a grid (``jobs/full_grid.py``)."""

    name: str = Field(
        "sample",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Names the folder under storage, and the MLflow experiment and its parent run.",
    )
    corpora: Annotated[list[str], Axis] = Field(
        default_factory=lambda: ["sample"],
        min_length=1,
        description="Corpus URIs; 'sample' is the embedded corpus, made on the spot.",
    )
    pretexts: Annotated[list[PretextChoice], Axis] = Field(
        default_factory=lambda: list(get_args(PretextChoice)),
        min_length=1,
        description="Pretext tasks to compare; 'none' trains from scratch.",
    )
    decoders: Annotated[list[DecoderName], Axis] = Field(
        default_factory=lambda: list(get_args(DecoderName)), min_length=1, description="Decoders to compare."
    )
    label_fractions: Annotated[list[Annotated[float, Field(gt=0.0, le=1.0)]], Axis] = Field(
        default_factory=lambda: [0.1, 1.0], min_length=1, description="Shares of the training labels."
    )
    protocols: Annotated[list[ProtocolName], Axis] = Field(
        default_factory=lambda: list(get_args(ProtocolName)[:1]), min_length=1, description="Evaluation protocols."
    )
    seeds: Annotated[list[Seed], Axis] = Field(
        default_factory=lambda: [0], min_length=1, description="Seeds; each is a repetition of every cell."
    )
    preset: PresetName = Field("tiny", description="Model and training recipe; single keys override it.")
    storage: str = Field("runs", description="URI for checkpoints and results; shared by all nodes of a cluster.")
    tracking_uri: str | None = Field(
        None, description="MLflow tracking URI; null: sqlite under ./runs (or MLFLOW_TRACKING_URI if set)."
    )
    max_concurrent: Count | None = Field(
        None, description="Trials at a time; null: as many as the cluster's CPUs and GPUs hold."
    )
    model: ModelSettings = Field(default_factory=ModelSettings)  # type: ignore[arg-type]
    augment: AugmentSettings = Field(default_factory=AugmentSettings)
    pretext: PretextSettings = Field(default_factory=PretextSettings)  # type: ignore[arg-type]
    stream: StreamSettings = Field(default_factory=StreamSettings)  # type: ignore[arg-type]
    pretrain: PretrainSettings = Field(default_factory=PretrainSettings)  # type: ignore[arg-type]
    finetune: FinetuneSettings = Field(default_factory=FinetuneSettings)  # type: ignore[arg-type]
    search: SearchSettings = Field(default_factory=SearchSettings)  # type: ignore[arg-type]
    budget: BudgetSettings = Field(default_factory=BudgetSettings)  # type: ignore[arg-type]


class TranscribeSettings(Settings):
    """What reading a collection needs (``jobs/transcribe.py``)."""

    beam: Count | None = Field(
        None, description="Beam width; 1 is greedy. null: as the model was made, or at least 10 with a language model."
    )
    language_text: str | None = Field(
        None, description="URI of a UTF-8 text, one line of writing per line; a character n-gram model is made of it."
    )
    word_list: str | None = Field(
        None, description="URI of a UTF-8 list of words, one per line; readings of these words are preferred."
    )
    language_order: Annotated[int, Field(ge=2, le=12)] = Field(
        6, description="Characters that the n-gram model looks at together."
    )
    language_weight: Annotated[float, Field(ge=0.0)] | None = Field(
        None, description="How much the language model counts beside the image; null: its own default."
    )
    existing: Literal["replace", "keep"] = Field(
        "replace", description="Lines of ALTO and PAGE files that have a text: write over it, or leave it."
    )
    batch_size: Count | None = Field(
        None, description="Lines read at once; null: 64 on GPUs, as many as are fast on CPUs."
    )
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 autocast on GPUs, and on CPUs with AMX or AVX-512 BF16; else float32.",
    )
    part_lines: Annotated[int, Field(ge=1, le=4096)] = Field(
        256, description="Lines that are read, written and resumed together; a page is never cut in two."
    )
    part_pages: Annotated[int, Field(ge=1, le=256)] = Field(8, description="Pages of one unit of work.")
    actors: Count | None = Field(
        None, description="Processes that hold the model; null: as many as the cluster's GPUs, or else CPUs, hold."
    )
    cpus_per_actor: Positive = Field(1.0, description="CPUs that Ray reserves for each of them.")
    gpus_per_actor: Annotated[float, Field(ge=0.0)] | None = Field(
        None, description="GPUs (or a fraction) for each of them; null: 1 if the cluster has any, else 0."
    )
    threads: Count | None = Field(None, description="torch threads of each; null: cpus_per_actor, rounded.")
    decoders: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="CPU workers that decode and scale lines for them; null: 4 for each GPU; 0: they do it themselves.",
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        5, description="How often a unit of work is tried again when a store does not answer."
    )


# A preset holds what differs from the field defaults above, which are the paper's.
PRESETS: dict[str, dict[str, Any]] = {
    # Paper, section 4: 29-layer ResNet, 2-layer BiLSTM, up to 1000 epochs with early stopping.
    "paper": {},
    # Learns real handwriting on two cores in an hour, AMX or not. Few, wide blocks and small batches learn soonest
    # (levers.md: 35 % validation CER where 29 narrow layers are at 45 %, and with batches of 16 at 52 %).
    "small": {
        "model": {
            "height": 32,
            "width_scale": 1.5,  # as many frames per character as 48 px give, for two thirds of the work
            "channels": 96,
            "blocks": [1, 1, 1, 1],
            "lstm_hidden": 128,
            "dropout": 0.3,
            "max_width": 1536,
            "transformer": {"dim": 128, "layers": 2, "heads": 4, "feedforward": 512},
        },
        # Light for what is seen a few times, strong for few labels, which would be learned by heart.
        "augment": {
            "ramp": 24,
            "geometric": {"probability": 0.9, "strength": 1.5},
            "morphological": {"probability": 0.5},
        },
        # Three tiles, about as wide as high: dhsd 46 % of six permutations after nine passes, where four tiles half as
        # wide stay at the 4 % of guessing for eleven (levers.md).
        "pretext": {"window_aspect": 4.0, "jigsaw_columns": 3, "jigsaw_permutations": 6},
        "pretrain": {"batch_size": 32, "max_epochs": 30, "patience": 10},
        "finetune": {
            "batch_size": 8,
            "max_epochs": 50,
            "min_steps_per_epoch": 200,  # few labels: more of the time for learning, less for validations
            "patience": 15,
            "learning_rate": 2e-3,
            # Weights stay about as large as they began (sqrt(rate / 2 decay) = 0.045): with a tenth of dhsd's labels
            # 18.8 % test CER, where 1e-4 ends at 24.7 (levers.md).
            "weight_decay": 0.5,
        },
    },
    # For the embedded sample corpus: minutes on two cores. Small batches learn most per line there, and few blocks
    # twice as fast (levers.md: 1.9 % validation CER where 29 layers are at 4.8 %).
    "tiny": {
        "model": {
            "height": 32,
            "channels": 64,
            "blocks": [1, 1, 1, 1],
            "lstm_hidden": 64,
            "max_width": 1024,
            "transformer": {"dim": 64, "layers": 1, "heads": 4, "feedforward": 256},
        },
        "stream": {"shuffle_lines": 1024},
        # A few thousand steps leave no time for hard lines (9,000 seen: CER 10 % without, 37 % with full augmentation).
        "augment": {
            family: {"probability": 0.15, "strength": 0.5}
            for family in ("geometric", "colour", "blur", "noise", "morphological")
        },
        # Three tiles about as wide as high: 45 % after four epochs, where four narrow ones stay at the 4 % of guessing.
        "pretext": {"window_aspect": 4.0, "jigsaw_columns": 3, "jigsaw_permutations": 6},
        "pretrain": {"batch_size": 16, "max_epochs": 4, "patience": 4, "learning_rate": 2e-3},
        "finetune": {
            "batch_size": 8,
            "max_epochs": 7,
            "min_steps_per_epoch": 50,
            "patience": 7,
            "learning_rate": 3e-3,
        },
    },
}


def load(
    schema: type[Settings],
    *,
    file: str | os.PathLike[str] | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Any:
    """Read settings in layers: preset < ``base`` < file < environment < overrides.

    ``overrides`` are ``key=value`` with dotted keys and YAML values. Returns a validated
    instance of ``schema``. Raises UserError that names the key, the value, where it was
    set and what is allowed.
    """
    environment = os.environ if environment is None else environment
    layers: list[tuple[str, Any]] = []
    if base:
        layers.append(("defaults of this command", OmegaConf.create(dict(base))))
    if file is not None:
        layers.append((str(file), _read_yaml(Path(file))))
    layers.append(("environment", _from_pairs(_environment_pairs(environment, schema), "environment")))
    layers.append(("command line", _from_pairs(list(overrides), "command line")))

    user: Any = {}
    try:
        merged = OmegaConf.merge(*(layer for _, layer in layers))
        user = OmegaConf.to_container(merged, resolve=True) or {}
    except OmegaConfBaseException as error:
        raise UserError(f"settings: {_first_line(error)}") from error
    if not isinstance(user, dict):
        raise UserError(f"settings: expected 'key: value' pairs, got {type(user).__name__}")
    own = schema.model_fields.get("preset")
    preset = user.get("preset", own.default) if own is not None else None
    recipe = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    full = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(recipe), OmegaConf.create(user)))
    try:
        return schema.model_validate(full)
    except ValidationError as error:
        raise UserError(_explain(error, schema, layers)) from error


def describe(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield ``(dotted key, default, one line of doc)`` for every setting, for ``--help`` and docs."""
    for name, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, Family):
            yield from describe(annotation, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Family):
            default = f"{{probability: {default.probability}, strength: {default.strength}}}"
        yield f"{prefix}{name}", "null" if default is None else str(default), field.description or ""


def _read_yaml(path: Path) -> Any:
    try:
        settings = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"--config {path}: no such file") from None
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the YAML parser's errors share no base with OmegaConf's
        raise UserError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not OmegaConf.is_dict(settings):
        raise UserError(f"--config {path}: holds a list; write 'key: value' pairs")
    return settings


def _environment_pairs(environment: Mapping[str, str], schema: type[BaseModel]) -> list[str]:
    """``HTR_RAY_PRETRAIN__MAX_EPOCHS=3`` -> ``pretrain.max_epochs=3``."""
    pairs = []
    for key in sorted(environment):
        if key.startswith(ENV_PREFIX) and key not in NOT_SETTINGS:
            pairs.append(f"{key[len(ENV_PREFIX) :].lower().replace('__', '.')}={environment[key]}")
    return pairs


def _from_pairs(pairs: list[str], where: str) -> Any:
    for pair in pairs:
        if not re.match(r"^[A-Za-z_][\w.]*=", pair):
            raise UserError(f"{where}: '{pair}' is not a setting; write key=value, for instance finetune.workers=2")
        try:
            OmegaConf.from_dotlist([pair])
        except Exception as error:
            raise UserError(f"{where}: '{pair}': the value is not valid YAML: {_first_line(error)}") from error
    return OmegaConf.from_dotlist(pairs)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _explain(error: ValidationError, schema: type[BaseModel], layers: list[tuple[str, Any]]) -> str:
    known = [key for key, _, _ in describe(schema)]
    sections = sorted({key.rsplit(".", 1)[0] for key in known if "." in key})
    lines = []
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        key = ".".join(place)
        source = _source_of([part for part in place if not part.isdigit()], layers)
        if item["type"] == "extra_forbidden":
            others = [section for section in sections if not key.startswith(f"{section}.")]
            close = difflib.get_close_matches(key, known + others, n=3, cutoff=0.5)
            siblings = [k for k in known if k.rsplit(".", 1)[0] == key.rsplit(".", 1)[0]] if "." in key else []
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else (f"allowed here: {', '.join(siblings)}" if siblings else "see --help for all settings")
            )
            lines.append(f"{key} ({source}): unknown setting; {hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key} = {item['input']!r} ({source}): {message[0].lower()}{message[1:]}")
    return "settings:\n  " + "\n  ".join(lines)


def _source_of(place: list[str], layers: list[tuple[str, Any]]) -> str:
    for name, layer in reversed(layers):
        node = layer
        for part in place:
            if not OmegaConf.is_dict(node) or part not in node:
                break
            node = node[part]
        else:
            return name
    return "default"
