"""What does a product lose when another process wants one of its cores?

    python bench/competing.py [--machine NAME] [--threads N]

Times W8A8 by `octavo bench`, on as many threads as there are cores, alone and beside a process that computes without
pause on the last core. If that process gets the whole of its core, a product is left the others, and may take
cores / (cores - 1) times as long; if they share the core, cores / (cores - 1/2) times. With a machine's name, writes
bench/results/NAME/competing.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import facts, record, results_folder

PROGRAM = Path(__file__).resolve().parents[1] / "build" / "dev" / "src" / "cli" / "octavo"
SHAPES = ["1x14336x4096", "16x4096x4096", "512x4096x4096"]


def timed(threads: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [
            PROGRAM,
            "bench",
            "--schemes",
            "w8a8",
            "--threads",
            str(threads),
            "--seconds",
            "1",
            "--json",
            figures,
        ]
        subprocess.run([*command, "--shapes", *SHAPES], check=True, stdout=subprocess.DEVNULL)
        return json.loads(figures.read_text())["rows"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--machine", help="record the figures under this name")
    parser.add_argument("--threads", type=int, default=len(cores))
    arguments = parser.parse_args()

    alone = timed(arguments.threads)
    competitor = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.sched_setaffinity(competitor.pid, {cores[-1]})
    try:
        beside = timed(arguments.threads)
    finally:
        competitor.kill()
        competitor.wait()
    limits = [len(cores) / (len(cores) - lost) for lost in (0.5, 1)]
    rows = []
    print(f"share: {limits[0]:.2f} … {limits[1]:.2f} times as long")
    print(f"{'M':>5} {'N':>6} {'K':>6} {'alone us':>10} {'beside us':>10} {'slower':>7}")
    for before, after in zip(alone, beside, strict=True):
        slower = after["us"] / before["us"]
        shape = f"{before['M']:>5} {before['N']:>6} {before['K']:>6}"
        print(f"{shape} {before['us']:>10.0f} {after['us']:>10.0f} {slower:>6.2f}x")
        rows.append({key: before[key] for key in ("kernel", "scheme", "M", "N", "K", "threads")})
        rows[-1] |= {"alone_us": before["us"], "beside_us": after["us"], "slower": slower, "share": limits}
    if arguments.machine:
        command = f"python bench/competing.py --machine {arguments.machine}"
        record(results_folder(arguments.machine) / "competing.json", facts(arguments.machine, command) | {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
