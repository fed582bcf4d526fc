"""Write `orrery-diffusion` as a diffusers folder, with its record, curve, sample grid and card."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import matplotlib
from diffusers import StableDiffusionPipeline

from training.images.eval_diffusion import GUIDANCE, STEPS
from training.shares import evaluation_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MODEL = Path(__file__).parents[2] / "models" / "orrery-diffusion"
_PARTS = {"unet": "UNet", "text_encoder": "text encoder", "vae": "autoencoder"}

_CARD = """---
license: apache-2.0
language: en
library_name: diffusers
pipeline_tag: text-to-image
---

# orrery-diffusion

A latent diffusion model with {parameters:.1f}M parameters, trained from scratch on CPU by Orrery's
own recipe (`training/images/`). It draws 64x64 pictures of the recipe's world: one object at one of
nine places, two objects in a relation, or two to four of the same; seven shapes, eight colours, two
sizes, three backgrounds. It knows no other words; it exists to demonstrate and test the platform.

{unfinished}![Samples](samples.png)

Held-out captions, first tries; a red caption marks a picture that the pixel checker found wrong.

| | |
|---|---|
| Format | diffusers, `StableDiffusionPipeline` |
| Weights | float16 safetensors, {size_mb:.1f} MB; compute in float32 |
| Parameters | {parts} |
| Latents | 16x16, 4 channels, mean 0 and variance 1 (`scaling_factor` 1) |
| Prediction | v, 1000 timesteps, scaled linear betas 0.00085 to 0.012 |
| Captions | up to {tokens} tokens; every word of the grammar is one token |
| Defaults | {steps} steps, guidance {guidance:g} |
| Training | autoencoder {autoencoder_minutes:.0f} minutes; UNet and text encoder \
{samples:.2f}M pictures in {steps_trained} steps, {minutes:.0f} minutes; a core of a busy machine |
| Licence | Apache-2.0 |

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("models/orrery-diffusion")
pipeline(
    "a red circle left of a blue square", num_inference_steps={steps}, guidance_scale={guidance:g}
).images[0].save("out.png")
```

## Evaluation

Captions of combinations that training never drew; one picture each, DPM-Solver++ 2M,
{steps} steps, guidance {guidance:g}, judged by plain pixels (`training/images/checker.py`):
`make eval-images`.

{evaluation}

## Training

![Loss curve](loss_curve.png)

Recipe: see [`training/README.md`](../../training/README.md). Reproduce with
`python -m training.images.diffusion`.
"""


def save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the diffusers folder, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    halved = copy.deepcopy(pipeline)
    for name in _PARTS:
        getattr(halved, name).half()
    halved.save_pretrained(folder, safe_serialization=True)
    for weights in folder.glob("*/*.safetensors"):
        weights.chmod(0o644)  # the writer makes it private
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def export(pipeline: StableDiffusionPipeline, record: dict[str, Any], folder: Path = MODEL) -> None:
    """Write the folder of `pipeline`; `record` becomes its training.json."""
    save_pipeline(pipeline, folder)
    (folder / "training.json").write_text(json.dumps(record) + "\n")


def write_card(folder: Path = MODEL) -> None:
    """README.md and loss_curve.png from the records in `folder`."""
    record = json.loads((folder / "training.json").read_text())
    sizes = {name: _weights(folder / name).stat().st_size for name in _PARTS}
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    _plot(record, folder / "loss_curve.png")
    steps = record["progress"]["step"]
    text = _CARD.format(
        parameters=sum(sizes.values()) / 2e6,
        parts=", ".join(f"{title} {sizes[name] / 2e6:.2f}M" for name, title in _PARTS.items()),
        size_mb=sum(sizes.values()) / 1e6,
        tokens=tokenizer["model_max_length"],
        steps=STEPS,
        guidance=GUIDANCE,
        samples=steps * record["recipe"]["batch_size"] / 1e6,
        steps_trained=steps,
        minutes=record["progress"]["seconds"] / 60,
        autoencoder_minutes=record["autoencoder"]["seconds"] / 60,
        evaluation=evaluation_table(folder / "evaluation.json", "make eval-images"),
        unfinished=_unfinished(steps, record["recipe"]["steps"]),
    )
    (folder / "README.md").write_text(text)


def _weights(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def _unfinished(steps: int, planned: int) -> str:
    """A warning where training was stopped before the rate fell to zero."""
    if steps >= planned:
        return ""
    return (
        f"**Unfinished**: exported after {steps} of {planned} steps, before the learning rate "
        "fell. Colours and shapes are mostly right; places, order and number often are not.\n\n"
    )


def _plot(record: dict[str, Any], path: Path) -> None:
    """The autoencoder's error on the left, the UNet's loss and the checker's figures beside it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    errors = record["autoencoder"]["history"]
    left.plot([entry["step"] for entry in errors], [entry["error"] for entry in errors])
    left.set(yscale="log", title="autoencoder", xlabel="step", ylabel="mean absolute error (of 2)")
    losses = [entry for entry in record["progress"]["history"] if "loss" in entry]
    right.plot(
        [entry["step"] for entry in losses],
        [entry["loss"] for entry in losses],
        linewidth=0.8,
        label="training loss",
    )
    right.set(
        yscale="log", title="UNet and text encoder", xlabel="step", ylabel="squared error of v"
    )
    judged = [entry for entry in record["progress"]["history"] if "right" in entry]
    if judged:
        shares_axis = right.twinx()
        shares_axis.plot(
            [entry["step"] for entry in judged],
            [entry["right"] for entry in judged],
            "o-",
            color="tab:green",
            label="held-out captions right",
        )
        shares_axis.set(ylim=(0, 1.02))
        shares_axis.legend(loc="center right")
    right.legend(loc="upper right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
