"""The language model of a transcription: made of a text, or of a list of words."""

from __future__ import annotations

import hashlib
import unicodedata

from htr_ray import storage
from htr_ray.config import TranscribeSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.language import LanguageModel


def make_language(settings: TranscribeSettings, alphabet: Alphabet) -> tuple[LanguageModel | None, str | None]:
    """The model that the settings ask for, and the digest of what it is made of; None: they ask for none.

    Raises UserError when the text cannot be used, or both kinds are asked for.
    """
    text, words = settings.language_text, settings.word_list
    if text is not None and words is not None:
        raise UserError("language_text and word_list: give one of them; a text may hold the words, too")
    key, uri = ("word_list", words) if text is None else ("language_text", text)
    if uri is None:
        return None, None
    try:
        data = storage.read_bytes(uri)
    except UserError as error:
        raise UserError(f"{key}={error}") from None
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{key}={uri}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    # As corpora have it (htr_ray/corpus/importers/check.py): one line of writing, single blanks, one normal form.
    lines = [" ".join(unicodedata.normalize(alphabet.form, line).split()) for line in decoded.splitlines()]
    weight = {} if settings.language_weight is None else {"weight": settings.language_weight}
    # NLTK takes a second to import.
    from htr_ray.model.ngrams import CharacterNgrams
    from htr_ray.model.wordlist import WordList

    try:
        if key == "word_list":
            language: LanguageModel = WordList.train(lines, alphabet, **weight)
        else:
            language = CharacterNgrams.train(lines, alphabet, settings.language_order, **weight)
    except UserError as error:
        raise UserError(f"{key}={uri}: {error}") from None
    return language, hashlib.sha256(data).hexdigest()[:16]
