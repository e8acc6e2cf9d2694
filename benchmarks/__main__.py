"""How fast hoft is, beside what it has to be compared with, measured in the same run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.beside import beside
from benchmarks.bulk import bulk
from benchmarks.calls import latency, throughput
from benchmarks.processes import ROOT, BenchmarkFailed, run
from benchmarks.stage import Stage
from benchmarks.table import Row, show

LATEST = ROOT / "build" / "benchmarks" / "latest.json"

EXAMPLES = """\
examples:
  python -m benchmarks                            all of it, some five minutes
  python -m benchmarks --quick                    a first impression, within a minute
  python -m benchmarks --only bulk --folder /mnt  large bodies, on another file system
  python -m benchmarks.codec --help               one part by itself, in full; also benchmarks.journal

The machine should have nothing else to do.  Absolute figures say something of
the machine; the ratios, both sides of which were measured in turns, of hoft.
"""

CODEC_FIGURES = {
    "cipher alone, 64 KiB at a time": "cipher alone",
    "seal, records of 64 KiB": "seal packets",
    "open, records of 64 KiB, in pieces of 64 KiB": "open packets",
    "seal a packet of one record of 300 B": "seal one small packet",
    "open a packet of one record of 300 B": "open one small packet",
}
JOURNAL_FIGURES = (
    "durable commits, 1 at once [ops/s]",
    "durable commits, 100 at once [ops/s]",
    "ordered commits, 100 at once [ops/s]",
    "65000 byte payloads stored, read, discarded in segments [MB/s]",
    "1000 byte payloads stored, read, discarded in SQLite [MB/s]",
)


def codec(folder: Path, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """C{benchmarks.codec}, in short."""
    file = folder / "codec.json"
    run("benchmarks.codec", "--json", str(file), *(("--rounds", "3", "--megabytes", "20") if quick else ()))
    raw = json.loads(file.read_text())
    rows = [
        Row(short, f"{raw[name]['median']:.0f} {raw[name]['unit']}") for name, short in CODEC_FIGURES.items()
    ]
    return rows, raw


def journal(folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """C{benchmarks.journal}, in short."""
    file = folder / "journal.json"
    run("benchmarks.journal", str(folder), "--json", str(file))
    raw = json.loads(file.read_text())
    rows = []
    for name in JOURNAL_FIGURES:
        what, _, unit = name.rstrip("]").rpartition(" [")
        rows.append(Row(what, f"{raw[name]:.0f} {unit}"))
    return rows, raw


def machine(folder: Path) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "file_system": _file_system(folder),
        "python": platform.python_version(),
        **{name: version(name) for name in ("hoft", "twisted", "treq", "pynacl", "cbor2")},
    }


def _file_system(folder: Path) -> str:
    """The type of the file system a folder is on, by the longest mount point above it."""
    kind, longest = "unknown", -1
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        if folder.is_relative_to(mount) and len(mount) > longest:
            kind, longest = name, len(mount)
    return kind


def measure(name: str, folder: Path, quick: bool) -> tuple[str, list[Row], dict[str, Any]]:
    """One of L{PARTS}, in an empty folder."""
    if name == "codec":
        return "Sealing (benchmarks.codec)", *codec(folder, quick)
    if name == "journal":
        return "Journal (benchmarks.journal)", *journal(folder)
    # Nodes of its own for each: peaks and queues of one part are not another's.
    with Stage(folder) as stage:
        if name == "latency":
            return "One caller", *latency(stage, quick)
        if name == "throughput":
            return "Many callers", *throughput(stage, quick)
        if name == "beside":
            return "A small call beside large bodies", *beside(stage, quick)
        return "Large bodies", *bulk(stage, quick, folder)


PARTS = ("latency", "throughput", "beside", "bulk", "codec", "journal")


def main() -> None:
    """Measure what was asked for, show it, keep the raw figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures two real nodes with a local folder between them, beside a plain proxy and cp.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="this part; may be given several times"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: an impression, not a figure")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=LATEST,
        help="where raw figures go (build/benchmarks/latest.json)",
    )
    parser.add_argument("--folder", type=Path, help="where to work; on the file system to measure")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hoft-bench-", dir=options.folder)).resolve()
    results: dict[str, Any] = {"machine": machine(folder), "quick": options.quick}
    print(
        ", ".join(f"{key} {value}" for key, value in results["machine"].items() if key != "load"), flush=True
    )
    try:
        for name in options.only or PARTS:
            part = folder / name
            part.mkdir()
            title, rows, raw = measure(name, part, options.quick)
            results[name] = {"shown": [[row.what, row.figure, row.ratio, row.bar] for row in rows], **raw}
            print(f"\n{show(title, rows)}", flush=True)
            shutil.rmtree(part)
    except BenchmarkFailed as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        shutil.rmtree(folder)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nRaw figures: {options.json}")


if __name__ == "__main__":
    main()
