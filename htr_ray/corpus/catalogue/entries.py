"""The entries of the catalogue: what an openly licensed corpus is, where it lies, and how it is imported."""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import fields
from functools import lru_cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from htr_ray import storage
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.errors import UserError

# No licence that forbids commercial use or derivatives is open; a corpus with another one gets no entry.
Licence = Literal["CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT", "Apache-2.0", "AFL-3.0", "etalab-2.0"]
Revision = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_PATH_OPTIONS = ("images", "split_files")
_WIDTH = 118


def _inside(path: str) -> str:
    if not path or path.startswith("/") or {"", ".", ".."} & set(path.split("/")):
        raise ValueError("not a path below the root of the repository")
    return path


Inside = Annotated[str, AfterValidator(_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GitSource(_Part):
    """A commit of a public git repository. Its id is the checksum of all that it holds."""

    kind: Literal["git"]
    url: str
    revision: Revision | None = Field(description="None: not known; the newest commit is taken and recorded.")
    paths: tuple[Inside, ...] = Field(default=(), description="What to keep of it; none: everything.")

    @property
    def address(self) -> str:
        return self.url


class HubSource(_Part):
    """Files of a dataset on the Hugging Face hub."""

    kind: Literal["hub"]
    repository: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Revision | None = Field(description="None: not known; the newest commit is taken and recorded.")
    files: tuple[str, ...] = Field(min_length=1, description="Patterns, such as data/*.parquet.")
    sha256: dict[str, Sha256] | None = Field(description="By path; None: not known, the hub's own are compared.")

    @property
    def address(self) -> str:
        return f"https://huggingface.co/datasets/{self.repository}"


class Entry(_Part):
    """One corpus."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    languages: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")], ...] = Field(min_length=1)
    period: str = Field(default="", description="Years, as in 1300-1599.")
    lines: int | None = Field(default=None, description="As the publishers state; None: they do not.")
    licence: Licence = Field(description="SPDX identifier.")
    licence_seen: str = Field(min_length=1, description="Where the licence is stated.")
    citation: str = Field(min_length=1)
    source: GitSource | HubSource = Field(discriminator="kind")
    size_mb: int | None = Field(default=None, description="Of the download, where it is known.")
    input: Inside | None = Field(default=None, description="What the importer reads of it; None: all.")
    format: str = Field(description="Name of the importer.")
    options: dict[str, Any] = Field(default_factory=dict, description="Fields of ImportOptions; paths from its root.")
    remarks: str = ""

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        unknown = options.keys() - {field.name for field in fields(ImportOptions)}
        if unknown:
            raise ValueError(f"no import option: {', '.join(sorted(unknown))}")
        return options

    def input_at(self, root: str) -> str:
        """The URI to import from, when the source lies at ``root``."""
        return storage.join(root, self.input or "")

    def options_at(self, root: str) -> ImportOptions:
        """How to import it, when the source lies at ``root``."""
        places = {name: storage.join(root, self.options[name]) for name in _PATH_OPTIONS if name in self.options}
        return ImportOptions(**(self.options | places))


@lru_cache(maxsize=1)
def load() -> dict[str, Entry]:
    """All entries by name, in the catalogue's order."""
    text = resources.files(__package__).joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return {entry.name: entry for entry in map(Entry.model_validate, yaml.safe_load(text))}


def find(name: str) -> Entry:
    """The entry of that name. Raises UserError, with what was probably meant, when there is none."""
    entries = load()
    if name.strip().lower() in entries:
        return entries[name.strip().lower()]
    close = difflib.get_close_matches(name.strip().lower(), entries, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UserError(f"--corpus {name}: not in the catalogue; {hint}There are: {', '.join(entries)}")


def listing() -> str:
    """One line for each entry, for ``--help``."""
    entries = load().values()
    width = max(len(entry.name) for entry in entries)
    return "\n".join(f"{e.name:<{width}}  {','.join(e.languages):<5}  {e.licence:<9}  {e.title}" for e in entries)


def describe(entry: Entry) -> str:
    """What a person should know before the download: contents, licence, origin, and how it will be checked."""
    source = entry.source
    contents = [", ".join(entry.languages), entry.period, f"{entry.lines:,} lines" if entry.lines else ""]
    pinned = f"at commit {source.revision}" if source.revision else "newest commit: the catalogue names none"
    rows = [
        ("contents", "; ".join(part for part in contents if part)),
        ("licence", f"{entry.licence} (https://spdx.org/licenses/{entry.licence}.html)"),
        ("stated at", entry.licence_seen),
        ("source", f"{source.address} {pinned}"),
        ("download", f"about {entry.size_mb:,} MB" if entry.size_mb else "size not known beforehand"),
        ("check", _check(source)),
        ("cite", entry.citation),
        ("note", entry.remarks),
    ]
    return "\n".join([f"{entry.name}: {entry.title}", *(_row(label, text) for label, text in rows if text)])


def _check(source: GitSource | HubSource) -> str:
    if isinstance(source, GitSource):
        return "by git: the id of a commit is the checksum of all its files"
    if source.sha256 is None:
        return "sha256 as the hub states it; the catalogue has none to compare"
    return "sha256 as the catalogue states it"


def _row(label: str, text: str) -> str:
    indent = " " * 12
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"  {label:<10}",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
