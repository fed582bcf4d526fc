"""Where experts are and what they carry, as tables: loads, placements, what a rebalance does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orrery.cli.tables import new_table
from orrery.results import (
    ExpertLoad,
    ExpertMove,
    LayerLoad,
    Placement,
    RebalanceResult,
    ShardStatus,
)

__all__ = ["print_expert_load", "print_placement", "print_rebalanced"]

_MIB = 1 << 20
_BAR_COLUMNS = 30


def print_expert_load(console: Console, load: ExpertLoad) -> None:
    """Of each layer its experts as bars; then the shards."""
    told = f"{load.model}: tokens of the last {load.window_s:.0f} s"
    console.print(Text(told), soft_wrap=True)
    for layer in load.layers:
        console.print()
        console.print(Text(_layer_summary(layer), style="bold"), soft_wrap=True)
        if any(layer.num_tokens):
            console.print(_layer_table(layer))
    console.print()
    console.print(_shard_table(load.shards))


def print_placement(console: Console, placement: Placement) -> None:
    """Of each layer the experts of each shard; then the shards."""
    held: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for each in placement.experts:
        for shard in each.shards:
            held[each.layer, shard].append(each.expert)
    console.print(Text(f"{placement.model}: placement {placement.version}"), soft_wrap=True)
    console.print()
    table = new_table("LAYER", "SHARD", "EXPERTS", numbers=("LAYER",))
    for (layer, shard), experts in sorted(held.items()):
        table.add_row(str(layer), Text(shard), ", ".join(map(str, sorted(experts))))
    console.print(table)
    console.print()
    console.print(_shard_table(placement.shards))


def print_rebalanced(
    console: Console, result: RebalanceResult, shards: Sequence[ShardStatus], *, dry_run: bool
) -> None:
    """The window's load before and after, and the moves. `shards`: in the answer's order."""
    console.print(_balance_table(result, shards))
    console.print()
    if result.moves:
        console.print(_move_table(result.moves))
        console.print()
    console.print(Text(_outcome(result, dry_run=dry_run)), soft_wrap=True)


def _layer_summary(layer: LayerLoad) -> str:
    total = sum(layer.num_tokens)
    if not total:
        return f"layer {layer.layer}: no tokens"
    dropped = f", {layer.num_dropped} dropped" if layer.num_dropped else ""
    return (
        f"layer {layer.layer}: max/mean {layer.max_over_mean:.2f}, "
        f"entropy {layer.mean_entropy:.3f} nats{dropped}"
    )


def _layer_table(layer: LayerLoad) -> Table:
    numbers = ("EXPERT", "TOKENS", "SHARE")
    table = new_table(*numbers, "", numbers=numbers)
    total, most = sum(layer.num_tokens), max(layer.num_tokens)
    for expert, count in enumerate(layer.num_tokens):
        bar = Bar(most, 0, count, width=_BAR_COLUMNS)
        table.add_row(str(expert), str(count), f"{count / total:.1%}", bar)
    return table


def _shard_table(shards: Sequence[ShardStatus]) -> Table:
    numbers = ("EXPERTS", "MIB", "OF MIB", "TOKENS")
    table = new_table("SHARD", "STATE", *numbers, "", numbers=numbers)
    most = max((shard.num_rows for shard in shards), default=0)
    for shard in shards:
        table.add_row(
            Text(shard.shard),
            "ready" if shard.reachable else "away",
            str(shard.num_experts),
            f"{shard.expert_bytes / _MIB:.1f}",
            f"{shard.max_expert_bytes / _MIB:.1f}",
            str(shard.num_rows),
            Bar(most, 0, shard.num_rows, width=_BAR_COLUMNS),
            style=None if shard.reachable else "red",
        )
    return table


def _balance_table(result: RebalanceResult, shards: Sequence[ShardStatus]) -> Table:
    before, after = result.before, result.after
    table = new_table("TOKENS OF THE WINDOW", "BEFORE", "AFTER", numbers=("BEFORE", "AFTER"))
    for shard, old, new in zip(shards, before.num_rows, after.num_rows, strict=True):
        table.add_row(Text(shard.shard), str(old), str(new))
    for told, old_ratio, new_ratio in (
        ("max/mean of the shards", before.max_over_mean, after.max_over_mean),
        ("max/mean within a layer", before.layers_max_over_mean, after.layers_max_over_mean),
    ):
        table.add_row(told, f"{old_ratio:.2f}", f"{new_ratio:.2f}", style="bold")
    return table


def _move_table(moves: Sequence[ExpertMove]) -> Table:
    """One row for each expert that moves."""
    by_expert: defaultdict[tuple[int, int], list[ExpertMove]] = defaultdict(list)
    for move in moves:
        by_expert[move.layer, move.expert].append(move)
    numbers = ("LAYER", "EXPERT")
    table = new_table(*numbers, "TAKEN UP BY", "GIVEN UP BY", numbers=numbers)
    for (layer, expert), moved in sorted(by_expert.items()):
        added = [move.shard for move in moved if move.added]
        dropped = [move.shard for move in moved if not move.added]
        cells = (Text(", ".join(names) or "-") for names in (added, dropped))
        table.add_row(str(layer), str(expert), *cells)
    return table


def _outcome(result: RebalanceResult, *, dry_run: bool) -> str:
    holds = f"placement {result.version} holds"
    if not any(result.before.num_rows):
        return f"nothing moved: there were no tokens to plan from; {holds}"
    if not result.moves:
        return f"nothing moved: there is nothing to gain; {holds}"
    if dry_run:
        return f"a dry run, nothing moved; {holds}"
    return f"moved; {holds}"
