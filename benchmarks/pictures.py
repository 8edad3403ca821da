"""Draws the tables of a benchmark, a panel for each."""

import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.axes
from harness import Spread
from matplotlib.figure import Figure

_COLUMNS = 3


class Bar(NamedTuple):
    """A number and the ends of its error bar."""

    value: float
    low: float
    high: float


Table = Mapping[str, Spread | Bar | float]


def draw(tables: Mapping[str, Table], path: pathlib.Path) -> Figure:
    """Draws numbers along a size as a line, those of named things in rows.

    Args:
        tables: Numbers of each panel by its title. Where all names are numbers,
            these are sizes, and both axes are logarithmic.
        path: PNG file to write.
    """
    columns = min(_COLUMNS, len(tables))
    rows = math.ceil(len(tables) / columns)
    longest = max(map(len, tables.values()))
    size = (5 * columns, rows * (0.22 * longest + 1.0))
    figure = Figure(figsize=size, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, table) in zip(grid, tables.items(), strict=False):
        bars = {name: _bar(value) for name, value in table.items()}
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        if all(name.isdecimal() for name in bars):
            _line(axes, bars)
        else:
            _rows(axes, bars)
    for axes in grid[len(tables) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=120)
    return figure


def _bar(value: Spread | Bar | float) -> Bar:
    if isinstance(value, Bar):
        return value
    if isinstance(value, dict):
        return Bar(value["median"], *value["quartiles"])
    return Bar(value, value, value)


def _errors(bars: Mapping[str, Bar]) -> list[list[float]]:
    below = [bar.value - bar.low for bar in bars.values()]
    above = [bar.high - bar.value for bar in bars.values()]
    return [below, above]


def _line(axes: matplotlib.axes.Axes, bars: Mapping[str, Bar]) -> None:
    sizes = [int(name) for name in bars]
    values = [bar.value for bar in bars.values()]
    axes.errorbar(sizes, values, _errors(bars), fmt="o-", markersize=4)
    linear = [size / sizes[0] for size in sizes]
    axes.plot(sizes, linear, "k:", label="proportional")
    axes.set(xscale="log", yscale="log", xticks=sizes, xticklabels=sizes)
    axes.minorticks_off()
    axes.legend(fontsize=7)


def _rows(axes: matplotlib.axes.Axes, bars: Mapping[str, Bar]) -> None:
    values = [bar.value for bar in bars.values()]
    axes.errorbar(values, list(bars), xerr=_errors(bars), fmt="o", markersize=4)
    if min(values) <= 1.0 <= max(values):  # Ratios.
        axes.axvline(1.0, color="k", linestyle=":", linewidth=1)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.margins(y=0.15)
