"""How a text's routing looks: the picture, and the tokens on a terminal."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import orrery
from orrery.cli.routing_display import print_layers, print_tokens
from orrery.plots.experts import expert_color, ink_on, token_label
from orrery.plots.routing import plot_routing

TOKENS = ("", "The", " bell", "$x_1^2$", "日", "\n", "\x1b[31m")


def routing(layer: int, choices: Sequence[tuple[int, ...]]) -> orrery.LayerRouting:
    """The first expert of each token has three quarters of the weight."""
    weights = ((0.75, 0.25),) * len(choices)
    return orrery.LayerRouting(layer, tuple(choices), weights, (1.0,) * len(choices))


def analysis(tokens: tuple[str, ...] = TOKENS, num_experts: int = 8) -> orrery.RoutingAnalysis:
    """Layer 3 sends all to experts 0 and 1, layer 5 the tokens to one after another."""
    everything = [(0, 1)] * len(tokens)
    in_turn = [(i % num_experts, (i + 1) % num_experts) for i in range(len(tokens))]
    layers = []
    for number, choices in ((3, everything), (5, in_turn)):
        counts = Counter(expert for ids in choices for expert in ids)
        shares = tuple(counts[e] / (2 * len(tokens)) for e in range(num_experts))
        layers.append(orrery.LayerAnalysis(routing(number, choices), 1 + number / 8, 0.5, shares))
    classes = (orrery.TokenClassRouting("word", 2, 3, (1.0,) + (0.0,) * (num_experts - 1)),)
    return orrery.RoutingAnalysis(
        request_id="r",
        model="a $model$",
        num_experts=num_experts,
        num_experts_per_token=2,
        token_ids=tuple(range(100, 100 + len(tokens))),
        tokens=tokens,
        layers=tuple(layers),
        token_classes=classes,
        timing=orrery.Timing(),
    )


def texts(path: Path) -> list[str]:
    """What is written in a drawing: beside the shapes of its letters it holds them as comments."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(), re.DOTALL)


# --- the picture ------------------------------------------------------------------------------


def test_picture_holds_the_numbers_of_the_analysis(tmp_path: Path) -> None:
    plot_routing(tmp_path / "heat.svg", analysis())
    written = texts(tmp_path / "heat.svg")
    assert written.count("50") == 3  # of layer 3, experts 0 and 1; and the colour bar's end
    assert written.count("14") == 6  # of layer 5, experts 1 to 6
    assert written.count("7.1") == 2  # and the first and the last
    for told in ("1.38", "1.62", "expert", "layer", "even"):
        assert told in written
    assert "a $model$: 2 of 8 experts for each token; 7 tokens" in written


def test_picture_shows_each_token_as_it_is(tmp_path: Path) -> None:
    plot_routing(tmp_path / "heat.svg", analysis())
    written = texts(tmp_path / "heat.svg")
    for token in ("#100", "The", "␣bell", "$x_1^2$", "日", "⏎", "·[31m"):
        assert token in written


def test_picture_colours_tokens_by_their_experts(tmp_path: Path) -> None:
    plot_routing(tmp_path / "heat.png", analysis(num_experts=4))
    with Image.open(tmp_path / "heat.png") as image:
        found = image.convert("RGB").getcolors(1 << 24)
    assert found is not None
    areas = {color: count for count, color in found}
    sizes = [areas[expert_color(expert)] for expert in range(4)]
    # Expert 0 has three quarters of layer 3, 1 a quarter; of layer 5 each has about a quarter.
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * max(sizes[2:])


def test_picture_of_a_long_text_says_where_it_is_cut(tmp_path: Path) -> None:
    tokens = tuple(f"t{number}" for number in range(300))
    plot_routing(tmp_path / "heat.svg", analysis(tokens))
    written = texts(tmp_path / "heat.svg")
    assert any("300 tokens, below the first 128" in each for each in written)
    assert "t127" in written
    assert "t128" not in written


@pytest.mark.parametrize("num_experts", [2, 128])
def test_picture_is_drawn_of_few_and_many_experts(tmp_path: Path, num_experts: int) -> None:
    plot_routing(tmp_path / "heat.png", analysis(("x",), num_experts))
    with Image.open(tmp_path / "heat.png") as image:
        assert 400 < image.height < 5000


# --- on a terminal ----------------------------------------------------------------------------


def shown(*, color: bool) -> str:
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=color, color_system="truecolor" if color else None, width=100
    )
    print_tokens(console, analysis())
    print_layers(console, analysis())
    return file.getvalue()


def test_tokens_on_a_terminal_have_the_colours_of_their_first_experts() -> None:
    line = next(line for line in shown(color=True).splitlines() if "The₁" in line)
    for expert, token in enumerate(("#100", "The", " bell", "$x_1^2$", "日", "⏎", "·[31m")):
        ground, ink = expert_color(expert), ink_on(expert_color(expert))
        style = "\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*ink, *ground)
        assert f"{style}{token}{'₀₁₂₃₄₅₆'[expert]}" in line


def test_what_is_shown_without_colours_commands_no_terminal() -> None:
    plain = shown(color=False)
    assert "\x1b" not in plain
    assert "#100₀The₀ bell₀" in plain
    assert "layer 3: load-balancing loss 1.375 (1 = even), z-loss 0.500" in plain
    assert "without a token: 2, 3, 4, 5, 6, 7" in plain
    assert "WORD" in plain


@pytest.mark.parametrize("expert", range(40))
def test_ink_can_be_read_on_every_colour(expert: int) -> None:
    """Contrast as in WCAG 2.1: 4.5 for text of this size."""

    def luminance(color: tuple[int, int, int]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (value / 255 for value in color)
        ]
        return sum(part * c for part, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    ground = expert_color(expert)
    dark, light = sorted((luminance(ground), luminance(ink_on(ground))))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_labels_of_tokens_are_one_line_without_control_characters() -> None:
    assert token_label("a\r\n\tb\x9b\u202e", 7) == "a␍⏎⇥b··"
    assert token_label("", 7) == "#7"
