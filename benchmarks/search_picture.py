"""Draws docs/search.svg from the sweep of benchmarks.search; the same numbers give the same file.

python -m benchmarks.search_picture SWEEP.json docs/search.svg
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from benchmarks.search_contenders import PYTHON

LABELS = {PYTHON: "Jammi Duck: graph, then exact ranking"}
# Lines that can be seen on white and on black; texts are the ink, which is another in the dark.
COLOURS = ("#d9730d", "#2f81f7", "#3fa45b")
MARKERS = ("o", "s", "^")
INK, PAPER, GREY = "#24292f", "#e6edf3", "#8b949e"
_DARK = f"<style>@media (prefers-color-scheme: dark) {{ text {{ fill: {PAPER} !important }} }}</style>"


def picture(sweep: dict[str, Any]) -> str:
    """The SVG of a sweep: recall to the right, latency upwards, a line for each system."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    fixed = {"svg.fonttype": "none", "svg.hashsalt": "search", "font.family": "sans-serif", "text.color": INK}
    with matplotlib.rc_context(fixed):
        figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
        for (name, points), colour, marker in zip(sweep["curves"].items(), COLOURS, MARKERS, strict=False):
            label = LABELS.get(name, name)
            recalls, latencies = [point["recall"] for point in points], [point["ms"] for point in points]
            axes.plot(recalls, latencies, color=colour, marker=marker, markersize=5, linewidth=1.8, label=label)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axes.set_xlabel(f"recall@{sweep['k']}", color=INK)
        axes.set_ylabel("median of one query, one thread, ms", color=INK)
        axes.set_title(f"{sweep['rows']:,} vectors of {sweep['dimensions']} dimensions", color=INK, fontsize=11)
        axes.tick_params(which="both", color=GREY, labelcolor=INK)
        axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
        for spine in axes.spines.values():
            spine.set_color(GREY)
        axes.legend(frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    head, defs, rest = drawn.getvalue().partition(" <defs>\n")
    return f"{head} <title>Latency against recall</title>\n {_DARK}\n{defs}{rest}"


def main() -> None:
    """Read the one file, and write the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("svg", type=Path)
    options = parser.parse_args()
    options.svg.write_text(picture(json.loads(options.sweep.read_text())))


if __name__ == "__main__":
    main()
