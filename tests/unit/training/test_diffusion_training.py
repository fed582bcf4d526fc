"""The diffusion recipe on tiny networks: data, schedule, optimiser, resuming, the folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, StableDiffusionPipeline

from training.images import autoencoder, diffusion, latents, text_encoder
from training.images.autoencoder import AutoencoderRecipe, as_input, build_autoencoder
from training.images.captions import parse
from training.images.clip_tokenizer import build_tokenizer
from training.images.diffusion import Recipe, Trainer, build_scheduler, spread_timesteps
from training.images.drawing import draw_many
from training.images.eval_diffusion import GUIDANCE, STEPS, pipeline_generate, questions
from training.images.export_diffusion import save_pipeline
from training.images.optimizer import MixedOptimizer, as_matrix
from training.images.scenes import is_held_out
from training.images.text_encoder import TextRecipe

CPU = torch.device("cpu")
SERVE_CONFIG = Path(__file__).parents[3] / "deploy/serve/orrery.yaml"
TINY_AUTOENCODER = AutoencoderRecipe(widths=(4, 4, 4), steps=2, batch_size=2, checkpoint_every=2)
TINY = Recipe(
    widths=(8, 16), text=TextRecipe(width=16, layers=1, heads=2, steps=1, batch_size=4),
    heads=2, pictures=16, steps=4, batch_size=8,
    warmup_steps=1, checkpoint_every=2, evaluate_every=100,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (autoencoder, diffusion):
        monkeypatch.setattr(module, "RUN", tmp_path)


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return build_autoencoder(TINY_AUTOENCODER).eval()


def test_training_scenes_are_never_held_out_and_reproduce() -> None:
    scenes = latents.training_scenes(300, seed=1)
    assert not any(map(is_held_out, scenes))
    assert scenes == latents.training_scenes(300, seed=1)
    assert {scene.kind for scene in scenes} == {"single", "pair", "count"}


def test_questions_are_held_out_captions_that_say_where() -> None:
    asked = questions(30)
    assert [question.kind for question in asked[:3]] == ["single", "pair", "count"]
    for question in asked:
        assert parse(question.text) == question.facts
        assert question.kind == "count" or question.facts.position or question.facts.relation


def test_batches_go_on_where_they_were_left(vae: AutoencoderKL) -> None:
    scenes = latents.training_scenes(24, seed=1)
    data = latents.LatentSet(scenes, latents.encode(vae, scenes))
    tokenizer = build_tokenizer()
    stream = latents.batches(data, tokenizer, batch_size=8, seed=3)
    whole = [next(stream) for _ in range(8)]
    resumed = latents.batches(data, tokenizer, batch_size=8, seed=3, first_step=5)
    for expected in whole[5:]:
        for left, right in zip(expected, next(resumed), strict=True):
            assert torch.equal(left, right)
    assert whole[0][0].shape == (8, 4, 16, 16)
    assert whole[0][1].shape == (8, tokenizer.model_max_length)


def test_kinds_of_pictures_come_as_often_as_they_are_to() -> None:
    scenes = latents.training_scenes(200, seed=1)
    numbers = torch.arange(200).view(-1, 1, 1, 1)  # in the place of latents, so that each is known
    stream = latents.batches(latents.LatentSet(scenes, numbers), build_tokenizer(), 50, seed=3)
    seen = Counter(scenes[int(number)].kind for _ in range(40) for number in next(stream)[0])
    for kind, share in latents.SHARES.items():
        assert abs(seen[kind] / 2000 - share) < 0.05


def test_kept_latents_of_another_size_are_refused(vae: AutoencoderKL, tmp_path: Path) -> None:
    np.save(tmp_path / "latents.npy", np.zeros((3, 4, 16, 16), np.float16))
    with pytest.raises(ValueError, match="expected 5 latents, found 3"):
        latents.load_or_encode(vae, tmp_path / "latents.npy", 5, seed=1)


def test_normalised_autoencoder_decodes_as_before(vae: AutoencoderKL) -> None:
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(pictures).latent_dist.mean).sample
        autoencoder.normalise(vae, num_pictures=32)
        after = vae.decode(vae.encode(pictures).latent_dist.mean).sample
        drawn = as_input(draw_many(latents.training_scenes(64, seed=2)))
        sampled = vae.encode(drawn).latent_dist.sample()
    assert torch.allclose(before, after, atol=1e-4)
    assert sampled.mean((0, 2, 3)).abs().max() < 0.3
    assert (sampled.std((0, 2, 3)) - 1).abs().max() < 0.2


def test_spread_timesteps_cover_all_and_favour_late_ones() -> None:
    timesteps = spread_timesteps(1000, CPU)
    assert timesteps.sort().values.equal(timesteps)
    assert timesteps.min() <= 5
    assert timesteps.max() == 999
    assert 490 <= int((timesteps >= 875).sum()) <= 510


def test_velocity_equals_the_schedulers(vae: AutoencoderKL) -> None:
    trainer = Trainer(TINY, vae, CPU)
    sample, noise = torch.randn(3, 4, 16, 16), torch.randn(3, 4, 16, 16)
    timesteps = torch.tensor([0, 500, 999])
    expected = build_scheduler().get_velocity(sample, noise, timesteps)
    assert torch.allclose(trainer.velocity(sample, noise, timesteps), expected, atol=1e-6)


def test_optimizer_moves_kernels_through_their_views() -> None:
    model = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    before = model.weight.detach().clone()
    optimizer = MixedOptimizer(model, weight_decay=0.0)
    model(torch.randn(2, 4, 8, 8)).square().mean().backward()
    gradient = as_matrix(model.weight.grad)
    optimizer.step(0.01)
    moved = as_matrix((model.weight - before).detach())
    assert (moved * gradient).sum() < 0  # downhill
    assert model.weight.grad is None


def test_interrupted_run_goes_on_from_its_checkpoint(vae: AutoencoderKL) -> None:
    first = Trainer(Recipe(**{**vars(TINY), "steps": 2}), vae, CPU)
    first.run()
    resumed = Trainer(TINY, vae, CPU)
    assert resumed.progress.step == 2
    for left, right in zip(first.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(left, right)
    resumed.run()
    assert resumed.progress.step == 4


def test_autoencoder_run_writes_a_checkpoint_and_resumes() -> None:
    first = autoencoder.train_autoencoder(TINY_AUTOENCODER, CPU)
    again = autoencoder.train_autoencoder(TINY_AUTOENCODER, CPU)  # nothing left to do
    for left, right in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)
    assert autoencoder.training_record()["seconds"] > 0


# diffusers' own; it hands torch's tensors to NumPy.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saved_folder_loads_in_diffusers_and_gives_the_same(
    vae: AutoencoderKL, tmp_path: Path
) -> None:
    pipeline = Trainer(TINY, vae, CPU).pipeline()
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.half().float()  # as they are on the disk
    save_pipeline(pipeline, tmp_path / "model")
    loaded = StableDiffusionPipeline.from_pretrained(
        tmp_path / "model", dtype=torch.float32, safety_checker=None
    )
    texts = ["a red circle left of a blue square"]
    expected = pipeline_generate(pipeline, steps=2)(texts).astype(int)
    assert abs(pipeline_generate(loaded, steps=2)(texts) - expected).max() <= 1


def test_text_lessons_number_what_the_captions_say() -> None:
    tokenizer = build_tokenizer()
    token_ids, targets = text_encoder.lesson(tokenizer, TextRecipe(batch_size=64), step=0)
    texts = tokenizer.batch_decode(token_ids, skip_special_tokens=True)
    for text, numbers in zip(texts, targets.tolist(), strict=True):
        assert text_encoder.fact_numbers(parse(text.replace(" ,", ","))) == numbers


def test_taught_text_encoder_is_kept_and_loaded(tmp_path: Path) -> None:
    tokenizer, recipe = build_tokenizer(), TINY.text
    taught, loaded = (text_encoder.build_text_encoder(recipe, tokenizer) for _ in range(2))
    text_encoder.teach_facts(taught, tokenizer, recipe, tmp_path / "text.pt")
    text_encoder.teach_facts(loaded, tokenizer, recipe, tmp_path / "text.pt")
    for left, right in zip(taught.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_model_is_served_with_what_its_figures_are_of() -> None:
    applications = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    [served] = [each for each in applications if each["name"] == "diffusion"]
    expected = {"num_steps": STEPS, "guidance_scale": GUIDANCE, "scheduler": "dpm_solver_pp_2m"}
    assert served["args"]["defaults"] == expected
