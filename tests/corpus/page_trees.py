"""What the tests of the importers alto and page share: drawn pages, reading all units, damage done to XML."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lxml import etree

from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.pages import PageUnit
from htr_ray.corpus.schema import Imported, Line, SetAside

FUZZ = int(os.environ.get("HTR_RAY_FUZZ", "250"))
"""How many damaged files a test tries."""
WIDTH, HEIGHT = 400, 240
TEXTS = ("In nomine", "sancte et", "individue")
_ABSURD = ["NaN", "inf", "-inf", "1e308", "-7", "0", "", "abc", "99999999", "-1e5", "1e-9", "٣", "5,5", "0x10"]


def draw_page(scale: float = 1.0) -> np.ndarray:
    """Grey paper with the lines TEXTS on baselines y = 60, 120, 180, from x = 40 on (times ``scale``)."""
    page = np.full((HEIGHT, WIDTH), 200, np.uint8)
    for row, text in enumerate(TEXTS):
        cv2.putText(page, text, (40, 60 * (row + 1)), cv2.FONT_HERSHEY_SCRIPT_COMPLEX, 1.2, 40, 2, cv2.LINE_AA)
    return cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale != 1 else page


def write_image(path: Path, image: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, draw_page() if image is None else image)[1].tobytes())
    return path


def read(
    units: Callable[[str, ImportOptions], Iterator[PageUnit | SetAside]], uri: str | Path, **options: Any
) -> tuple[dict[str, Line], dict[str, SetAside]]:
    """Everything that comes of an input: lines and what was set aside, by id."""
    items: list[Imported | SetAside] = []
    for unit in units(str(uri), ImportOptions(**options)):
        items += [unit] if isinstance(unit, SetAside) else unit.lines()
    lines = {item.line.id: item.line for item in items if isinstance(item, Imported)}
    aside = {item.id: item for item in items if isinstance(item, SetAside)}
    assert len(lines) + len(aside) == len(items)
    return lines, aside


def check_damaged(
    units: Callable[[str, ImportOptions], Iterator[PageUnit | SetAside]], folder: Path, sound: bytes
) -> None:
    """Damage ``p.xml`` of a folder with one other page: nothing but lines and reasons, every line among them."""
    for seed in range(FUZZ):
        data = damage(sound, seed)
        (folder / "p.xml").write_bytes(data)
        found = list(units(str(folder), ImportOptions(height=24)))
        assert len(found) == 2
        items: list[Imported | SetAside] = []
        for unit in found:
            if isinstance(unit, SetAside):
                items.append(unit)
            elif unit.page == "p":
                items += unit.lines()
        check_accounts(items, data)


def check_accounts(items: list[Imported | SetAside], data: bytes) -> None:
    """Every TextLine of parseable XML is a line, set aside, or counted where its page was set aside."""
    try:
        root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        (item,) = items
        # The root may be seen to be another before the file turns out to be broken.
        assert isinstance(item, SetAside) and item.reason in ("broken XML", "not ALTO XML", "not PAGE XML")
        return
    count = len(root.findall(".//{*}TextLine"))
    if len(items) == 1 and isinstance(items[0], SetAside) and "/" not in items[0].id:
        if items[0].reason not in ("not ALTO XML", "not PAGE XML", "broken XML"):
            assert items[0].detail.endswith(f"; {count} lines"), items[0]
        return
    assert len(items) == count


def damage(xml: bytes, seed: int) -> bytes:
    """A damaged copy of an XML file, always the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        xml = chance.choice([_bytes, _bytes, _tree, _tree, _tree, _tree, _numbers, _bomb])(xml, chance)
    return xml


def _bytes(xml: bytes, chance: random.Random) -> bytes:
    if len(xml) < 4:
        return xml
    start = chance.randrange(len(xml))
    end = min(len(xml), start + chance.choice([1, 2, 10, 300]))
    broken = bytearray(xml)
    match chance.randrange(5):
        case 0:
            return xml[:start]
        case 1:
            other = chance.randrange(len(xml))
            broken[start], broken[other] = broken[other], broken[start]
        case 2:
            del broken[start:end]
        case 3:
            broken[start:start] = xml[start:end]
        case _:
            broken[start] = chance.randrange(256)
    return bytes(broken)


def _tree(xml: bytes, chance: random.Random) -> bytes:
    try:
        root = etree.fromstring(xml)
    except etree.XMLSyntaxError:
        return xml
    element = chance.choice(list(root.iter("*")))
    parent = element.getparent()
    match chance.randrange(7):
        case 0 if parent is not None:
            parent.remove(element)
        case 1 if parent is not None:
            parent.insert(0, etree.fromstring(etree.tostring(element, with_tail=False)))
        case 2:
            element.tag = chance.choice(["TextLine", "Page", "{urn:x}Other", "Coords", "alto", "String", "Word"])
        case 3:
            element.text = chance.choice(["", "  ", "a\nb", "\u200b", "x" * 10_000, "\u00ad"])
        case 4:
            element.append(etree.Comment("TextLine"))
            element.append(etree.ProcessingInstruction("x", "y"))
        case _ if element.attrib:
            name = chance.choice(list(element.attrib))
            if chance.random() < 0.4:
                del element.attrib[name]
            else:
                element.set(name, chance.choice(_ABSURD))
    return etree.tostring(root)


def _numbers(xml: bytes, chance: random.Random) -> bytes:
    """Replace one number somewhere in the file."""
    places = list(re.finditer(rb"(?<=[\" ,])-?\d+(?=[\" ,])", xml))
    if not places:
        return xml
    place = chance.choice(places)
    value = chance.choice([*_ABSURD, str(chance.randrange(-3000, 3000))])
    return xml[: place.start()] + value.encode() + xml[place.end() :]


def _bomb(xml: bytes, chance: random.Random) -> bytes:
    """Entities that grow to gigabytes when they are expanded, or that name a file."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "ha"><!ENTITY f SYSTEM "file:///etc/passwd">{laughs}]>'.encode()
    body = re.sub(rb"^\s*<\?xml.*?\?>", b"", xml)
    use = chance.choice([b"&l11;", b"&f;", b""])
    if chance.random() < 0.5:
        return bomb + body.replace(b"</", use + b"</", 1)
    return bomb + re.sub(rb'(CONTENT|points|POINTS|id|ID)="', lambda found: found.group() + use, body, count=1)
