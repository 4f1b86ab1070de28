"""Draws an evaluation as SVG: a bar for each question, or the metric against the weight of a hybrid search."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 40, 48
_ACROSS, _DOWN = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_STYLE = (
    "text { font: 12px sans-serif; fill: #24292f } .line { stroke: #8b949e; stroke-opacity: 0.4 } "
    ".mark { stroke: #d9730d; stroke-width: 1.5 } .bar { fill: #2f81f7 } "
    ".curve { fill: none; stroke: #2f81f7; stroke-width: 2 } "
    "@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }"
)
_WIDEST_BAR = 40


def bars(metric: str, k: int, questions: Sequence[tuple[str, str, float]]) -> str:
    """A bar for each question, the worst first. A question has its id, its text, and the metric, from 0 to 1."""
    ordered = sorted(questions, key=lambda question: question[2])
    mean = sum(value for _, _, value in ordered) / len(ordered)
    pitch = min(_ACROSS / len(ordered), _WIDEST_BAR)
    width = pitch * 0.8
    parts = list(_axis(0, 1, [0, 0.25, 0.5, 0.75, 1]))
    for place, (id_, text, value) in enumerate(ordered):
        x, y = _LEFT + place * pitch, _y(value, 0, 1)
        # A question that failed is to be seen, too, and pointed at.
        height = max(_TOP + _DOWN - y, 1)
        told = html.escape(f"{id_}: {text} ({value:.3f})")
        parts.append(
            f'<rect class="bar" x="{x:.2f}" y="{_TOP + _DOWN - height:.2f}" width="{width:.2f}" '
            f'height="{height:.2f}"><title>{told}</title></rect>'
        )
    y = _y(mean, 0, 1)
    parts.append(f'<line class="mark" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.2f}" y2="{y:.2f}"/>')
    counted = f"{len(ordered):,} question" + "s" * (len(ordered) != 1)
    parts.append(_text(_LEFT + _ACROSS / 2, _HEIGHT - 16, f"{counted}, the worst first", "middle"))
    return _picture(f"{metric}@{k} of each question, mean {mean:.3f}", parts)


def curve(metric: str, k: int, weights: Sequence[float], values: Sequence[float], best: float, default: float) -> str:
    """The metric at each weight from 0 to 1; lines mark the best weight and the default."""
    step = 10 ** math.floor(math.log10(max(max(values) - min(values), 1e-3)))
    low, high = math.floor(min(values) / step) * step, (math.floor(max(values) / step) + 1) * step
    ticks = [low + step * i for i in range(round((high - low) / step) + 1)]
    parts = list(_axis(low, high, ticks[:: max(1, len(ticks) // 6)]))
    # Apart from each other, where the two weights are near.
    marks = [(best, f"best, {best:g}", _TOP - 6)]
    if default != best:
        marks.append((default, f"default, {default:g}", _TOP + _DOWN - 6))
    for weight, label, y in marks:
        x = _LEFT + weight * _ACROSS
        parts.append(f'<line class="mark" x1="{x:.2f}" x2="{x:.2f}" y1="{_TOP}" y2="{_TOP + _DOWN}"/>')
        parts.append(_text(x, y, label, "middle"))
    points = " ".join(
        f"{_LEFT + weight * _ACROSS:.2f},{_y(value, low, high):.2f}"
        for weight, value in zip(weights, values, strict=True)
    )
    parts.append(f'<polyline class="curve" points="{points}"/>')
    parts += (_text(_LEFT + tick / 4 * _ACROSS, _TOP + _DOWN + 16, f"{tick / 4:g}", "middle") for tick in range(5))
    parts.append(_text(_LEFT + _ACROSS / 2, _HEIGHT - 10, "weight: 0 is words alone, 1 is meaning alone", "middle"))
    return _picture(f"{metric}@{k} against the weight", parts)


def _axis(low: float, high: float, ticks: Iterable[float]) -> Iterable[str]:
    for tick in ticks:
        y = _y(tick, low, high)
        yield f'<line class="line" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.2f}" y2="{y:.2f}"/>'
        yield _text(_LEFT - 8, y + 4, f"{tick:.4g}", "end")


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (high - value) / (high - low) * _DOWN


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _picture(title: str, parts: Sequence[str]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        _text(_LEFT, 18, title, "start"),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
