"""Pictures of GPU benchmarks."""

from collections.abc import Callable
from pathlib import Path

Curves = dict[str, tuple[str, Callable[[dict], float | None]]]  # name → colour, microseconds of a row; None: no point


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_speedups(rows: list[dict], base: Callable[[dict], float], curves: Curves, file: Path, title: str) -> None:
    """How many times as fast as `base` every curve is, against M: a panel for each N x K, of a row for each M."""
    plt = _pyplot()
    shapes = list(dict.fromkeys((row["N"], row["K"]) for row in rows))
    columns = min(3, len(shapes))
    lines = -(-len(shapes) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 2.6 * lines + 0.6), squeeze=False, sharey=True, layout="constrained"
    )
    for axis in axes.flat[len(shapes) :]:
        axis.set_visible(False)
    for axis, (N, K) in zip(axes.flat, shapes, strict=False):
        here = [row for row in rows if (row["N"], row["K"]) == (N, K)]
        for name, (color, us) in curves.items():
            points = [(i, base(row) / us(row)) for i, row in enumerate(here) if us(row)]
            axis.plot(*zip(*points, strict=True), color=color, label=name, marker=".") if points else None
        axis.axhline(1, color="black", linewidth=0.5)
        axis.set_xticks(range(len(here)), [row["M"] for row in here], fontsize=7)
        axis.set_title(f"N x K = {N} x {K}", loc="left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def draw_shares(shares: dict[str, dict[str, float]], colors: dict[str, str], file: Path, title: str) -> None:
    """Bars: shares[group][name], of 1, side by side in each group."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(1.5 * len(shares) + 1, 3), layout="constrained")
    width = 0.8 / len(colors)
    for i, (name, color) in enumerate(colors.items()):
        places = [j + (i - (len(colors) - 1) / 2) * width for j in range(len(shares))]
        axis.bar(places, [100 * members[name] for members in shares.values()], width, color=color, label=name)
    axis.axhline(100, color="black", linewidth=0.5)
    axis.set_xticks(range(len(shares)), shares, fontsize=8)
    axis.set_ylabel("% of the floor", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower left", ncols=len(colors), frameon=False, fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)
