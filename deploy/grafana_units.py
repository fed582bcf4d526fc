"""How numbers, moments and legends are written in a dashboard: as Grafana does. No drawing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from matplotlib.ticker import MaxNLocator

__all__ = ["clock_ticks", "flow", "formatted", "legend", "value_ticks"]

_THOUSANDS = ((1.0, ""), (1e3, " K"), (1e6, " Mil"), (1e9, " Bil"))
# By unit, ascending: from which value on, in units of what, with which word.
_SCALES: Mapping[str, Sequence[tuple[float, str]]] = {
    "short": _THOUSANDS,
    "ops": tuple((size, f"{word} ops/s") for size, word in _THOUSANDS),
    "percentunit": ((0.01, "%"),),
    "s": ((1e-6, " µs"), (1e-3, " ms"), (1.0, " s"), (60.0, " min"), (3600.0, " h")),
    "bytes": ((1.0, " B"), (2.0**10, " KiB"), (2.0**20, " MiB"), (2.0**30, " GiB")),
}
_NICE_STEPS = [1, 2, 2.5, 5, 10]
_MINUTE_S = 60
_CLOCK_STEPS_S = tuple(_MINUTE_S * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 180, 360, 720))
_DAY_S = 86_400
_LABEL = re.compile(r"{{\s*(\w+)\s*}}")


def formatted(value: float, unit: str) -> str:
    """With three digits that count, and the word of its unit: 0.0213 s is "21.3 ms"."""
    size, word = _scale(value, unit)
    return f"{_digits(value / size)}{word}"


def value_ticks(most: float, unit: str, count: int) -> dict[float, str]:
    """From zero to `most` or just above: about `count` round numbers of one scale."""
    size, _ = _scale(most, unit)
    locator = MaxNLocator(count, steps=_NICE_STEPS)
    size, word = _scale(size * float(locator.tick_values(0.0, most / size)[-1]), unit)
    ticks = locator.tick_values(0.0, most / size)
    return {float(tick) * size: f"{tick:g}{word}" for tick in ticks}


def clock_ticks(start: float, end: float, count: int) -> dict[float, str]:
    """At most `count` round moments between two (seconds since the epoch), in UTC."""
    wanted = (end - start) / count
    step = next((each for each in _CLOCK_STEPS_S if each >= wanted), _DAY_S)
    first = math.ceil(start / step) * step
    moments = range(first, math.floor(end) + 1, step)
    form = "%d %b" if step >= _DAY_S else "%H:%M"
    return {float(at): datetime.fromtimestamp(at, UTC).strftime(form) for at in moments}


def legend(template: str, labels: Mapping[str, str]) -> str:
    """A legend with the labels of one series in place of their names."""
    return _LABEL.sub(lambda named: labels.get(named[1], ""), template)


def flow(widths: Sequence[float], available: float) -> list[tuple[float, int]]:
    """Things of these widths one after another, as words in a text: where each begins, in which
    line."""
    places: list[tuple[float, int]] = []
    x, line = 0.0, 0
    for width in widths:
        if x > 0 and x + width > available:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    return places


def _scale(value: float, unit: str) -> tuple[float, str]:
    """The largest that a value reaches as it will be written; of zero the unit's own."""
    scales = _SCALES[unit]
    if value == 0:
        return next(scale for scale in scales if scale[0] in (1.0, 0.01))
    reached = [scale for scale in scales if float(f"{abs(value):.3g}") >= scale[0]]
    return reached[-1] if reached else scales[0]


def _digits(value: float) -> str:
    """Three that count; no exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
