"""Train a demo model: `python -m training.train --model llama`, or gpt, or after the LLaMA moe.

Three stages: copying from one passage, telling entities apart, the full mix; `STAGES` says when
each ends. Interrupt it at will: the same command resumes from the last checkpoint in
`training/runs/`. Writes the model folder at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import LlamaForCausalLM, MixtralForCausalLM

from services.engine.layers.router_losses import load_balancing_loss, z_loss
from training.architectures import NUM_EXPERTS_PER_TOKEN, build_model
from training.corpus import BINDING, COPYING, FULL, Mix
from training.data import Batch, batches
from training.export import export_model
from training.prompt import BOS, END, PAD
from training.questions import QuestionType, held_out_cases
from training.tokenizer import train_tokenizer
from training.upcycling import upcycle
from training.validate import exact_match

RUNS = Path(__file__).parent / "runs"
MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: it ends when a figure reaches its goal, or after `max_tokens`."""

    mix: Mix
    figure: str = ""
    goal: float = 0.0
    max_tokens: float = inf


STAGES = {
    "copying": Stage(COPYING, "answered_of_1", 0.8, 6_000_000),
    "binding": Stage(BINDING, "answered", 0.85, 15_000_000),
    "full": Stage(FULL),
}


@dataclass(frozen=True)
class Recipe:
    """What a run is made of, apart from the model (`architectures`) and the mix (`corpus`)."""

    model: str
    tokens: int = 24_000_000
    tokens_per_step: int = 4096
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup_steps: int = 100
    decay_share: float = 0.55  # of the tokens, at the end, over which the rate falls to zero
    validate_every: int = 250
    checkpoint_every: int = 250
    seed: int = 7
    compiled: bool = True
    first_stage: str = "copying"
    begins_as: str | None = None  # the model whose trained weights it starts from; None: random
    balance_weight: float = 0.0  # of the load-balancing loss, for a mixture of experts
    z_loss_weight: float = 0.0  # of its gates' z-loss


RECIPES = {
    "llama": Recipe("llama"),
    "gpt": Recipe("gpt"),
    # The LLaMA has copying and telling apart behind it.
    "moe": Recipe(
        "moe",
        tokens=5_000_000,
        learning_rate=1.5e-3,
        validate_every=100,
        checkpoint_every=100,
        compiled=False,  # it would be anew for every division of tokens among experts
        first_stage="full",
        begins_as="llama",
        balance_weight=0.01,
        z_loss_weight=0.001,
    ),
}


@dataclass
class Progress:
    """Where a run stands: restored from its checkpoint."""

    step: int = 0
    tokens: int = 0
    stage: str = "copying"
    stage_tokens: int = 0
    chunk: int = 0
    next_batch: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """One training run: model, optimisers, position in the data, and its checkpoint file."""

    def __init__(self, recipe: Recipe, *, compile_model: bool = True) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.folder = RUNS / recipe.model
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = load_or_train_tokenizer()
        self.model = build_model(recipe.model, self.tokenizer.get_vocab_size(), self._special_ids())
        self.optimizers = _optimizers(self.model, recipe)
        self.progress = Progress(stage=recipe.first_stage)
        self._loss = (
            torch.compile(self._plain_loss, dynamic=True) if compile_model else self._plain_loss
        )
        if not self._resume() and recipe.begins_as is not None:
            trained = MODELS / f"orrery-{recipe.begins_as}"
            dense = LlamaForCausalLM.from_pretrained(trained, dtype=torch.float32)
            upcycle(dense, self.model, recipe.seed)

    def run(self) -> None:
        """Train to the end of the recipe and write the model folder."""
        recipe, progress = self.recipe, self.progress
        started = time.monotonic() - progress.seconds
        bar = tqdm(
            total=recipe.tokens,
            initial=progress.tokens,
            unit="tok",
            unit_scale=True,
            mininterval=1.0,
        )
        while progress.tokens < recipe.tokens:
            stage = progress.stage
            for chunk, number, batch in self._batches():
                loss = self._step(batch)
                progress.step += 1
                progress.tokens += batch.num_tokens
                progress.stage_tokens += batch.num_tokens
                progress.chunk, progress.next_batch = chunk, number + 1
                progress.seconds = time.monotonic() - started
                bar.update(batch.num_tokens)
                bar.set_postfix(stage=stage, loss=f"{loss:.3f}", refresh=False)
                self._after_step(loss)
                if progress.stage != stage or progress.tokens >= recipe.tokens:
                    break
        bar.close()
        self._validate(num_cases=300)
        self.save_checkpoint()
        self.export()

    def export(self) -> None:
        """Write the Hugging Face folder of the model as it is now."""
        target = MODELS / f"orrery-{self.recipe.model}"
        summary: dict[str, Any] = {"recipe": asdict(self.recipe), "history": self.progress.history}
        summary |= {"tokens": self.progress.tokens, "seconds": self.progress.seconds}
        export_model(self.model, self.tokenizer, target, summary)

    def save_checkpoint(self) -> None:
        """Write the whole state, so that an interrupted run goes on where it was."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        partial = self.folder / "checkpoint.pt.part"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def _resume(self) -> bool:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])
        return True

    def _batches(self) -> Iterator[tuple[int, int, Batch]]:
        """The stream of the current stage from where the run stands."""
        progress, recipe = self.progress, self.recipe
        first_chunk, first_batch = progress.chunk, progress.next_batch
        seed = recipe.seed + list(STAGES).index(progress.stage)
        stream = batches(
            self.tokenizer, STAGES[progress.stage].mix, seed, recipe.tokens_per_step, first_chunk
        )
        for chunk, number, batch in stream:
            if chunk > first_chunk or number >= first_batch:
                yield chunk, number, batch

    def _plain_loss(
        self, token_ids: torch.Tensor, places: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Weighted mean loss of predicting the tokens after `places` (flat indices)."""
        is_mixture = isinstance(self.model, MixtralForCausalLM)
        routed = {"output_router_logits": True} if is_mixture else {}
        output = self.model.base_model(input_ids=token_ids, use_cache=False, **routed)
        hidden = output.last_hidden_state
        logits = self.model.lm_head(hidden.flatten(0, 1)[places]).float()
        losses = F.cross_entropy(logits, token_ids.flatten()[places + 1], reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        return loss + self._router_loss(output.router_logits, token_ids) if is_mixture else loss

    def _router_loss(
        self, router_logits: Sequence[torch.Tensor], token_ids: torch.Tensor
    ) -> torch.Tensor:
        """Mean over layers, of the tokens that are no padding."""
        real = token_ids.flatten() != self.model.config.pad_token_id
        total = torch.zeros(())
        for logits in router_logits:  # [rows * length, num_experts]
            of_tokens = logits[real].float()
            chosen = of_tokens.topk(NUM_EXPERTS_PER_TOKEN, dim=-1).indices
            total = total + self.recipe.balance_weight * load_balancing_loss(of_tokens, chosen)
            total = total + self.recipe.z_loss_weight * z_loss(of_tokens)
        return total / len(router_logits)

    def _step(self, batch: Batch) -> float:
        factor = self._rate_factor()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * factor
        weights = torch.from_numpy(batch.weights).flatten()[1:]
        places = weights.nonzero().squeeze(1)  # the first token of a row weighs nothing
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self._loss(torch.from_numpy(batch.token_ids), places, weights[places])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _rate_factor(self) -> float:
        """Warm-up, plateau, then a straight line to zero."""
        recipe, progress = self.recipe, self.progress
        warmup = min(1.0, (progress.step + 1) / recipe.warmup_steps)
        left = 1.0 - progress.tokens / recipe.tokens
        return min(warmup, max(0.02, left / recipe.decay_share))

    def _after_step(self, loss: float) -> None:
        recipe, progress = self.recipe, self.progress
        if progress.step % 10 == 0:
            progress.history.append({"tokens": progress.tokens, "loss": loss})
        if progress.step % recipe.validate_every == 0:
            self._validate(num_cases=75)
        if progress.step % recipe.checkpoint_every == 0:
            self.save_checkpoint()

    def _validate(self, num_cases: int) -> None:
        """Record the figures on held-out entities; end the first stage when copying works."""
        progress = self.progress
        figures: dict[str, float] = {"tokens": progress.tokens, "seconds": round(progress.seconds)}
        one = held_out_cases(QuestionType.ANSWERED, num_cases, num_passages=1, seed=11)
        figures["answered_of_1"] = exact_match(self.model, self.tokenizer, one)
        if progress.stage != "copying":
            for kind in QuestionType:
                cases = held_out_cases(kind, num_cases, seed=12)
                figures[kind.value] = exact_match(self.model, self.tokenizer, cases)
        progress.history.append(figures)
        tqdm.write(json.dumps({k: round(v, 3) for k, v in figures.items()}))
        stage = STAGES[progress.stage]
        reached = bool(stage.figure) and figures[stage.figure] >= stage.goal
        if reached or progress.stage_tokens >= stage.max_tokens:
            self._enter_next_stage()

    def _enter_next_stage(self) -> None:
        names = list(STAGES)
        self.progress.stage = names[names.index(self.progress.stage) + 1]
        self.progress.chunk = self.progress.next_batch = self.progress.stage_tokens = 0

    def _special_ids(self) -> dict[str, int]:
        names = {"bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD}
        return {key: self.tokenizer.token_to_id(token) for key, token in names.items()}


def load_or_train_tokenizer() -> Tokenizer:
    """The tokenizer that the models share, trained once and kept beside the runs."""
    path = RUNS / "tokenizer.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train_tokenizer().save(str(path))
    return Tokenizer.from_file(str(path))


def _optimizers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and biases."""
    inner = [(n, p) for n, p in model.named_parameters() if p.ndim == 2]
    matrices = [
        p for n, p in inner if not any(part in n for part in ("embed", "wte", "wpe", "mlp.gate."))
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [muon, adamw]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=list(RECIPES), required=True)
    parser.add_argument("--tokens", type=int, help="tokens to train on, instead of the recipe's")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile")
    parser.add_argument("--export-only", action="store_true", help="write the last checkpoint")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = RECIPES[arguments.model]
    if arguments.tokens:
        recipe = replace(recipe, tokens=arguments.tokens)
    trainer = Trainer(recipe, compile_model=recipe.compiled and not arguments.no_compile)
    if arguments.export_only:
        trainer.export()
    else:
        trainer.run()


if __name__ == "__main__":
    main()
