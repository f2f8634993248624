"""Which settings decide what a trial computes, and which say only where and how fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from htr_ray.config import DecoderName, GridSettings, PretextChoice, PretextName, ProtocolName

# Settings that may change between two runs of one grid: they add trials or say where and how fast, not what.
FREE = {
    "name",
    "corpora",
    "pretexts",
    "decoders",
    "label_fractions",
    "protocols",
    "seeds",
    "storage",
    "tracking_uri",
    "max_concurrent",
    "preset",
    "stream",
    "budget",
}
FREE_STAGE = {
    "workers",
    "min_workers",
    "node_labels",
    "cpus_per_worker",
    "gpus_per_worker",
    "threads",
    "retries",
    "checkpoint_minutes",
    "sample_lines",
}


def deciding_cell(settings: GridSettings) -> tuple[ProtocolName, DecoderName, float, PretextChoice]:
    """Where a search decides for other cells: first protocol and decoder, most labels, from scratch if asked."""
    pretexts = settings.pretexts
    baseline: PretextChoice = "none" if "none" in pretexts else pretexts[0]
    return settings.protocols[0], settings.decoders[0], max(settings.label_fractions), baseline


def first_task(settings: GridSettings) -> PretextName | None:
    """The pretext task whose encoder a search decides for all, where one does."""
    return next((pretext for pretext in settings.pretexts if pretext != "none"), None)


def changes_task(space: Iterable[str]) -> bool:
    """Whether choices differ in the pretext task itself, so that their accuracies do not compare."""
    return any(pattern.startswith("pretext.") for pattern in space)


def recipe_of(settings: GridSettings) -> dict[str, Any]:
    """The settings that decide what a trial computes, flat: dotted key -> value."""
    flat: dict[str, Any] = {}

    def walk(node: dict[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if prefix in ("pretrain.", "finetune.") and key in FREE_STAGE:
                continue
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    # What a search that nobody asks for would be like decides nothing.
    searched = bool(settings.search.pretrain or settings.search.finetune)
    walk(settings.model_dump(mode="json", exclude=FREE if searched else FREE | {"search"}), "")
    if searched:  # the keys of choices do not name it
        flat["the seed that is searched (the smallest of seeds)"] = min(settings.seeds)
    if settings.search.scope == "stage" or changes_task(settings.search.pretrain):
        decides = [*map(str, deciding_cell(settings)), first_task(settings)] if searched else []
        flat["what decides a search"] = " ".join(filter(None, decides))
    return flat
