#!/usr/bin/env python3
"""Our servers beside their peers, in one interleaved run: one table of ours, the best peer, their ratio, the target, pass or fail.

    benches/peers/run.py [AREA…] [--rounds N] [--only SERVER,…] [--json FILE] [--no-build]

Needs root and the Debian packages that it names when they are missing. Everything happens in two namespaces of its own.
Exit code 0: every target holds; 1: one does not; 2: something is missing.
"""
import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import HERE, OURS, ROOT, Field, compare, figures_table, judge, verdict_table    # noqa: E402

AREAS = sorted(name[:-3] for name in os.listdir(f"{HERE}/areas") if name.endswith(".py"))


def build(target):
    """The product and the load generators as they are released."""
    command = ["cargo", "build", "--profile", "bench", "--workspace", "--bin", "hostler", "--bin", "peers-load"]
    subprocess.run(command, cwd=ROOT, check=True)
    return f"{target}/release/hostler", f"{target}/release/peers-load"


def missing(areas):
    """The packages of the programs that the areas need and this machine has not."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    wanted = {"ip": "iproute2"}
    for area in areas:
        wanted.update(area.programs)
    return sorted({package for program, package in wanted.items() if not shutil.which(program, path=path)})


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("areas", nargs="*", help=f"of {', '.join(AREAS)}; none: all")
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--only", default="", help="these servers alone, comma-separated")
    ask.add_argument("--case", default="", help="only cases whose name holds this")
    ask.add_argument("--json", help="writes every row and verdict there")
    ask.add_argument("--no-build", action="store_true", help="takes what is built")
    ask.add_argument("--quiet", action="store_true", help="no line for each sample")
    given = ask.parse_args()
    if unknown := [name for name in given.areas if name not in AREAS]:
        ask.error(f"there is no area {unknown[0]}; use {', '.join(AREAS)}")
    areas = [importlib.import_module(f"areas.{name}").AREA for name in given.areas or AREAS]
    if packages := missing(areas):
        print(f"missing: apt-get install --no-install-recommends {' '.join(packages)}", file=sys.stderr)
        return 2
    target = os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target")
    binary, load = (f"{target}/release/{name}" for name in ("hostler", "peers-load")) if given.no_build else build(target)
    chosen = set(filter(None, given.only.split(",")))
    rows, verdicts, began = [], [], time.time()
    say = (lambda line: None) if given.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    loads = [os.getloadavg()[0]]
    with Field(f"{target}/peers", binary, load) as field:
        for area in areas:
            area.cases = [case for case in area.cases if given.case in case.name]
            names = {case.name for case in area.cases}
            area.targets = [t for t in area.targets if t.case in names and (not chosen or OURS in chosen)]
            found = compare(field, area, given.rounds, chosen, say)
            rows += found
            verdicts += judge(area, found)
            loads.append(os.getloadavg()[0])
    print(figures_table(rows), end="\n\n")
    print(verdict_table(verdicts))
    print(f"\n{given.rounds} rounds in {time.time() - began:.0f} s; load average of the machine {min(loads):.1f} to {max(loads):.1f}")
    if given.json:
        with open(given.json, "w") as f:
            json.dump({"rows": rows, "verdicts": verdicts, "rounds": given.rounds, "load": loads}, f, indent=1)
    return 0 if all(v["holds"] for v in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
