"""Train `orrery-diffusion` from scratch: `python -m training.images.diffusion`.

First the autoencoder, then the text encoder, then, on latents encoded once, the UNet.
Interrupt it at will: the same command resumes from the last checkpoint in
`training/runs/diffusion/`. Writes the model folder at the end.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from training.images.autoencoder import RUN, AutoencoderRecipe, train_autoencoder, training_record
from training.images.clip_tokenizer import build_tokenizer
from training.images.eval_diffusion import answer, grid, pipeline_generate, questions, shares
from training.images.eval_images import evaluate_diffusion, record_diffusion
from training.images.export_diffusion import MODEL, export
from training.images.latents import batches, load_or_encode
from training.images.optimizer import MixedOptimizer
from training.images.text_encoder import TextRecipe, build_text_encoder, teach_facts

TIMESTEPS = 1000


@dataclass(frozen=True)
class Recipe:
    """Sizes and schedule of the UNet.

    Widths leave at least 16 channels to a norm's group: fewer are slow on CPUs.
    """

    widths: tuple[int, ...] = (64, 128)
    norm_groups: int = 4
    heads: int = 4
    text: TextRecipe = field(default_factory=TextRecipe)
    pictures: int = 60_000
    steps: int = 9000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 100
    decay_share: float = 0.4  # of the steps, at the end, over which the rate falls to zero
    ema_decay: float = 0.998
    checkpoint_every: int = 100
    evaluate_every: int = 500
    evaluated: int = 48  # held-out captions
    seed: int = 7


@dataclass
class Progress:
    """Where a run stands: restored from its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def build_unet(recipe: Recipe, latent_channels: int, latent_size: int) -> UNet2DConditionModel:
    """A UNet of random weights: convolutions at full size, attention below."""
    levels = len(recipe.widths)
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        block_out_channels=recipe.widths,
        layers_per_block=1,
        cross_attention_dim=recipe.text.width,
        attention_head_dim=recipe.heads,  # the number of heads, by the field's old misnomer
        norm_num_groups=recipe.norm_groups,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v prediction."""
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",  # from the last timestep: the first step sees noise alone
    )


class Trainer:
    """One run of the last part: the UNet, its moving average, optimisers, checkpoint."""

    def __init__(self, recipe: Recipe, autoencoder: AutoencoderKL, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.autoencoder = recipe, device, autoencoder
        self.tokenizer = build_tokenizer()
        self.text_encoder = build_text_encoder(recipe.text, self.tokenizer).to(device)
        teach_facts(self.text_encoder, self.tokenizer, recipe.text, RUN / "text_encoder.pt")
        self.text_encoder.requires_grad_(False).eval()
        self.model = self._build().to(device, memory_format=torch.channels_last)
        self.average = self._build().to(device, memory_format=torch.channels_last)
        self.average.load_state_dict(self.model.state_dict())
        self.average.requires_grad_(False).eval()
        self.optimizer = MixedOptimizer(self.model, recipe.weight_decay)
        self.scheduler = build_scheduler()
        self.progress = Progress()
        self._resume()

    def run(self) -> None:
        """Train to the end of the recipe."""
        recipe, progress = self.recipe, self.progress
        data = load_or_encode(self.autoencoder, RUN / "latents.npy", recipe.pictures, recipe.seed)
        started = time.monotonic() - progress.seconds
        recent: list[float] = []
        stream = batches(data, self.tokenizer, recipe.batch_size, recipe.seed, progress.step)
        for latents, token_ids in stream:
            if progress.step >= recipe.steps:
                break
            recent.append(self._step(latents.to(self.device), token_ids.to(self.device)))
            progress.step += 1
            progress.seconds = time.monotonic() - started
            if progress.step % 25 == 0:
                loss, recent = sum(recent) / len(recent), []
                progress.history.append({"step": progress.step, "loss": loss})
                print(f"step {progress.step} loss {loss:.4f} {progress.seconds:.0f} s", flush=True)
            if progress.step % recipe.evaluate_every == 0:
                self._evaluate()
            if progress.step % recipe.checkpoint_every == 0 or progress.step == recipe.steps:
                self.save_checkpoint()

    def pipeline(self) -> StableDiffusionPipeline:
        """The averaged networks as diffusers' pipeline (sharing their weights)."""
        return build_pipeline(self.autoencoder, self.average, self.text_encoder, self.tokenizer)

    def record(self) -> dict[str, Any]:
        """What the model folder tells of the run."""
        return {
            "recipe": asdict(self.recipe),
            "progress": asdict(self.progress),
            "autoencoder": {"recipe": asdict(AutoencoderRecipe()), **training_record()},
        }

    def save_checkpoint(self) -> None:
        """Write the whole state, so that an interrupted run goes on where it was."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        partial = RUN / "unet.part"
        torch.save(state, partial)
        partial.replace(RUN / "unet.pt")

    def _resume(self) -> None:
        path = RUN / "unet.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        torch.manual_seed(self.recipe.seed + self.progress.step)  # other noise than before

    def _build(self) -> UNet2DConditionModel:
        config = self.autoencoder.config
        size = config.sample_size // 2 ** (len(config.block_out_channels) - 1)
        unet = build_unet(self.recipe, config.latent_channels, size)
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward is slow on CPUs
        return unet

    def _evaluate(self) -> None:
        """Note how many of a few held-out captions are drawn right."""
        generate = pipeline_generate(self.pipeline())
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            answers = answer(generate, questions(self.recipe.evaluated))
        figures = {name: share.value for name, share in shares(answers).items()}
        self.progress.history.append({"step": self.progress.step, **figures})
        grid(answers).save(RUN / f"samples_{self.progress.step}.png")
        print({name: round(value, 3) for name, value in figures.items()}, flush=True)

    def _step(self, latents: torch.Tensor, token_ids: torch.Tensor) -> float:
        noise = torch.randn_like(latents)
        timesteps = spread_timesteps(len(latents), self.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = self.velocity(latents, noise, timesteps)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            with torch.no_grad():
                states = self.text_encoder(input_ids=token_ids).last_hidden_state
            predicted = self.model(noisy, timesteps, states).sample
        loss = F.mse_loss(predicted.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(self.recipe.learning_rate * self._rate_factor())
        self._update_average()
        return float(loss.detach())

    def velocity(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """What v prediction predicts (Salimans and Ho 2022): alpha * noise - sigma * latents."""
        kept = self.scheduler.alphas_cumprod.to(self.device)[timesteps].view(-1, 1, 1, 1)
        return kept.sqrt() * noise - (1 - kept).sqrt() * latents

    def _rate_factor(self) -> float:
        """Warm-up, plateau, then a straight line to zero."""
        recipe, step = self.recipe, self.progress.step
        left = (1 - step / recipe.steps) / recipe.decay_share
        return min(1.0, (step + 1) / recipe.warmup_steps, left)

    @torch.no_grad()
    def _update_average(self) -> None:
        step = self.progress.step
        decay = min(self.recipe.ema_decay, (1 + step) / (10 + step))
        averaged, current = list(self.average.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)


def spread_timesteps(count: int, device: torch.device) -> torch.Tensor:
    """Random timesteps int64 [count], one from each of `count` equally probable ranges.

    Late ones, where nearly all is noise, are the likelier (half are in the last eighth): what goes
    where is settled there and by the caption alone; further down the noisy picture shows it.
    """
    places = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    return (TIMESTEPS * (1 - (1 - places).pow(3))).long().clamp(max=TIMESTEPS - 1)


def build_pipeline(
    autoencoder: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> StableDiffusionPipeline:
    """diffusers' own pipeline around the parts."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=DPMSolverMultistepScheduler.from_config(build_scheduler().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU")
    parser.add_argument("--threads", type=int, help="threads on the CPU")
    parser.add_argument("--steps", type=int, help="steps of the UNet, instead of the recipe's")
    parser.add_argument("--export-only", action="store_true", help="write the last checkpoint")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    recipe = Recipe(steps=arguments.steps) if arguments.steps else Recipe()
    autoencoder = train_autoencoder(AutoencoderRecipe(), device)
    trainer = Trainer(recipe, autoencoder, device)
    if not arguments.export_only:
        trainer.run()
    export(trainer.pipeline(), trainer.record())
    record_diffusion(MODEL, *evaluate_diffusion(MODEL))


if __name__ == "__main__":
    main()
