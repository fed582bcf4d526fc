"""The text encoder of `orrery-diffusion`, and its first lessons: telling the facts of a caption.

The encoder learns to say by linear heads what a caption states: which colour and shape is left or
above, where, how many, on what. Then it stays as it is. A UNet that learns together with it teaches
it colours and shapes soon, but places and word order ("A left of B", "B right of A") very slowly.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.images.captions import phrase, some_facts
from training.images.latents import tokenize
from training.images.optimizer import MixedOptimizer
from training.images.scenes import (
    BACKGROUNDS,
    COLOURS,
    NORMAL_RELATIONS,
    POSITIONS,
    SHAPES,
    SIZES,
    Facts,
    ObjectFacts,
    draw_scene,
    facts_of,
)

_SAID: tuple[tuple[str, ...], ...] = (
    *(tuple(COLOURS), SHAPES, SIZES) * 2,
    POSITIONS,
    NORMAL_RELATIONS,
    BACKGROUNDS,
    ("1", "2", "3", "4"),
)
"""The values that each head tells apart, besides 'not said': two objects', then the whole's."""


@dataclass(frozen=True)
class TextRecipe:
    """Sizes and schedule."""

    width: int = 128
    layers: int = 3
    heads: int = 4
    steps: int = 500
    batch_size: int = 128
    learning_rate: float = 2e-3
    pair_share: float = 0.6
    warmup_steps: int = 50
    seed: int = 7


def build_text_encoder(recipe: TextRecipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text model of random weights."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        hidden_size=recipe.width,
        intermediate_size=4 * recipe.width,
        projection_dim=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModel(config)
    model.set_attn_implementation("eager")  # the fused kernel's backward is slow on CPUs
    return model


def teach_facts(
    model: CLIPTextModel, tokenizer: CLIPTokenizer, recipe: TextRecipe, path: Path
) -> None:
    """Train `model` on captions' facts, or load it from `path`, where the result is kept."""
    if path.exists():
        model.load_state_dict(torch.load(path, map_location=model.device, weights_only=True))
        return
    head = torch.nn.Linear(recipe.width, sum(len(values) + 1 for values in _SAID))
    both = torch.nn.ModuleList([model, head.to(model.device)])
    optimizer = MixedOptimizer(both, weight_decay=0.01)
    started = time.monotonic()
    for step in range(recipe.steps):
        token_ids, targets = (part.to(model.device) for part in lesson(tokenizer, recipe, step))
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            states = model(input_ids=token_ids).last_hidden_state
            logits = head(_at_ends(states, token_ids, tokenizer)).float()  # [b, 3, choices]
        losses, right = _judge(logits, targets)
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        left = 2 * (1 - step / recipe.steps)
        optimizer.step(recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup_steps, left))
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - started
            print(
                f"text step {step + 1} loss {float(losses.detach().mean()):.4f} "
                f"all facts right {right:.3f} {seconds:.0f} s",
                flush=True,
            )
    torch.save(model.state_dict(), path)


def lesson(
    tokenizer: CLIPTokenizer, recipe: TextRecipe, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids int64 [b, tokens] and the facts' numbers int64 [b, heads]; 0 is 'not said'."""
    rng = random.Random(f"text {recipe.seed} {step}")
    said = []
    for _ in range(recipe.batch_size):
        kind = "pair" if rng.random() < recipe.pair_share else rng.choice(("single", "count"))
        scene = draw_scene(rng, held_out=False, kind=kind)
        said.append(facts_of(scene) if rng.random() < 0.3 else some_facts(scene, rng))
    texts = [phrase(facts, rng) for facts in said]
    return tokenize(texts, tokenizer), torch.tensor([fact_numbers(facts) for facts in said])


def fact_numbers(facts: Facts) -> list[int]:
    second = facts.objects[1] if facts.kind == "pair" else ObjectFacts()
    values = [
        value
        for thing in (facts.objects[0], second)
        for value in (thing.colour, thing.shape, thing.size)
    ]
    values += [facts.position, facts.relation, facts.background, str(facts.count)]
    return [
        0 if value is None else 1 + names.index(value)
        for value, names in zip(values, _SAID, strict=True)
    ]


def _at_ends(
    states: torch.Tensor, token_ids: torch.Tensor, tokenizer: CLIPTokenizer
) -> torch.Tensor:
    """States at the end token, at the last padding, and at one between: [b, 3, width]."""
    length = token_ids.shape[1]
    first = (token_ids == tokenizer.eos_token_id).int().argmax(dim=1)
    between = first + (torch.rand(len(first), device=first.device) * (length - first)).long()
    places = torch.stack([first, between, torch.full_like(first, length - 1)], dim=1)
    return states[torch.arange(len(states), device=states.device)[:, None], places]


def _judge(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The mean loss of each head, and the share of captions with every fact right."""
    losses, right = [], torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
    parts = logits.split([len(values) + 1 for values in _SAID], dim=-1)
    for part, target in zip(parts, targets.T, strict=True):
        repeated = target[:, None].expand(part.shape[:2])
        losses.append(F.cross_entropy(part.flatten(0, 1), repeated.flatten()))
        right &= part.argmax(dim=-1) == repeated
    return torch.stack(losses), float(right.float().mean())
