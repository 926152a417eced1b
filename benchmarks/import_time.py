"""What do ``import gransam_sdk`` and ``gransam --help`` cost over a bare Python? Medians over fresh processes.

python benchmarks/import_time.py [--repeats N] [--out FILE]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

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
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "import_time.json")
    options = parser.parse_args()
    times = measure(options.repeats)
    bare = statistics.median(times["bare python"])
    rows = {
        name: {
            "median_ms": round(statistics.median(values), 1),
            "over_bare_ms": round(statistics.median(values) - bare, 1),
            "worst_ms": round(max(values), 1),
            "budget_ms": BUDGETS_MS.get(name),
        }
        for name, values in times.items()
    }
    for name, row in rows.items():
        budget = f"   budget {row['budget_ms']}" if row["budget_ms"] else ""
        print(f"{name:<20}{row['median_ms']:>8.1f} ms{row['over_bare_ms']:>8.1f} over bare{budget}")
    result = {
        "command": f"python benchmarks/import_time.py --repeats {options.repeats}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "platform": describe_platform(),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


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


def describe_platform() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cpu_threads": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
