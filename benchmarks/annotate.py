"""How fast does ``gransam annotate`` go, from photo files to records, exports and report, and where does the time go?

python benchmarks/annotate.py ../shared/data/voc2012_dev/JPEGImages
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from result import write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "cli.py", "annotate", str(options.photos), "-o", f"{scratch}/run", "--json", "-q"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    report = json.loads(done.stdout)
    photos = report["new"]
    rows = [(name, round(spent, 2), round(1000 * spent / photos, 1)) for name, spent in report["timings"].items()]
    write_result(
        "annotate",
        title="Annotating a folder",
        question="How fast does `gransam annotate` go with the embedded bundle, and where does the time go?",
        columns=("stage", "seconds", "ms a photo"),
        rows=rows,
        notes=[
            f"{photos} photos, {report['failed']} failures, {report['masks']} masks recorded: "
            f"**{report['photos_per_second']:.2f} photos a second**, "
            f"peak memory {report['peak_memory_bytes'] / 2**20:.0f} MiB.",
            "`read`, `decode` and `preprocess` run in one thread, the graphs with `head` and `select` in another, the "
            "rest in a third; beside each other they may add up to more than the run took.",
        ],
    )


if __name__ == "__main__":
    main()
