"""The table and the picture that show the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure

MARKS = {True: "reached", False: "MISSED", None: ""}


def table(found: Sequence[Figure], machine: Mapping[str, Any]) -> str:
    """Return a Markdown table with one line for each figure, and the spread of its rounds."""
    lines = ["| figure | database | measured | rounds | must reach | |", "|---|---|---|---|---|---|"]
    for figure in found:
        spread = f"{min(figure.rounds):.2f}–{max(figure.rounds):.2f}" if figure.rounds else ""
        value = f"{figure.value:.3g} {figure.unit}".strip()
        lines.append(
            f"| {figure.name} | {figure.database} | {value} | {spread} | {figure.must} | {MARKS[figure.reached]} |"
        )
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([*lines, "", f"Measured on: {facts}.", ""])


def draw(found: Sequence[Figure], path: Path) -> None:
    """Each ratio with its rounds and its bound; nothing where matplotlib is missing, which `make bench` installs."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    ratios = [figure for figure in found if figure.unit == "×"][::-1]
    canvas, axes = pyplot.subplots(figsize=(10, 0.45 * len(ratios) + 1.2), layout="constrained")
    for row, figure in enumerate(ratios):
        colour = {True: "#1a7f37", False: "#b35900", None: "#57606a"}[figure.reached]
        axes.barh(row, figure.value, height=0.55, color=colour, alpha=0.75)
        axes.plot(figure.rounds, [row] * len(figure.rounds), "k|", markersize=9)
        if figure.must:
            bound = float(figure.must.split()[1])
            axes.plot([bound, bound], [row - 0.4, row + 0.4], color="black", linewidth=2)
        axes.text(figure.value, row, f" {figure.value:.2f}", va="center")
    axes.set_yticks(range(len(ratios)), [f"{figure.name} ({figure.database})" for figure in ratios], fontsize=8)
    axes.axvline(1, color="#999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("ratio; thin marks: the single rounds; thick mark: what it must reach (≥ or ≤, see the table)")
    canvas.savefig(path)
    pyplot.close(canvas)
