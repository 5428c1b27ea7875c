"""What the benchmarks share: facts about the machine, medians, and where results are recorded."""

import datetime
import json
import math
import os
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def commit_name() -> str:
    """This checkout's commit; of a copy without a repository, what OCTAVO_COMMIT says."""
    if "OCTAVO_COMMIT" in os.environ:
        return os.environ["OCTAVO_COMMIT"]
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def facts(machine: str, command: str) -> dict:
    return {
        "machine": machine,
        "cpu": cpu_name(),
        "commit": commit_name(),
        "date": datetime.date.today().isoformat(),
        "command": command,
    }


def results_folder(machine: str) -> Path:
    folder = ROOT / "bench" / "results" / machine
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def record(file: Path, content: dict, tables: tuple[str, ...] = ()) -> None:
    """Writes JSON; of `tables`, lists of many rows, each row on a line of its own."""
    fields = {
        key: "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if key in tables else json.dumps(value, indent=1)
        for key, value in content.items()
    }
    text = ",\n".join(f"{json.dumps(key)}: {field}" for key, field in fields.items())
    file.write_text(("{\n" + text).replace("\n", "\n ") + "\n}\n")


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def median_and_spread(seconds: list[float]) -> tuple[float, float]:
    """The median, and (largest - least) / median of the middle half."""
    ordered = sorted(seconds)
    n = len(ordered)
    median = statistics.median(ordered)
    return median, (ordered[n - 1 - n // 4] - ordered[n // 4]) / median
