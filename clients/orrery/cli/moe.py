"""`orrery moe`: where a mixture of experts sends its tokens, where its experts are, moving them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orrery.cli.expert_tables import print_expert_load, print_placement, print_rebalanced
from orrery.cli.options import ApplicationOption
from orrery.cli.routing_display import print_layers, print_tokens
from orrery.cli.session import (
    JsonOption,
    TargetOption,
    TimeoutOption,
    connect,
    read_text,
    write_json,
)
from orrery.plots.files import check_plot
from orrery.plots.routing import plot_routing

__all__ = ["moe"]

moe = typer.Typer(
    help="Show where a mixture of experts sends its tokens, and move its experts.",
    no_args_is_help=True,
)


@moe.command()
def analyze(
    text: Annotated[
        str | None, typer.Argument(help="The text; - or nothing = standard input.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Also draw it, experts by layer and tokens by layer: .png, .svg or .pdf.",
        ),
    ] = None,
    as_json: JsonOption = False,
    application: ApplicationOption = None,
    timeout_s: TimeoutOption = 120.0,
    target: TargetOption = None,
) -> None:
    """Show which experts the tokens of a text go to, and what that says.

    orrery moe analyze "The Dorlor returns each winter to Braster." -o heat.png

    Share: of the tokens, each counted for each of its experts; of all and of each class of tokens.
    Entropy: of the gate, mean over the tokens. Losses: Fedus et al. 2021, eq. 4-6 (load balancing);
    Zoph et al. 2022, eq. 5 (z).
    """
    content = read_text(text, "text")
    with connect(target, timeout_s) as client:
        if output is not None:
            check_plot(output, "--output")
        analysis = client.moe.analyze(content, application=application)
        if output is not None:
            plot_routing(output, analysis)
    if as_json:
        write_json(analysis)
        return
    console = Console()
    print_tokens(console, analysis)
    print_layers(console, analysis)


@moe.command()
def load(
    window_s: Annotated[
        int | None,
        typer.Option(
            "--window", metavar="SECONDS", help="Of the last so many; default: all that is kept."
        ),
    ] = None,
    as_json: JsonOption = False,
    application: ApplicationOption = None,
    timeout_s: TimeoutOption = 10.0,
    target: TargetOption = None,
) -> None:
    """Show how many tokens went to each expert of each layer, and to each shard.

    A token counts for each of its experts. max/mean: of the busiest expert, 1 = even.
    """
    with connect(target, timeout_s) as client:
        found = client.moe.expert_load(window_s, application=application)
    if as_json:
        write_json(found)
    else:
        print_expert_load(Console(), found)


@moe.command()
def rebalance(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    max_shard_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-shard-bytes",
            metavar="BYTES",
            help="Of experts on each shard; default, and at most: the shard's own limit.",
        ),
    ] = None,
    as_json: JsonOption = False,
    application: ApplicationOption = None,
    timeout_s: TimeoutOption = 300.0,
    target: TargetOption = None,
) -> None:
    """Move and replicate experts so that the load of the shards evens out, and show how.

    Planned from the tokens of the router's window. Calls go on meanwhile.
    """
    with connect(target, timeout_s) as client:
        result = client.moe.rebalance(
            dry_run=dry_run, max_shard_bytes=max_shard_bytes, application=application
        )
        if as_json:
            write_json(result)
            return
        shards = client.moe.placement(application=application).shards
    print_rebalanced(Console(), result, shards, dry_run=dry_run)


@moe.command()
def placement(
    as_json: JsonOption = False,
    application: ApplicationOption = None,
    timeout_s: TimeoutOption = 10.0,
    target: TargetOption = None,
) -> None:
    """Show which shard holds which expert."""
    with connect(target, timeout_s) as client:
        found = client.moe.placement(application=application)
    if as_json:
        write_json(found)
    else:
        print_placement(Console(), found)
