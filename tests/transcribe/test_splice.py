"""Changing XML at some elements: what is not meant to change does not, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from htr_ray.corpus.importers.layout import LayoutError
from htr_ray.transcribe.splice import Document

ODD = (
    "<?xml version='1.0' encoding='{encoding}'?>\r\n<!-- a > b --><?keep <this?>\n"
    "<x:root xmlns:x = 'urn:x'  a='1 > 0'\n  b=\"'\"><![CDATA[<x:line/>]]>"
    "<x:line   k = 'old'\tz=\"k='no'\" >text &#228; &amp;</x:line ><x:line/>\r\n  <x:gone/><!--stay--></x:root>\n"
    "<!-- end -->"
)


def _odd(encoding: str) -> tuple[bytes, Document, list[etree._Element]]:
    data = ODD.format(encoding=encoding).encode(encoding)
    document = Document(data)
    return data, document, list(document.root.iterchildren("*"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252"])
def test_nothing_changes_unless_asked(encoding: str) -> None:
    data, document, _ = _odd(encoding)
    assert document.result() == data


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_only_what_is_asked_changes(encoding: str) -> None:
    data, document, (first, second, third) = _odd(encoding)
    document.set_attributes(first, k='n"<ä>', new="\n")
    document.set_text(first, "<b> & שלום")
    document.set_text(second, "in")
    document.remove(third)
    word = "שלום" if encoding.startswith("utf") else "&#1513;&#1500;&#1493;&#1501;"
    expected = (
        data.decode(encoding)
        .replace("k = 'old'", 'k = "n&quot;&lt;ä&gt;"')
        .replace("z=\"k='no'\" >", 'z="k=\'no\'" new="&#10;" >')
        .replace("text &#228; &amp;", f"&lt;b&gt; &amp; {word}")
        .replace("<x:line/>\r\n  <x:gone/>", "<x:line>in</x:line>")
    )
    assert document.result().decode(encoding) == expected
    found = etree.fromstring(document.result())[0]
    assert (found.get("k"), found.get("new"), found.text) == ('n"<ä>', "\n", "<b> & שלום")


def test_elements_are_put_in_as_their_neighbours_stand() -> None:
    document = Document(b"<a:r xmlns:a='u'>\n  <a:b/>\n  <a:c></a:c>\n  <a:d/>\n</a:r>")
    b, c, d = document.root
    assert document.name_like(b, "New") == "a:New"
    document.insert(document.root, b, "<a:New/>")
    document.insert(c, None, "<a:In/>")
    document.insert(d, None, "<a:In/>")
    expected = b"<a:r xmlns:a='u'>\n  <a:b/>\n  <a:New/>\n  <a:c><a:In/></a:c>\n  <a:d><a:In/></a:d>\n</a:r>"
    assert document.result() == expected


@given(st.text(), st.text())
def test_any_text_comes_back_out(inside: str, value: str) -> None:
    document = Document(b"<r><e/></r>")
    document.set_attributes(document.root, v=value)
    document.set_text(document.root[0], inside)
    root = etree.fromstring(document.result())
    # What XML cannot hold at all is replaced, character by character.
    for told, asked in ((root.get("v"), value), (root[0].text or "", inside)):
        assert len(told) == len(asked)
        assert all(a == b or (a == "\ufffd" and not _holds(b)) for a, b in zip(told, asked, strict=True))


def _holds(character: str) -> bool:
    try:
        etree.fromstring(f"<r>&#{ord(character)};</r>")
    except (etree.XMLSyntaxError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<r", "broken XML"),
        (b"", "broken XML"),
        (b'<!DOCTYPE r [<!ENTITY a "b">]><r>&a;</r>', "broken XML"),
        (b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><r/>', "broken XML"),
        (b'<?xml version="1.0" encoding="utf-8"?><r>\xff</r>', "broken XML"),
    ],
)
def test_files_that_cannot_be_written(data: bytes, reason: str) -> None:
    with pytest.raises(LayoutError) as caught:
        Document(data)
    assert caught.value.args[0] == reason


def test_changes_inside_of_changes_are_refused() -> None:
    document = Document(b"<r><e><f/></e></r>")
    document.remove(document.root[0])
    document.remove(document.root[0][0])
    with pytest.raises(LayoutError, match="XML cannot be written"):
        document.result()
