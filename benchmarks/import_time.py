"""What do ``import gransam_sdk`` and ``gransam --help`` cost over a bare Python? Medians over fresh processes.

python benchmarks/import_time.py [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from result import write_result

BUDGETS_MS = {"import gransam_sdk": 250, "gransam --help": 150}
CASES = {
    "bare python": "pass",
    "import gransam_sdk": "import gransam_sdk",
    "gransam --help": "import sys; sys.argv = ['gransam', '--help']; from gransam_sdk.cli import main; main()",
    "gs.load touched": "import gransam_sdk; gransam_sdk.load",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=21)
    times = measure(parser.parse_args().repeats)
    bare = statistics.median(times["bare python"])
    write_result(
        "import_time",
        title="Start-up",
        question="What do `import gransam_sdk` and `gransam --help` cost over a bare Python?",
        columns=("case", "median ms", "over bare Python ms", "worst ms", "budget ms"),
        rows=[
            (
                name,
                round(statistics.median(values), 1),
                round(statistics.median(values) - bare, 1),
                round(max(values), 1),
                BUDGETS_MS.get(name),
            )
            for name, values in times.items()
        ],
        notes=["The budget is for the median over bare Python. The cases take turns, each in a fresh process."],
    )


def measure(repeats: int) -> dict[str, list[float]]:
    """Milliseconds by case; the cases take turns, so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for repeat in range(repeats + 1):  # the first round compiles and fills the disk cache
        for name, code in CASES.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            if repeat:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


if __name__ == "__main__":
    main()
