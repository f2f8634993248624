"""Tables of the JSON files that recognition.py and reading_speed.py wrote.

    python tests/benchmarks/peers/table.py FOLDER [--into tests/benchmarks/results/recognition.md]

Prints them, or puts them between the marks of a Markdown file, whose other text stays as it is. Rows are what ran.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

BEGIN, END = "<!-- tables: table.py writes from here -->", "<!-- to here -->"
Record = dict[str, Any]


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def recognition(records: Iterable[Record]) -> str:
    """What came out of equal time, best first within a corpus, share of labels, budget and seed."""
    heads = ("corpus", "labels", "minutes", "seed", "contender", "test CER %", "test WER %", "validation CER %")
    heads += ("lines/s", "epochs", "CPU s", "wall s")

    def race(record: Record) -> tuple[object, ...]:
        return record["corpus"], -record["label_fraction"], record["minutes"], record["seed"]

    return markdown(
        heads,
        (
            (
                record["corpus"],
                f"{100 * record['label_fraction']:g} % ({record['train_lines']:,})",
                f"{record['minutes']:g}",
                record["seed"],
                record["contender"],
                f"{record['test_cer']:.1f}",
                f"{record['test_wer']:.1f}",
                f"{record['val_cer']:.1f}",
                f"{record['lines_per_cpu_second']:.0f}",
                f"{record['curve'][-1]['epochs']:.1f}",
                f"{record['cpu_seconds']:.0f}",
                f"{record['wall_seconds']:.0f}",
            )
            for record in sorted(records, key=lambda record: (*race(record), record["test_cer"]))
        ),
    )


def over_seeds(records: Iterable[Record]) -> str:
    """Mean, least and greatest error over the seeds of a race that was run with several; best first in it."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        race = record["corpus"], -record["label_fraction"], record["minutes"], record["contender"]
        groups.setdefault(race, []).append(record)
    several = [(race, runs) for race, runs in groups.items() if len({run["seed"] for run in runs}) > 1]
    if not several:
        return ""

    def figures(runs: list[Record], name: str) -> str:
        values = [run[name] for run in runs]
        return f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"

    heads = ("corpus", "labels", "minutes", "contender", "seeds", "test CER %", "validation CER %", "epochs")
    return markdown(
        heads,
        (
            (
                runs[0]["corpus"],
                f"{100 * runs[0]['label_fraction']:g} %",
                f"{runs[0]['minutes']:g}",
                runs[0]["contender"],
                ", ".join(str(run["seed"]) for run in sorted(runs, key=lambda run: run["seed"])),
                figures(runs, "test_cer"),
                figures(runs, "val_cer"),
                f"{fmean(run['curve'][-1]['epochs'] for run in runs):.1f}",
            )
            for _, runs in sorted(several, key=lambda one: (*one[0][:3], fmean(run["test_cer"] for run in one[1])))
        ),
    )


def reading(records: Iterable[Record]) -> str:
    """Greedy reading of the test lines, fastest first within a corpus."""
    heads = ("corpus", "contender", "test CER %", "ms/line", "lines/s", "start, s", "lines/s with start")
    return markdown(
        heads,
        (
            (
                record["corpus"],
                record["reading"],
                f"{record['cer']:.1f}",
                f"{record['ms_per_line']:.1f}",
                f"{record['lines_per_cpu_second']:.0f}",
                f"{record['start_cpu_seconds']:.1f}",
                f"{record['lines_per_cpu_second_with_start']:.0f}",
            )
            for record in sorted(records, key=lambda record: (record["corpus"], record["ms_per_line"]))
        ),
    )


def tables(folder: Path) -> str:
    """All tables of a folder of JSON files; raises SystemExit when it has none."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    trained = [record for record in records if "test_cer" in record]
    read = [record for record in records if "reading" in record]
    if not trained and not read:
        raise SystemExit(f"{folder}: no results of recognition.py or reading_speed.py")
    parts = [f"### Training\n\n{recognition(trained)}"] if trained else []
    if seeds := over_seeds(trained):
        parts.append(f"### Training, over the seeds\n\n{seeds}")
    parts += [f"### Reading\n\n{reading(read)}"] if read else []
    return "\n".join(parts)


def put(text: str, made: str) -> str:
    """``text`` with ``made`` between its marks; raises SystemExit when they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the file lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path)
    asked = parser.parse_args()
    made = tables(asked.folder)
    if asked.into is None:
        print(made)
    else:
        asked.into.write_text(put(asked.into.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
