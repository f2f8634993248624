"""What the sample corpus says: short lines as they stand in letters and registers.

Names, dates, places and phrases in German, English and French, put together by a small
grammar, so that letter and word statistics are natural. The alphabet is kept modest on
purpose: about fifty characters, all frequent enough to be learnt from a thousand lines.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SHORTEST, LONGEST = 5, 16  # characters of a line


def _words(*rows: str) -> tuple[str, ...]:
    return tuple(" ".join(rows).split())


FIRST_NAMES = _words(
    "Anna Agnes Anton Adele Berta Bruno Karl Emma Ernst Eva Emil Fritz Franz Felix Greta Georg Hanna Heinz",
    "Helene Hans Jakob Jean Johann Julie Karin Kurt Lena Louis Luise Ludwig Lucie Marie Martha Max Martin",
    "Paul Peter Pauline Rosa Robert Rudolf Susanne Sophie Simon Thomas Theo Walter Willi Wilma",
)
LAST_NAMES = _words(
    "Adler Albert Bauer Becker Berger Brandt Dubois Dupont Durand Ebner Engel Fischer Frank Fuchs Garnier",
    "Graf Gruber Haas Hoffmann Huber Jung Keller Koch Krause Lambert Lange Laurent Lehmann Maier Martin",
    "Mercier Moreau Müller Petit Peters Renard Richter Roth Schmidt Simon Sommer Schütz Krüger",
    "Steiner Taylor Turner Thomas Weber Wagner Winter Wolf Walker Schröder Köhler Böhm König",
)
PLACES = _words(
    "Aachen Altena Amiens Basel Berlin Bremen Bonn Bristol Danzig Dijon Dover Dresden Durham Eger Emden",
    "Essen Exeter Frankfurt Freiburg Fulda Genf Gera Gotha Graz Grenoble Halle Hamburg Hof Jena Kassel Kiel",
    "Köln Konstanz Leeds Leipzig Lille Lindau London Lyon Lübeck Mainz Metz Passau Paris Posen Potsdam",
    "Reims Rostock Rouen Saarburg Salzburg Speyer Stettin Straubing Toulon Trier Tours Tübingen Tönning",
    "Weimar Wien Worms Würzburg Jülich Düren Görlitz",
)
MONTHS = {
    "de": _words("Januar Februar April Mai Juni Juli August September Dezember"),
    "en": _words("January February March April May June July August September December"),
    "fr": _words("janvier février mars avril mai juin juillet septembre octobre décembre"),
}
PREPOSITIONS = ("in", "bei", "von", "nach", "aus", "from", "near", "vers", "depuis")

# Each row is one pattern of phrase: a word of every column may follow any word of the column before.
PHRASES = tuple(
    tuple(tuple(column.split()) for column in row.split("|"))
    for row in (
        "der dieser jener|alte neue kleine junge gute letzte lange|Brief Garten Weg Tag Bruder Sommer Bauer "
        "Freund Abend Winter Morgen Wald Hof",
        "die eine meine seine|alte kleine junge gute letzte|Mutter Stadt Tochter Stunde Frau Mühle Reise "
        "Arbeit Familie Wiese",
        "das dieses|alte neue kleine gute schöne|Haus Dorf Buch Feld Geld Kind Leben Wetter Pferd Bild",
        "im am vom zum|alten neuen kleinen grünen|Garten Markt Wald Hafen Bahnhof Berg Dorf Brunnen",
        "wir sie|kommen gehen bleiben schreiben warten fahren sehen lesen hören|heute morgen immer nicht "
        "wieder bald jetzt",
        "mit von bei|zwei drei vier fünf sechs zehn zwölf|Kindern Freunden Pferden Briefen Tagen Söhnen Frauen",
        "sehr ganz immer nicht|schön müde krank früh böse jung gesund kalt warm teuer freundlich",
        "the my our his|old new little young good last long|house garden letter road brother sister river "
        "summer winter village morning friend",
        "we they you|have had|been gone seen left told heard",
        "in on by near|the my our|garden village river house road market town bridge harbour",
        "dear poor|mother father brother sister friend children",
        "all|the my our|days years money people horses weather",
        "very always never|happy early late cold warm tired glad well kind",
        "la une ma sa|petite bonne belle|maison lettre ville famille femme fille vallée école",
        "le un mon son|petit bon vieux grand|jardin village chemin soldat livre bois pays",
        "dans pour avec sur|la ma une notre|maison ville rue famille vie ferme mairie vallée",
        "nous|avons restons partons écrivons allons|ici demain encore toujours bien",
        "chers mes vos|parents amis enfants soldats",
        "deux trois dix six|ans jours mois lettres francs enfants soldats",
    )
)
LETTERS = "abcdefghijklmnoprstuvwxyzöüé"
CAPITALS = "ABDEFGHJKLMPRSTW"
ALPHABET = frozenset(LETTERS + CAPITALS + "0123456789. ")  # all that a line may be written with


def draw_text(rng: np.random.Generator) -> str:
    """A line of ``SHORTEST`` to ``LONGEST`` characters, NFC, words parted by single spaces."""
    while True:
        form = _FORMS[int(rng.choice(len(_FORMS), p=_SHARES))]
        text = form(rng)
        if SHORTEST <= len(text) <= LONGEST:
            return text


def draw_texts(count: int, rng: np.random.Generator, known: set[str] | None = None) -> list[str]:
    """``count`` lines; where ``known`` is given, only lines written with these characters.

    Raises ValueError if ``known`` holds too few characters to write anything.
    """
    texts: list[str] = []
    misses = 0
    while len(texts) < count:
        text = draw_text(rng)
        if known is None or known.issuperset(text):
            texts.append(text)
            misses = 0
        elif (misses := misses + 1) > 10_000:
            raise ValueError(f"no line can be written with {''.join(sorted(known))!r}")
    return texts


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _year(rng: np.random.Generator) -> str:
    return str(int(rng.integers(1790, 1930)))


def _name(rng: np.random.Generator) -> str:
    first, last = _pick(rng, FIRST_NAMES), _pick(rng, LAST_NAMES)
    return f"{first[0]}. {last}" if rng.random() < 0.2 else f"{first} {last}"


def _date(rng: np.random.Generator) -> str:
    language = _pick(rng, ("de", "en", "fr"))
    day, month = int(rng.integers(1, 29)), _pick(rng, MONTHS[language])
    if rng.random() < 0.4:
        return f"{month} {_year(rng)}"
    if language == "de":
        return f"den {day}. {month}" if rng.random() < 0.5 else f"{day}. {month} {_year(rng)}"
    return f"le {day} {month}" if language == "fr" else f"{day} {month} {_year(rng)}"


def _place(rng: np.random.Generator) -> str:
    place = _pick(rng, PLACES)
    form = int(rng.integers(3))
    if form == 0:
        return f"{_pick(rng, PREPOSITIONS)} {place}"
    if form == 1:
        return f"{place} {_year(rng)}"
    return f"{place} den {int(rng.integers(1, 29))}."


def _phrase(rng: np.random.Generator) -> str:
    words = [_pick(rng, column) for column in PHRASES[int(rng.integers(len(PHRASES)))]]
    if len(words) == 3 and rng.random() < 0.3:
        words = words[1:]
    return " ".join(words)


_FORMS: tuple[Callable[[np.random.Generator], str], ...] = (_phrase, _name, _place, _date)
_SHARES = (0.46, 0.22, 0.16, 0.16)
