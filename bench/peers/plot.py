"""Draws how near the roof the products come."""

from pathlib import Path

from .contender import FAMILIES

OURS, PEER = "#1b7f5c", "#b0b0b0"


def best(rows: list[dict], ours: bool) -> dict | None:
    """The fastest of ours, or of the peers. LLM.int8() computes something else than W8A8, so it stands for neither."""
    members = (row for row in rows if row["ours"] == ours and row.get("scheme") != "llm.int8")
    return min(members, key=lambda row: row["us"], default=None)


def conditions(rows: list[dict], **fixed) -> list[tuple]:
    """(N, K, M), each once, in the order in which they were measured."""
    return list(
        dict.fromkeys(
            (row["N"], row["K"], row["M"]) for row in rows if all(row[key] == value for key, value in fixed.items())
        )
    )


def draw_panel(axis, members: list[dict], title: str) -> None:
    places = conditions(members)
    compared = not all(row["ours"] for row in members)
    for ours, color, offset in ((True, OURS, -0.2), (False, PEER, 0.2)) if compared else ((True, OURS, 0),):
        for index, place in enumerate(places):
            row = best([row for row in members if (row["N"], row["K"], row["M"]) == place], ours)
            if row is not None:
                axis.bar(index + offset, 100 * row["roof_fraction"], width=0.4, color=color)
    axis.set_xticks(range(len(places)), [M for _, _, M in places], fontsize=8)
    for shape in dict.fromkeys((N, K) for N, K, _ in places):
        of_shape = [index for index, (N, K, _) in enumerate(places) if (N, K) == shape]
        axis.text(sum(of_shape) / len(of_shape), -0.22, f"{shape[0]} x {shape[1]}", ha="center", fontsize=8,
                  transform=axis.get_xaxis_transform())  # fmt: skip
        axis.axvline(of_shape[-1] + 0.5, color="#dddddd", linewidth=0.8)
    axis.axhline(100, color="black", linewidth=0.5)
    axis.set_title(title, loc="left", fontsize=9)
    axis.set_ylabel("% of the roof", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def draw(rows: list[dict], title: str, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    families = [family for family in FAMILIES if any(row["family"] == family for row in rows)]
    threads = sorted({row["threads"] for row in rows})
    width = max(4.5, 0.3 * len(conditions(rows))) * len(threads)
    figure, axes = plt.subplots(
        len(families), len(threads), figsize=(width, 2.1 * len(families) + 0.6), squeeze=False, layout="constrained"
    )
    for line, family in zip(axes, families, strict=True):
        for axis, count in zip(line, threads, strict=True):
            members = [row for row in rows if row["family"] == family and row["threads"] == count]
            where = "" if count is None else f", {count} thread{'s' if count > 1 else ''}"  # None: on a GPU
            draw_panel(axis, members, FAMILIES[family] + where)
    if not all(row["ours"] for row in rows):
        handles = [plt.Rectangle((0, 0), 1, 1, color=OURS), plt.Rectangle((0, 0), 1, 1, color=PEER)]
        figure.legend(handles, ["octavo", "best peer"], loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"{title}, weights cold: M, and N x K below", x=0.01, ha="left", fontsize=10)
    figure.savefig(file, dpi=130)


def summary(rows: list[dict]) -> str:
    """One line for each condition and family: our best, the best peer, and how much faster ours is."""
    lines = []
    for family in FAMILIES:
        for threads in sorted({row["threads"] for row in rows}):
            members = [row for row in rows if row["family"] == family and row["threads"] == threads]
            for place in conditions(members):
                here = [row for row in members if (row["N"], row["K"], row["M"]) == place]
                ours, peer = best(here, True), best(here, False)
                if ours is None or peer is None:
                    continue
                N, K, M = place
                lines.append(
                    f"{family:6} {M:4} {N:6} {K:6} {threads:2}  {peer['us'] / ours['us']:5.2f}x"
                    f"  {100 * ours['roof_fraction']:4.0f} % of {ours['roof']:14} {ours['name']:28}"
                    f" beside {peer['name']}"
                )
    return "\n".join(lines)
