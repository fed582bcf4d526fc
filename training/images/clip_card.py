"""Render `orrery-clip`'s README.md and curve from its training and evaluation records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

from training.shares import evaluation_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: zero-shot-image-classification
---

# {name}

A small CLIP with {parameters:.2f}M parameters, trained from scratch on CPU by Orrery's own recipe
(`training/images/`). It puts 64x64 pictures of the recipe's world and English captions of them into
one space: one object at one of nine places, two objects in a relation, or two to four of the same;
seven shapes, eight colours, two sizes, three backgrounds. It knows no other pictures and no other
words; it exists to demonstrate and test the platform.

| | |
|---|---|
| Architecture | `CLIPModel`; pictures: {vision}; texts: {text} |
| Vectors | {dimensions} dimensions, compared by cosine |
| Pictures | {image_size}x{image_size}, patches of {patch}; others are scaled and cropped to it |
| Texts | up to {max_tokens} tokens; a word of the grammar is one; any text can be read |
| Weights | float32 safetensors, {size_mb:.1f} MB |
| Training | {pictures:.2f}M pictures with two captions each, {minutes:.0f} minutes on \
one core of a busy machine |
| Licence | Apache-2.0 |

```python
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

model = CLIPModel.from_pretrained("models/{name}")
processor = CLIPProcessor.from_pretrained("models/{name}", backend="pil")
labels = ["a red circle left of a blue square", "a red star left of a green square"]
inputs = processor(text=labels, images=Image.open("picture.png"), padding=True, return_tensors="pt")
print(model(**inputs).logits_per_image.softmax(-1))
```

## Evaluation

On pictures of combinations that training never drew (`make eval-images`). A label's vector is the
mean over its prompts ("a red shape", "an image of a red object"); all labels of an attribute are
compared. Relations and numbers are told apart by captions that differ in nothing else.

{evaluation}

## Training

![Loss curve](loss_curve.png)

Figures while training are on other held-out pictures. Recipe:
[`training/README.md`](../../training/README.md). Reproduce with
`python -m training.images.clip_training`.
"""


def write_card(folder: Path) -> None:
    """Write README.md and loss_curve.png into the model folder `folder`."""
    record = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    vision, text = config["vision_config"], config["text_config"]
    _plot(record["history"], folder / "loss_curve.png", title=folder.name)
    size = (folder / "model.safetensors").stat().st_size
    steps = max(entry["step"] for entry in record["history"])
    card = _CARD.format(
        name=folder.name,
        parameters=size / 4e6,
        vision=_shape(vision),
        text=_shape(text),
        dimensions=config["projection_dim"],
        image_size=vision["image_size"],
        patch=vision["patch_size"],
        max_tokens=text["max_position_embeddings"],
        size_mb=size / 1e6,
        pictures=steps * record["recipe"]["pictures_per_step"] / 1e6,
        minutes=record["seconds"] / 60,
        evaluation=evaluation_table(folder / "evaluation.json", "make eval-images"),
    )
    (folder / "README.md").write_text(card)


def _shape(config: dict[str, Any]) -> str:
    return (
        f"{config['num_hidden_layers']} layers, {config['hidden_size']} wide, "
        f"{config['num_attention_heads']} heads"
    )


def _plot(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Loss above, the held-out figures below, both over steps."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 6), sharex=True)
    losses = [entry for entry in history if "loss" in entry]
    top.plot([e["step"] for e in losses], [e["loss"] for e in losses], linewidth=0.8)
    top.set(yscale="log", ylabel="contrastive loss", title=f"{title}: training")
    for key in ("colour", "shape", "position", "relation", "count", "search"):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            bottom.plot(*zip(*points, strict=True), marker=".", label=key)
    bottom.set(xlabel="steps of 256 pictures", ylabel="share right", ylim=(0, 1.02))
    if bottom.lines:
        bottom.legend(loc="lower right")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
