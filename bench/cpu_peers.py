"""How fast are our products on a CPU beside other libraries', and how near the roof?

    python bench/cpu_peers.py [--machine NAME] [--quick] [--shapes 4096x4096,…] [--rows 1,16] [--threads 1,2]
                              [--families w8a8,w4a16] [--without ggml,openvino] [--json FILE]

Everything runs in one process and takes turns: every product on cold weights (copies rotate that are larger than four
times the last-level cache), a plain read loop over as many bytes as our packed weight has, with huge pages where it has
them, and loops of the multiply instructions. A product's roof is the larger of two times: reading those bytes, the same
for every contender of a family, and multiplying at the peak of the best instruction for its operands.

The peers live in a virtual environment of their own, none is required, and what is missing is said:

    make build && cmake --preset dev && cmake --build --preset dev --target octavo_roofs
    python3 -m venv build/peers && build/peers/bin/pip install torch==2.11.0 numpy matplotlib openvino onnxruntime onnx
    build/peers/bin/pip install --no-binary llama-cpp-python llama-cpp-python  # compiles ggml for this processor
    build/peers/bin/python bench/cpu_peers.py --machine epyc-zen4-2c

OCTAVO_TORCH_LIBRARY names another octavo_torch.so than this checkout's newest. With a machine's name, writes
bench/results/NAME/cpu_linear.json and .png. Libraries with threads of their own are called once untimed before they are
timed, and get a pause after, so that their threads wake on their own time and spin on nobody else's.
"""

import argparse
import gc
import importlib
import sys
import time
from pathlib import Path

from common import facts, median_and_spread, record, results_folder
from peers.contender import FAMILIES, Contender, Layer
from peers.plot import draw, summary
from roofs import LayerRoofs, Roofs

SHAPES = ["4096x4096", "14336x4096", "4096x14336", "576x1536"]
ROWS = [1, 4, 16, 64, 512]
PEERS = {  # ours first
    "octavo": "peers.octavo_ops",
    "torch": "peers.torch_ops",
    "openvino": "peers.openvino_peer",
    "onnxruntime": "peers.onnxruntime_peer",
    "ggml": "peers.ggml",
}

VISITS = 7
SECONDS_A_VISIT = 0.02
MOST_CALLS_A_VISIT = 40
SLOW_SECONDS = 0.02  # from here on waking threads is no part worth a call of its own
VERY_SLOW_SECONDS = 0.2  # and fewer visits do
PAUSE = 0.002


class Turns:
    """The times of one contender, taken a visit at a time."""

    def __init__(self, contender: Contender, M: int):
        self.contender = contender
        self._run = contender.ready(M)
        self._next = 0
        self._call()  # builds what is built on a first call
        self._seconds_a_call = self._call()
        self.seconds = []

    def _call(self) -> float:
        begin = time.perf_counter()
        self._run(self._next)
        end = time.perf_counter()
        self._next = (self._next + 1) % self.contender.copies
        return end - begin

    def visit(self, number: int) -> None:
        slow = self._seconds_a_call > SLOW_SECONDS
        if self._seconds_a_call > VERY_SLOW_SECONDS and number % 2 != 0:
            return
        if not slow:
            self._call()
        calls = min(MOST_CALLS_A_VISIT, max(1, int(SECONDS_A_VISIT / self._seconds_a_call)))
        self.seconds += [self._call() for _ in range(calls)]
        time.sleep(PAUSE)


def load_peers(without: list[str]) -> tuple[dict, dict]:
    """The modules that work here, and what is said of each: a version, or why it is missing."""
    modules, said = {}, {}
    for name, module_name in PEERS.items():
        if name in without:
            continue
        try:
            module = importlib.import_module(module_name)
            said[name] = module.load() if name == "octavo" else module.version()
            modules[name] = module
        except (ImportError, OSError, AttributeError) as error:
            said[name] = f"missing: {error}".splitlines()[0]
    return modules, said


def build(modules: dict, layer: Layer, families: list[str]) -> list[Contender]:
    made = []
    for name, module in modules.items():
        try:
            made += module.contenders(layer)
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            print(f"{name} cannot: {str(error).splitlines()[0]}", file=sys.stderr)
    return [contender for contender in made if set(contender.families) & set(families)]


def is_ours(contender: Contender) -> bool:
    return "scheme" in contender.facts


def measure(layer: Layer, M: int, contenders: list[Contender], roofs: LayerRoofs, visits: int) -> list[dict]:
    turns = []
    for contender in contenders:
        try:
            turns.append(Turns(contender, M))
        except RuntimeError as error:
            print(f"{contender.name} cannot at M={M}: {str(error).splitlines()[0]}", file=sys.stderr)
    roofs.restart()
    for number in range(visits):
        roofs.visit()
        for turn in turns:
            turn.visit(number)
    operations = 2 * M * layer.N * layer.K
    rows = []
    for turn in turns:
        contender = turn.contender
        seconds, spread = median_and_spread(turn.seconds)
        for family in contender.families:
            roof, roof_seconds = roofs.roof(family, contender.operands, operations)
            rows.append(
                {
                    "name": contender.name,
                    "kernel": contender.kernel(M) if contender.kernel is not None else contender.name,
                    "ours": is_ours(contender),
                    **contender.facts,
                    "family": family,
                    "activation": contender.activation,
                    "M": M,
                    "N": layer.N,
                    "K": layer.K,
                    "threads": layer.threads,
                    "us": seconds * 1e6,
                    "spread": spread,
                    "repeats": len(turn.seconds),
                    "gbps": contender.bytes / seconds * 1e-9,
                    "tops": operations / seconds * 1e-12,
                    "roof": roof,
                    "roof_fraction": roof_seconds / seconds,
                    "read_gbps": roofs.read_rate(family) * 1e-9,
                }
            )
    return rows


def print_rows(rows: list[dict]) -> None:
    """A family's contenders, the fastest first."""
    for family in FAMILIES:
        members = sorted((row for row in rows if row["family"] == family), key=lambda row: row["us"])
        for row in members:
            mark = "*" if row["ours"] else " "
            print(
                f"{family:6} {row['M']:4} {row['N']:6} {row['K']:6} {row['threads']:2}  {mark} {row['name']:30}"
                f" {row['activation']:9}{row['us']:11.1f} us {100 * row['spread']:4.0f} % {row['gbps']:7.2f} GB/s"
                f" {row['tops']:6.3f} TOPS {100 * row['roof_fraction']:4.0f} % of {row['roof']}"
            )
    sys.stdout.flush()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", help="name to record the figures under")
    parser.add_argument("--quick", action="store_true", help="one shape, M = 1 and 16, fewer repeats")
    parser.add_argument("--shapes", help="NxK,… instead of " + ",".join(SHAPES))
    parser.add_argument("--rows", help="M,… instead of " + ",".join(map(str, ROWS)))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument(
        "--families", default=",".join(FAMILIES), help="; ".join(f"{k}: {v}" for k, v in FAMILIES.items())
    )
    parser.add_argument("--without", default="", help="peers to leave out, of " + ", ".join(PEERS))
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    arguments.shapes = (arguments.shapes or ("4096x4096" if arguments.quick else ",".join(SHAPES))).split(",")
    rows = arguments.rows or ("1,16" if arguments.quick else ",".join(map(str, ROWS)))
    arguments.rows = [int(M) for M in rows.split(",")]
    return arguments


def main() -> int:
    arguments = parse()
    roofs = Roofs()
    modules, said = load_peers(arguments.without.split(","))
    for name, what in said.items():
        print(f"{name}: {what}")
    rows = []
    for shape in arguments.shapes:
        N, K = map(int, shape.split("x"))
        for threads in map(int, arguments.threads.split(",")):
            layer = Layer(N, K, threads, 4 * roofs.last_level_bytes)
            layer_roofs = LayerRoofs(roofs, layer)
            contenders = build(modules, layer, arguments.families.split(","))
            for M in arguments.rows:
                measured = measure(layer, M, contenders, layer_roofs, 3 if arguments.quick else VISITS)
                print_rows(measured)
                rows += measured
                gc.collect()
            del contenders
            gc.collect()
    print("\nOur best beside the best peer:\n" + summary(rows))
    command = " ".join(["python bench/cpu_peers.py", *sys.argv[1:]])
    if arguments.json is not None:
        record(arguments.json, {**facts(arguments.machine or "", command), "libraries": said, "rows": rows})
    if arguments.machine is not None:
        folder = results_folder(arguments.machine)
        record(folder / "cpu_linear.json", {**facts(arguments.machine, command), "libraries": said, "rows": rows})
        draw(rows, f"Products on {arguments.machine}", folder / "cpu_linear.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
