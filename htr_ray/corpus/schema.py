"""What a corpus is made of: the columns of a line, and ``corpus.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from htr_ray.corpus.direction import Direction

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SCHEMA_VERSION = 1
INFO_FILE = "corpus.json"
ROW_GROUP_LINES = 256

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("writer", pa.string()),
        pa.field("page", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Line:
    """One text-line image, with a transcription or without."""

    id: str
    """Unique within the corpus."""
    image: bytes
    """Encoded PNG or JPEG, grey."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    text: str | None = None
    """Transcription, NFC; None: unlabelled."""
    writer: str | None = None
    page: str | None = None


class Imported(NamedTuple):
    """A line on its way into a corpus."""

    line: Line
    split: Split | None = None
    """The split that its source puts it in; None: the source says nothing."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A line that could not be used."""

    id: str
    reason: str
    """A short phrase to count by, the same for all lines of the same fault."""
    detail: str = ""
    """What exactly, for this line."""


class SplitCounts(BaseModel):
    """How much a split holds."""

    lines: int = 0
    labelled: int = Field(default=0, description="Lines with a transcription.")
    writers: int = Field(default=0, description="Distinct writers; 0 when writers are not known.")

    def __getitem__(self, key: str) -> int:
        return getattr(self, key)


class CorpusInfo(BaseModel):
    """``corpus.json``: written last, it makes a folder of Parquet files a corpus."""

    # Fields that a later minor version adds are no reason to refuse a corpus.
    model_config = ConfigDict(extra="ignore")

    name: str
    schema_version: int = SCHEMA_VERSION
    licence: str = ""
    source: str = Field(default="", description="Where the lines came from.")
    citation: str = ""
    counts: dict[Split, SplitCounts]
    alphabet: str = Field(description="Characters of train and val, in code point order.")
    direction: Direction = Field(
        default="ltr", description="Where most letters run; texts are stored in logical order either way."
    )
    alphabet_unseen: str = Field(default="", description="Characters of test that train and val lack.")
    set_aside: dict[str, int] = Field(default_factory=dict, description="Lines left out, by reason.")
    set_aside_file: str | None = Field(default=None, description="Its details, a Parquet file beside.")
    files: dict[Split, list[str]] = Field(description="Part files of each split; others there are leftovers.")
    seed: int = Field(default=0, description="Seed of the splits and of the order of lines.")
    split_by: str | None = Field(
        default=None, description="Whose split: official, or what was kept whole: writer, page, line."
    )
    warnings: list[str] = Field(default_factory=list, description="What a user of this corpus should know.")
