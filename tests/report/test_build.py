"""The files of a report, for grids of all kinds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import yaml
from grid_on_disk import SKILL, write_grid
from lxml import etree, html

from htr_ray import storage
from htr_ray.config import GridSettings
from htr_ray.report import build
from htr_ray.report.results import ChoiceResult, SearchResult
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.results import load_grid, write_failures

FILES = {"report.html", "report.md", "results.csv", "trials.csv", "comparisons.csv", "grid.yaml"}


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("grid")
    return build(load_grid(write_grid(folder, "seeds=[0,1]", "tracking_uri=postgresql://me:secret@host/db", lines=60)))


def test_all_files_are_there(files: dict[str, bytes]) -> None:
    names = {path.removeprefix("report/") for path in files}
    assert {name for name in names if "/" not in name} == FILES
    figures = {name for name in names if name.startswith("figures/")}
    assert "figures/curve-wills-semi_supervised-ctc.svg" in figures
    assert set(re.findall(r"\]\((figures/[^)]+)\)", files["report/report.md"].decode())) == figures
    for name in figures:
        assert etree.fromstring(files[f"report/{name}"]).tag == "{http://www.w3.org/2000/svg}svg"


def test_page_and_markdown_say_the_same(files: dict[str, bytes]) -> None:
    page = html.fromstring(files["report/report.html"])
    text = re.sub(r"\\(.)", r"\1", files["report/report.md"].decode())
    for element in page.iter("h2", "caption", "figcaption"):
        assert element.text_content().strip().replace("\xa0", " ") in text
    for number in re.findall(r"\[\d+\.\d, \d+\.\d\]", page.text_content()):
        assert number in text


def test_the_page_needs_nothing_beside_it(files: dict[str, bytes]) -> None:
    page = html.fromstring(files["report/report.html"])
    assert not list(page.iter("script", "iframe", "object", "base"))
    for element in page.iter():
        for name, value in element.attrib.items():
            if name.split("}")[-1] in ("src", "href", "srcset", "data"):
                assert value.startswith(("#", "data:")), value
    assert not re.search(rb"@import|url\((?!['\"]?(#|data:))", files["report/report.html"])


def test_the_csv_holds_the_numbers_of_the_results(files: dict[str, bytes]) -> None:
    cells, trials = rows(files["report/results.csv"]), rows(files["report/trials.csv"])
    assert len(cells) == 2 * 3 and len(trials) == 2 * 2 + 2 * 2 * 3
    for cell in cells:
        mine = [t for t in trials if all(t[k] == cell[k] for k in ("corpus", "decoder", "label_fraction", "pretext"))]
        mean = sum(float(t["test_cer"]) for t in mine) / len(mine)
        assert float(cell["test_cer"]) == pytest.approx(mean)
        assert float(cell["test_cer_low"]) <= mean <= float(cell["test_cer_high"])
        assert (cell["p"] == "") == (cell["pretext"] == "none")
    compared = rows(files["report/comparisons.csv"])
    assert len(compared) == 4
    assert all(float(c["p"]) <= float(c["p_corrected"]) for c in compared)


def test_the_table_of_the_page_has_the_numbers_of_the_csv(files: dict[str, bytes]) -> None:
    page = html.fromstring(files["report/report.html"])
    table = page.get_element_by_id("errors-wills-semi_supervised")
    heads = [th.text_content() for th in table.find("thead").iter("th")]
    assert heads == ["decoder", "labels", "measure", "none", "flip", "sorting"]
    first = [cell.text_content().split()[0] for cell in next(table.find("tbody").iter("tr"))[3:]]
    expected = [c for c in rows(files["report/results.csv"]) if c["label_fraction"] == "0.1"]
    assert [value.rstrip("▼▲") for value in first] == [f"{float(c['test_cer']):.1f}" for c in expected]
    bold = [b.text_content() for b in next(table.find("tbody").iter("tr")).iter("b")]
    assert bold == [f"{min(float(c['test_cer']) for c in expected):.1f}"]
    marked = {c["pretext"] for c in expected if c["verdict"] == "better"}
    assert ("flip" in marked) == ("▼" in first[1])


def test_the_settings_can_be_run_again_and_hold_no_password(files: dict[str, bytes]) -> None:
    settings = GridSettings.model_validate(yaml.safe_load(files["report/grid.yaml"]))
    assert settings.seeds == [0, 1]
    assert settings.tracking_uri == "postgresql://me:***@host/db"
    assert not any(b"secret" in content for content in files.values())


def test_reasons_of_failures_hold_no_password(tmp_path: Path) -> None:
    reason = "s3://me:secret@bucket/runs/part-00000: the file is damaged"
    folder = write_grid(tmp_path, lines=12, skip=lambda trial: trial.pretext == "flip" and trial.stage == "finetune")
    trials = expand(GridSettings.model_validate(storage.read_json(f"{folder}/grid.json")))
    write_failures(folder, {trial.key: reason for trial in trials if trial.pretext == "flip"})
    grid = load_grid(folder)
    choice = ChoiceResult(0, {}, "failed", None, 0.5, 1.0, reason)
    files = build(replace(grid, searches=[SearchResult("a", "val_cer", None, [choice])]))
    assert any(row["failure"] == reason.replace("secret", "***") for row in rows(files["report/trials.csv"]))
    assert reason.replace("secret", "***").split(":", 1)[1].encode() in files["report/report.html"]
    assert not any(b"secret" in content for content in files.values())


def test_the_same_results_give_the_same_report(tmp_path: Path) -> None:
    folder = write_grid(tmp_path, lines=12)
    assert build(load_grid(folder)) == build(load_grid(folder))


def skip_all(trial: Trial) -> bool:
    return True


KINDS: dict[str, tuple[list[str], Callable[[Trial], bool] | None, list[str], list[str]]] = {
    "one seed": (
        [],
        None,
        ["Every cell was trained once (one seed)", "bootstrap over test lines)"],
        ["Means over seeds with"],
    ),
    "several seeds": (["seeds=[0,1,2]"], None, ["Means over seeds with 95 % intervals"], ["one seed"]),
    "no none row": (["pretexts=[flip,sorting]"], None, ["This grid cannot say", "no column without"], ["Labels saved"]),
    "from scratch alone": (["pretexts=[none]"], None, ["it has no cell with pre-training"], ["Labels saved"]),
    "frozen": (["protocols=[frozen]"], None, ["the encoder is random and fixed"], ["trained from scratch."]),
    "one fraction": (["label_fractions=[1.0]"], None, ["Errors on the test lines"], ["How errors fall with labels"]),
    "nothing done": (
        [],
        skip_all,
        ["This cannot be said yet", "8 missing", "Nothing of this is finished."],
        ["Cost", "significant"],
    ),
    "pre-trained only": (
        [],
        lambda trial: trial.stage == "finetune",
        ["no recognizer has been trained", "Pretext accuracy on held-out lines", "missing"],
        ["Examples of errors"],
    ),
    "none missing": (
        [],
        lambda trial: trial.pretext == "none" and trial.stage == "finetune",
        ["This cannot be said yet", "No difference to none could be tested."],
        ["better", "is significant"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_grid_has_a_sensible_page(kind: str, tmp_path: Path) -> None:
    overrides, skip, says, says_not = KINDS[kind]
    folder = write_grid(tmp_path, *overrides, lines=12, **({"skip": skip} if skip else {}))
    made = build(load_grid(folder))
    text = " ".join(
        html.fromstring(made["report/report.html"]).find("body").text_content().replace("\xa0", " ").split()
    )
    for words in says:
        assert words in text
    for words in says_not:
        assert words not in text
    for wrong in ("None", "nan", "undefined", "Traceback"):
        assert not re.search(rf"\b{wrong}\b", text)


def test_without_its_corpus_the_report_says_what_is_missing(tmp_path: Path) -> None:
    made = build(load_grid(write_grid(tmp_path, lines=12, with_corpus=False)))
    text = made["report/report.md"].decode()
    assert "Their images could not be read." in text
    assert "no intervals over writers, the corpus could not be read" in text
    assert "facts of the corpus could not be read" in text
    assert "licence | not recorded" in text


def test_lines_that_trials_left_out_are_named(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, lines=12))
    for trial in grid.trials:
        trial.result["unreadable"] = [f"bad{n}" for n in range(7)]
    text = build(grid)["report/report.md"].decode()
    assert "wills: 7 unreadable line(s) were left out: bad0; bad1; bad2; bad3; bad4; and 2 more" in text


def test_texts_from_right_to_left_and_markup_in_names_survive(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, lines=12, skill=SKILL))
    for trial in grid.trials:
        for line in trial.readings or []:
            line["truth"], line["reading"] = "שלום <עולם> & |", "שלם <עולם> & |"
    made = build(grid)
    assert "שלום <עולם> & \\|" in made["report/report.md"].decode()
    assert "שלום <עולם> & |" in html.fromstring(made["report/report.html"]).text_content()


def test_tables_without_rows_have_their_columns(tmp_path: Path, files: dict[str, bytes]) -> None:
    for number, pretexts in enumerate(("[flip]", "[none]")):
        folder = write_grid(tmp_path / str(number), f"pretexts={pretexts}", lines=12)
        made = build(load_grid(folder))
        assert pandas.read_csv(io.BytesIO(made["report/comparisons.csv"])).empty
        for name in ("results", "trials", "comparisons"):
            heads = [content[f"report/{name}.csv"].splitlines()[0] for content in (made, files)]
            assert heads[0] == heads[1]


def test_building_changes_nothing_of_its_input(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, lines=12, with_corpus=False))
    notes = list(grid.notes)
    assert build(grid) == build(grid)
    assert grid.notes == notes


def test_corpora_of_like_names_have_figures_of_their_own(tmp_path: Path) -> None:
    made = build(load_grid(write_grid(tmp_path, corpora=("a.b", "a-b"), lines=12)))
    page = html.fromstring(made["report/report.html"])
    ids = [element.attrib["id"] for element in page.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    figures = {path for path in made if path.startswith("report/figures/")}
    assert len(figures) == len(list(page.iter("figcaption"))) > 4


def test_transcriptions_that_may_be_wrong_are_counted(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, lines=12))
    clean = build(grid)["report/report.md"].decode()
    assert "transcriptions to look at" not in clean
    for trial in grid.trials:
        for line in (trial.readings or [])[:3]:
            line["reading"], line["confidence"] = "quite another line", 0.97
    text = build(grid)["report/report.md"].decode()
    assert "3 of 12 test lines were read as something quite different, with high confidence" in text
    assert "(line000, line001, line002)" in text
