"""How fast are weights quantized, as a share of reading them? Runs quantize_bench, records and draws its figures.

    python bench/quantize.py [--machine NAME]

Prints the table. With a machine's name (its chip, e.g. epyc-zen3-2c), writes bench/results/NAME/quantize.json and .png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, facts, record, results_folder

PROGRAM = ROOT / "build" / "dev" / "bench" / "quantize_bench"


def draw(rows: list[dict], title: str, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row["clip"] == "absmax"]
    schemes = list(dict.fromkeys(row["scheme"] for row in rows))
    figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
    for offset, threads in ((-0.2, 1), (0.2, 2)):
        shares = [100 * row["roof_fraction"] for row in rows if row["threads"] == threads]
        bars = axis.barh([i + offset for i in range(len(schemes))], shares, height=0.36, label=f"{threads} threads")
        axis.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=9)
    axis.set_yticks(range(len(schemes)), schemes)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("quantizing BF16, % of a read loop over the same buffer")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, loc="left", fontsize=11)
    figure.savefig(file, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", help="name to record the figures under")
    machine = parser.parse_args().machine
    if not PROGRAM.is_file():
        print(f"{PROGRAM} is missing; run: make bench", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory:
        figures = Path(directory) / "rows.json"
        subprocess.run([PROGRAM, figures], check=True)
        rows = json.loads(figures.read_text())["rows"]
    if machine is not None:
        results = results_folder(machine)
        command = f"python bench/quantize.py --machine {machine}"
        record(results / "quantize.json", {**facts(machine, command), "rows": rows})
        draw(rows, f"Quantizing weights, {machine}", results / "quantize.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
