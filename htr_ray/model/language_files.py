"""Language models on disk: one JSON file, never unpickled."""

from __future__ import annotations

import json
from typing import Any, get_args

from htr_ray import storage
from htr_ray.corpus.direction import Direction
from htr_ray.errors import UserError
from htr_ray.model.ngrams import CharacterNgrams
from htr_ray.model.wordlist import WordList

FORMAT = 1
"""Version of the layout; raised when an older htr-ray could not read it."""
KINDS: dict[str, type[CharacterNgrams] | type[WordList]] = {"characters": CharacterNgrams, "words": WordList}


def save_language(uri: str, language: CharacterNgrams | WordList) -> None:
    """Write a language model to the file ``uri``."""
    kind = next(name for name, cls in KINDS.items() if isinstance(language, cls))
    value = {"format": FORMAT, "kind": kind, **language.to_json()}
    storage.write_bytes(uri, json.dumps(value, ensure_ascii=False).encode())


def load_language(uri: str) -> CharacterNgrams | WordList:
    """Read a language model. Raises UserError if there is none, or it is damaged or too new."""
    value: Any = storage.read_json(uri)
    if not isinstance(value, dict) or value.get("kind") not in KINDS:
        raise UserError(f"{uri}: field 'kind' is none of {', '.join(KINDS)}; not a language model of htr-ray")
    if value.get("format") != FORMAT:
        raise UserError(
            f"{uri}: format {value.get('format')!r}, but this htr-ray reads {FORMAT}; update htr-ray to load it"
        )
    if value.get("direction") not in get_args(Direction):
        raise UserError(f"{uri}: field 'direction' is {value.get('direction')!r}, known are ltr, rtl")
    try:
        return KINDS[value["kind"]].from_json(value)
    except KeyError as error:
        raise UserError(f"{uri}: field {error} is missing; train the language model again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{uri}: damaged ({error}); train the language model again") from None
