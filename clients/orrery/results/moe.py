"""What calls of the mixture-of-experts router return. k: experts of a token."""

from __future__ import annotations

from dataclasses import dataclass

from orrery.results.common import Timing

__all__ = [
    "ExpertLoad",
    "ExpertMove",
    "ExpertPlacement",
    "LayerAnalysis",
    "LayerLoad",
    "LayerRouting",
    "MoeLoad",
    "MoeModelInfo",
    "Placement",
    "RebalanceResult",
    "RouteResult",
    "RoutingAnalysis",
    "ShardBalance",
    "ShardStatus",
    "TokenClassRouting",
]


@dataclass(frozen=True, slots=True)
class LayerRouting:
    """Where a layer sent each token.

    Attributes:
        layer: Of the decoder, counted from 0.
        expert_ids: Of each token its k experts, the one with the most weight first.
        weights: Beside them; what the experts' outputs are multiplied by.
        entropies: Of each token, in nats: of the gate's distribution over all experts.
    """

    layer: int
    expert_ids: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    entropies: tuple[float, ...]

    @property
    def first_expert_ids(self) -> tuple[int, ...]:
        """Of each token the expert with the most weight."""
        return tuple(ids[0] for ids in self.expert_ids)

    @property
    def mean_entropy(self) -> float:
        """Over the tokens, in nats."""
        return sum(self.entropies) / max(1, len(self.entropies))


@dataclass(frozen=True, slots=True)
class RouteResult:
    """Where every sparse layer sends the tokens of a text."""

    request_id: str
    model: str
    num_experts_per_token: int
    token_ids: tuple[int, ...]
    layers: tuple[LayerRouting, ...]
    timing: Timing


@dataclass(frozen=True, slots=True)
class LayerAnalysis:
    """What a layer's routing of a text is worth.

    Attributes:
        load_balancing_loss: 1 = even (Fedus et al. 2021, eq. 4-6).
        z_loss: Mean of the squared log of the gate's denominator (Zoph et al. 2022, eq. 5).
        shares: Of each expert, by its number: its part of the text's tokens times k.
    """

    routing: LayerRouting
    load_balancing_loss: float
    z_loss: float
    shares: tuple[float, ...]

    @property
    def layer(self) -> int:
        """Of the decoder, counted from 0."""
        return self.routing.layer


@dataclass(frozen=True, slots=True)
class TokenClassRouting:
    """How a layer spreads the tokens of one class over its experts.

    `token_class` is `word`, `word_part`, `number`, `punctuation`, `space` or `other`.
    """

    token_class: str
    num_tokens: int
    layer: int
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RoutingAnalysis:
    """How a text is routed.

    Attributes:
        tokens: The text of each token; empty of a special one.
        token_classes: Of each layer, those that the text has.
    """

    request_id: str
    model: str
    num_experts: int
    num_experts_per_token: int
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    layers: tuple[LayerAnalysis, ...]
    token_classes: tuple[TokenClassRouting, ...]
    timing: Timing


@dataclass(frozen=True, slots=True)
class LayerLoad:
    """How many tokens went to a layer's experts.

    Attributes:
        num_tokens: Of each expert, by its number; a token counts for each of its k experts.
        max_over_mean: Of the busiest expert. 1 = even, 0 = there were no tokens.
        mean_entropy: Of the gate, in nats.
        num_dropped: Those that found no room under a capacity factor.
    """

    layer: int
    num_tokens: tuple[int, ...]
    max_over_mean: float
    mean_entropy: float
    num_dropped: int


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One of the applications that hold experts. `num_rows` it computed over the window."""

    shard: str
    reachable: bool
    num_experts: int
    expert_bytes: int
    max_expert_bytes: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """The load of the last `window_s` seconds."""

    request_id: str
    model: str
    layers: tuple[LayerLoad, ...]
    shards: tuple[ShardStatus, ...]
    window_s: float


@dataclass(frozen=True, slots=True)
class ExpertPlacement:
    """An expert, and the shards that hold it: several where it is replicated."""

    layer: int
    expert: int
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Which shard holds which expert. `version` grows with every change."""

    request_id: str
    model: str
    version: int
    experts: tuple[ExpertPlacement, ...]
    shards: tuple[ShardStatus, ...]


@dataclass(frozen=True, slots=True)
class ExpertMove:
    """A shard takes an expert up (`added`), or gives it up."""

    layer: int
    expert: int
    shard: str
    added: bool


@dataclass(frozen=True, slots=True)
class ShardBalance:
    """How the window's tokens fall on the shards under a placement.

    Attributes:
        max_over_mean: Of the busiest shard. 1 = even, 0 = there were no tokens.
        num_rows: By shard, in the order of `Placement.shards`.
        layers_max_over_mean: Of the busiest shard within each layer, the layers weighted by their
            rows: what decoders wait for.
    """

    max_over_mean: float
    num_rows: tuple[int, ...]
    layers_max_over_mean: float


@dataclass(frozen=True, slots=True)
class RebalanceResult:
    """What was done, or of a dry run would be. `version` is that of the placement that holds."""

    request_id: str
    model: str
    version: int
    applied: bool
    before: ShardBalance
    after: ShardBalance
    moves: tuple[ExpertMove, ...]


@dataclass(frozen=True, slots=True)
class MoeModelInfo:
    """A served mixture of experts.

    Attributes:
        layers: The decoder's sparse layers.
        max_tokens: Of one message of hidden states.
        max_text_bytes: Of a text, in UTF-8.
        capacity_factor: Rows an expert takes of a batch, over its even share; None = all of them.
        capacity_policy: What becomes of those beyond that: `drop` or `reroute`.
    """

    request_id: str
    model: str
    aliases: tuple[str, ...]
    dtype: str
    weight_hash: str
    hidden_size: int
    num_experts: int
    num_experts_per_token: int
    layers: tuple[int, ...]
    bytes_per_expert: int
    max_tokens: int
    max_text_bytes: int
    capacity_factor: float | None
    capacity_policy: str | None


@dataclass(frozen=True, slots=True)
class MoeLoad:
    """What a router is doing.

    Attributes:
        num_waiting_tokens: In batches that have not begun.
        num_dispatching: Calls to shards under way.
        num_tokens_done: Since its start, counted in each layer.
    """

    request_id: str
    model: str
    num_running: int
    num_waiting_tokens: int
    num_dispatching: int
    num_tokens_done: int
    resident_bytes: int
