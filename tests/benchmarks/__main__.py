"""Run benchmarks, write their results as JSON and the page of all results: `python tests/benchmarks [SECTION ...]`."""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
from common import DATA, REPOSITORY
from page import render
from sections import SECTIONS

MEASURE = Path(__file__).with_name("measure.py")


def main() -> int:
    """Exit status 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"all by default: {', '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small data and budgets, to see that everything works"
    )
    parser.add_argument(
        "--output", type=Path, help="folder; docs by default, a temporary one for a quick run"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="only what runs there")
    parser.add_argument(
        "--label", help="keep results beside those that are there: another machine's name"
    )
    parser.add_argument("--remark", help="a sentence for the page: what else ran on the machine")
    parser.add_argument(
        "--render", action="store_true", help="only write the page, from the results that are there"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    output = arguments.output or (
        Path(tempfile.mkdtemp()) if arguments.quick else REPOSITORY / "docs"
    )
    results = output / "benchmarks"
    results.mkdir(parents=True, exist_ok=True)
    failures = 0
    if not arguments.render:
        description = machine.describe()
        for name in arguments.sections or SECTIONS:
            document = run(name, description, results, arguments)
            if not document["rows"]:  # an earlier measurement, on a machine that could, is kept
                needs = getattr(SECTIONS[name], "NEEDS", f"the device asked for and data in {DATA}")
                print(f"{name}: nothing to measure without {needs}", file=sys.stderr)
                failures += name in arguments.sections
                continue
            failures += sum(row["failed"] for row in document["rows"])
            path = results / f"{name}{f'-{arguments.label}' if arguments.label else ''}.json"
            path.write_text(as_json(document))
    (output / "benchmarks.md").write_text(render(results))
    print(f"written: {output / 'benchmarks.md'}", file=sys.stderr)
    return min(failures, 1)


def run(
    name: str, description: dict[str, Any], results: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """All measurements of a section."""
    section, rows = SECTIONS[name], []
    cuda = bool(description["gpu"]) and arguments.device != "cpu"
    for case in section.cases(quick=arguments.quick, cuda=cuda):
        if arguments.device in (None, case["device"]):
            print(name, *case.values(), file=sys.stderr)
            rows.append(case | measured(name, case, quick=arguments.quick))
    if hasattr(section, "conclude"):
        path = results / f"{name}.json"
        earlier = json.loads(path.read_text())["rows"] if arguments.label and path.is_file() else []
        rows = section.conclude(rows, earlier)
    return {
        "section": name,
        "command": _command(name, arguments),
        "quick": arguments.quick,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": description,
        "remark": arguments.remark,
        "rows": rows,
    }


def as_json(document: dict[str, Any]) -> str:
    """With a line for each point of a curve."""
    text = json.dumps(document, indent=1)
    return re.sub(r"\[\s+([^\s,]+),\s+([^\s,]+)\s+\]", r"[\1, \2]", text) + "\n"


def _command(name: str, arguments: argparse.Namespace) -> str:
    flags = [
        f"--{flag} {value}" for flag in ("device", "label") if (value := getattr(arguments, flag))
    ]
    return " ".join(
        ["python tests/benchmarks", name, *flags, *(["--quick"] if arguments.quick else [])]
    )


def measured(name: str, case: dict[str, Any], *, quick: bool) -> dict[str, Any]:
    """What one measurement gives, in a process with as many threads as the case says."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DASK_NUM_WORKERS")
    done = subprocess.run(
        [sys.executable, MEASURE, name, json.dumps(case | {"quick": quick})],
        env={"OMP_WAIT_POLICY": "passive"}
        | os.environ
        | dict.fromkeys(threads, str(case["threads"])),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        print(f"failed, status {done.returncode}", file=sys.stderr)
        return {"failed": True}
    return {"failed": False} | json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
