"""Train `orrery-clip` from scratch: `python -m training.images.clip_training`.

Interrupt it at will: the same command resumes from the last checkpoint in `training/runs/clip/`.
Writes `models/orrery-clip` at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer

from training.images.clip_data import Batch, batches, encode
from training.images.clip_model import (
    MAX_LOGIT_SCALE,
    FactReader,
    build_clip,
    contrastive_loss,
    image_vectors,
    save_clip,
    text_vectors,
    to_pixel_values,
)
from training.images.clip_tokenizer import build_tokenizer
from training.images.eval_clip import Vectors, evaluate

RUN = Path(__file__).parents[1] / "runs" / "clip"
MODEL = Path(__file__).parents[2] / "models" / "orrery-clip"


@dataclass(frozen=True)
class Recipe:
    """What a run is made of, apart from the model and the data."""

    steps: int = 2600
    pictures_per_step: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    reading_weight: float = 1.0
    warmup_steps: int = 100
    validate_every: int = 250
    checkpoint_every: int = 100
    seed: int = 7


@dataclass
class Progress:
    """Where a run stands: restored from its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class TrainedEncoder:
    """The model being trained, as an `Encoder`."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        token_ids = torch.from_numpy(encode(texts, self.tokenizer))
        return text_vectors(self.model, token_ids).numpy()

    @torch.no_grad()
    def pictures(self, pictures: npt.NDArray[np.uint8]) -> Vectors:
        """See `Encoder`."""
        return image_vectors(self.model, to_pixel_values(torch.from_numpy(pictures))).numpy()


class Trainer:
    """One training run: model, optimisers, position in the data, and its checkpoint file."""

    def __init__(self, recipe: Recipe, folder: Path = RUN, *, compile_model: bool = True) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = build_tokenizer()
        self.model = build_clip(self.tokenizer)
        self.model.set_attn_implementation("eager")  # faster backwards in bfloat16 on a CPU
        self.reader = FactReader()
        self.optimizers = _optimizers(self.model, self.reader, recipe)
        self.progress = Progress()
        self._loss = torch.compile(self._plain_loss) if compile_model else self._plain_loss
        self._resume()

    def run(self) -> None:
        """Train to the end of the recipe."""
        recipe, progress = self.recipe, self.progress
        started = time.monotonic() - progress.seconds
        stream = batches(self.tokenizer, recipe.pictures_per_step, recipe.seed, progress.step)
        bar = tqdm(total=recipe.steps, initial=progress.step, unit="step", mininterval=5.0)
        while progress.step < recipe.steps:
            loss = self._step(next(stream))
            progress.step += 1
            progress.seconds = time.monotonic() - started
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._after_step(loss)
        bar.close()
        self._validate(500)
        self.save_checkpoint()

    def export(self, folder: Path = MODEL) -> None:
        """Write the Hugging Face folder of the model as it is now, and the run's record."""
        save_clip(self.model, self.tokenizer, folder)
        record = {
            "recipe": asdict(self.recipe),
            "seconds": self.progress.seconds,
            "history": self.progress.history,
        }
        (folder / "training.json").write_text(json.dumps(record) + "\n")

    def save_checkpoint(self) -> None:
        """Write the whole state, so that an interrupted run goes on where it was."""
        state = {
            "model": self.model.state_dict(),
            "reader": self.reader.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        partial = self.folder / "checkpoint.pt.part"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.reader.load_state_dict(state["reader"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def _plain_loss(
        self,
        pictures: torch.Tensor,
        token_ids: torch.Tensor,
        truth: torch.Tensor,
        said: torch.Tensor,
        shown: torch.Tensor,
    ) -> torch.Tensor:
        """The losses of a batch; arguments as the fields of `Batch`."""
        texts = text_vectors(self.model, token_ids)
        images = image_vectors(self.model, to_pixel_values(pictures))
        scale = self.model.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        reading = self.reader.loss(texts, said) + self.reader.loss(images, shown)
        contrast = contrastive_loss(scale * (texts @ images.T).float(), truth)
        return contrast + self.recipe.reading_weight * reading

    def _step(self, batch: Batch) -> float:
        rate = self.recipe.learning_rate * self._rate_factor()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        arrays = (batch.pictures, batch.token_ids, batch.truth, batch.said, batch.shown)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self._loss(*map(torch.from_numpy, arrays))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _rate_factor(self) -> float:
        """Warm-up, then half a cosine to zero."""
        recipe, step = self.recipe, self.progress.step
        warmup = min(1.0, (step + 1) / recipe.warmup_steps)
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))

    def _after_step(self, loss: float) -> None:
        recipe, progress = self.recipe, self.progress
        if progress.step % 10 == 0:
            progress.history.append({"step": progress.step, "loss": loss})
        if progress.step % recipe.validate_every == 0:
            self._validate(200)
        if progress.step % recipe.checkpoint_every == 0:
            self.save_checkpoint()

    def _validate(self, count: int) -> None:
        """Record the figures on held-out scenes (other ones than the evaluation's)."""
        progress = self.progress
        figures: dict[str, float] = {"step": progress.step, "seconds": round(progress.seconds)}
        found = evaluate(TrainedEncoder(self.model, self.tokenizer), count, seed=2)
        figures |= {name: figure.value for name, figure in found.items()}
        progress.history.append(figures)
        tqdm.write(json.dumps({key: round(value, 3) for key, value in figures.items()}))


def _optimizers(
    model: CLIPModel, reader: FactReader, recipe: Recipe
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and biases."""
    inner = {name for name, weight in model.named_parameters() if weight.ndim == 2}
    inner = {name for name in inner if ".layers." in name or "_projection" in name}
    matrices = [weight for name, weight in model.named_parameters() if name in inner]
    others = [weight for name, weight in model.named_parameters() if name not in inner]
    others += reader.parameters()
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
    parser.add_argument("--steps", type=int, help="steps to train for, instead of the recipe's")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile")
    parser.add_argument("--export-only", action="store_true", help="write the last checkpoint")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = replace(Recipe(), steps=arguments.steps) if arguments.steps else Recipe()
    trainer = Trainer(recipe, compile_model=not arguments.no_compile)
    if not arguments.export_only:
        trainer.run()
    trainer.export()


if __name__ == "__main__":
    main()
