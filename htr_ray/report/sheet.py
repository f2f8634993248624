"""Sheets of test lines for a browser: image, truth and reading with the errors marked (as a picture: ``picture.py``).

An error is never marked by colour alone: what was misread is bold and underlined, what was missed is struck through
in the truth and a gap in the reading, what was added has a wavy line under it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
from jinja2 import Environment
from markupsafe import Markup

from htr_ray.corpus.images import decode_grey
from htr_ray.report.alignment import align, checked, confusions, letters, visible
from htr_ray.report.entries import Entry, Reading, choose
from htr_ray.train.metrics import count_errors

_IMAGE_BYTES = 2_000_000
"""All images of a sheet together, as files; base64 and the text make less than 3 MB of that."""
_HEIGHTS = (88, 64, 44, 32)
"""Pixels that a line image is reduced to: the first with which all images fit. Prints are sharp with twice the 44."""
_WIDEST = 3000


def reading_sheet(readings: Iterable[Reading], images: Mapping[str, bytes], title: str, lines: int = 60) -> str:
    """A self-contained HTML page of ``lines`` test lines with their errors marked.

    ``images`` are image files by line id, those of ``choose`` suffice; a line without says so. The page stays below
    3 MB: images are reduced, and beyond that left out (which is said). Raises UserError as ``choose`` does.
    """
    readings = checked(readings)
    sections = choose(readings, lines)
    errors = count_errors((line["truth"], line["reading"]) for line in readings)
    pictures = _data_uris([line["id"] for found in sections.values() for line in found], images)
    return _ENVIRONMENT.from_string(_PAGE).render(
        title=title,
        style=Markup(STYLE),
        legend=Markup(LEGEND),
        sections={heading: _rows(found, pictures) for heading, found in sections.items()},
        shown=sum(len(found) for found in sections.values()),
        errors=errors,
        confusions=[
            (visible(found.expected), visible(found.read), found.count) for found in confusions(readings, top=20)
        ],
    )


def reading_rows(readings: Sequence[Reading], images: Mapping[str, bytes]) -> Markup:
    """The given lines, in their order, as an HTML fragment; its page needs ``STYLE`` in its head, and ``LEGEND``."""
    readings = checked(readings)
    return _rows(readings, _data_uris([line["id"] for line in readings], images))


def confusion_table(readings: Iterable[Reading]) -> str:
    """All mistakes by frequency as TSV: expected, read, count, share of all mistakes in percent, ids of examples."""
    found = confusions(readings, top=None)
    total = sum(confusion.count for confusion in found)
    rows = ["expected\tread\tcount\tshare\texamples"]
    for confusion in found:
        examples = " ".join(confusion.examples).replace("\t", " ").replace("\n", " ")
        share = f"{100 * confusion.count / total:.2f}"
        fields = (visible(confusion.expected), visible(confusion.read), str(confusion.count), share, examples)
        rows.append("\t".join(fields))
    return "\n".join(rows) + "\n"


def _rows(readings: Sequence[Reading], pictures: Mapping[str, str]) -> Markup:
    entries = [Entry(line) for line in readings]
    return Markup(_ENVIRONMENT.from_string(_ROWS).render(entries=entries, pictures=pictures))


def _data_uris(ids: Sequence[str], images: Mapping[str, bytes]) -> dict[str, str]:
    """Line id to data URI, or to the reason in words why there is no image."""
    arrays, found = {}, {}
    for line_id in ids:
        try:
            arrays[line_id] = decode_grey(images[line_id])
        except KeyError:
            found[line_id] = "no image at hand"
        except ValueError as error:
            found[line_id] = str(error)
    files: dict[str, bytes] = {}
    for height in _HEIGHTS:
        files = {line_id: _reduced(array, height) for line_id, array in arrays.items()}
        if sum(map(len, files.values())) <= _IMAGE_BYTES:
            break
    left = _IMAGE_BYTES
    for line_id, file in files.items():
        left -= len(file)
        kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
        uri = f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
        found[line_id] = uri if left >= 0 else "image left out, the page would be too large"
    return found


def _reduced(array: Any, height: int) -> bytes:
    """A grey image at most ``height`` high, as the smaller of PNG and JPEG."""
    scale = min(1.0, height / array.shape[0], _WIDEST / array.shape[1])
    if scale < 1:
        size = max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale))
        array = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    files = [
        cv2.imencode(".png", array)[1].tobytes(),
        cv2.imencode(".jpg", array, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes(),
    ]
    return min(files, key=len)


STYLE = """
.rd{--wrong:#9a3b00;--wrongbg:#fde9d9;--missed:#00558a;--missedbg:#dceefb;--added:#7a2a5e;--addedbg:#f9e3f1;
  color:#111;background:#fff;border-top:1px solid #ccc;padding:.7em 0;break-inside:avoid}
.rd:first-child{border-top:0}
.rd .facts{font:.85em system-ui,sans-serif;color:#444;margin:0 0 .4em;overflow-wrap:anywhere}
.rd .facts b{color:#111}
.rd img{display:block;max-width:100%;max-height:44px;margin:0 0 .4em}
.rd.rtl img{margin-left:auto}
.rd .none{font-style:italic;color:#666}
.rd dl{display:grid;grid-template-columns:3.2em minmax(0,1fr);gap:.1em .6em;margin:0}
.rd dt{font:.85em/1.6em system-ui,sans-serif;color:#666}
.rd dd{margin:0;font:1.05em/1.6em "DejaVu Sans Mono",Menlo,Consolas,"Noto Sans Mono",monospace;white-space:pre-wrap;
  overflow-wrap:anywhere;unicode-bidi:isolate}
.rd mark{color:var(--wrong);background:var(--wrongbg);font-weight:bold;text-decoration:underline 2px}
.rd del{color:var(--missed);background:var(--missedbg);text-decoration:line-through 2px}
.rd ins{color:var(--added);background:var(--addedbg);text-decoration:underline wavy 1.5px}
.rd i.gap{font-style:normal;color:#767676;user-select:none}
.rd i.gap::before{content:attr(data-gap)}
@media print{.rd mark,.rd del,.rd ins{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""

LEGEND = (
    '<p class="rd" style="border:0;padding:0">Marks: <mark>misread</mark> (bold, underlined), <del>missed</del> (struck'
    ' through in the truth, <i class="gap" data-gap="·"></i> in the reading), <ins>added</ins> (wavy line). A'
    " blank that is wrong is shown as ␣.</p>"
)

_ROWS = """
{%- macro gap(text) -%}
<i class="gap" aria-hidden="true" data-gap="{{ "·" * (text | letters) }}"></i>
{%- endmacro -%}
{%- for entry in entries -%}
{%- set picture = pictures[entry.line.id] -%}
<section class="rd {{ entry.direction }}">
<p class="facts"><b><bdi>{{ entry.line.id }}</bdi></b> - {{ entry.facts }}</p>
{% if picture.startswith("data:") -%}
<img src="{{ picture }}" alt="Image of line {{ entry.line.id }}">
{%- else -%}
<p class="none">({{ picture }})</p>
{%- endif %}
<dl dir="{{ entry.direction }}">
<dt>truth</dt><dd>
{%- for part in entry.parts -%}
{%- if part.kind == "same" -%}{{ part.truth }}
{%- elif part.kind == "wrong" -%}<mark>{{ part.truth | shown }}</mark>
{%- elif part.kind == "missed" -%}<del>{{ part.truth | shown }}</del>
{%- elif entry.direction == "ltr" -%}{{ gap(part.reading) }}
{%- endif -%}
{%- endfor -%}
</dd>
<dt>read</dt><dd>
{%- if not entry.line.reading -%}<span class="none">(nothing)</span>
{%- else -%}
{%- for part in entry.parts -%}
{%- if part.kind == "same" -%}{{ part.reading }}
{%- elif part.kind == "wrong" -%}<mark>{{ part.reading | shown }}</mark>
{%- elif part.kind == "added" -%}<ins>{{ part.reading | shown }}</ins>
{%- elif entry.direction == "ltr" -%}{{ gap(part.truth) }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
</dd>
</dl>
</section>
{% endfor -%}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body{color:#111;background:#fff;font:16px/1.5 system-ui,sans-serif;max-width:75em;margin:1.5em auto;padding:0 1em}
h1{font-size:1.4em;overflow-wrap:anywhere}
h2{font-size:1.15em;margin-top:1.8em}
table{border-collapse:collapse}
th,td{padding:.1em .9em .1em 0;text-align:left}
td+td+td,th+th+th{text-align:right}
{{ style }}
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if shown -%}
<p>CER {{ "%.2f" | format(errors.cer) }} %, WER {{ "%.2f" | format(errors.wer) }} % over {{ errors.lines }} test
line{{ "s" if errors.lines != 1 }}{% if shown < errors.lines %}; {{ shown }} of them are shown{% endif %}.</p>
{{ legend }}
{%- for heading, rows in sections.items() %}
<h2>{{ heading }}</h2>
{{ rows }}
{%- endfor %}
{%- if confusions %}
<h2>Most frequent mistakes</h2>
<table>
<tr><th>expected</th><th>read</th><th>times</th></tr>
{%- for expected, read, count in confusions %}
<tr><td><bdi>{{ expected }}</bdi></td><td><bdi>{{ read }}</bdi></td><td>{{ count }}</td></tr>
{%- endfor %}
</table>
<p>∅ stands for no character: missed where it was read, added where it was expected. ␣ is a blank.</p>
{%- endif %}
{%- else -%}
<p>There are no test lines.</p>
{%- endif %}
</body>
</html>
"""


def _letter_count(text: str) -> int:
    return len(letters(align(text, text)))


def _shown(text: str) -> str:
    return "".join(visible(letter) for letter, _ in letters(align(text, text)))


_ENVIRONMENT = Environment(autoescape=True)
_ENVIRONMENT.filters |= {"letters": _letter_count, "shown": _shown}
