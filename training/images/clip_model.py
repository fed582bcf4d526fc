"""`orrery-clip`: the configuration, the losses, and the Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, normalize
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from training.images.clip_data import SLOT_SIZES, UNSAID
from training.images.clip_tokenizer import MAX_TOKENS
from training.images.scenes import PICTURE_SIZE

WIDTH = 128
HEADS = 4
VISION_LAYERS = 4
TEXT_LAYERS = 2
PATCH = 8
PROJECTION = 128
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
_READER_SCALE = 10.0  # vectors are of length 1
MAX_LOGIT_SCALE = 4.6052  # e to this is 100, as in the CLIP paper


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A small CLIP of random weights for 64x64 pictures."""
    common = {
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 3 * WIDTH,
        "projection_dim": PROJECTION,
        "hidden_act": "gelu",
    }
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        num_hidden_layers=TEXT_LAYERS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **common,
    )
    vision = CLIPVisionConfig(
        image_size=PICTURE_SIZE, patch_size=PATCH, num_hidden_layers=VISION_LAYERS, **common
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=PROJECTION
    )
    return CLIPModel(config)


def image_processor() -> CLIPImageProcessorPil:
    """What a picture goes through before the model: 64x64, values from -1 to 1."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": PICTURE_SIZE},
        crop_size={"height": PICTURE_SIZE, "width": PICTURE_SIZE},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def to_pixel_values(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 64, 64, 3] to float32 [N, 3, 64, 64], as the image processor does it."""
    return (pictures.permute(0, 3, 1, 2).float() / 255 - MEAN[0]) / STD[0]


def image_vectors(model: CLIPModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Unit vectors [N, PROJECTION] of pictures."""
    pooled = model.vision_model(pixel_values=pixel_values).pooler_output
    return normalize(model.visual_projection(pooled).float(), dim=-1)


def text_vectors(model: CLIPModel, token_ids: torch.Tensor) -> torch.Tensor:
    """Unit vectors [N, PROJECTION] of texts; padding on the right is hidden by causality."""
    pooled = model.text_model(input_ids=token_ids).pooler_output
    return normalize(model.text_projection(pooled).float(), dim=-1)


def contrastive_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """CLIP's loss where a caption may be true of several pictures of the batch.

    Caption i is of picture i % N. Whatever else is true is neither right nor wrong: it is left
    out of the denominators. Shapes: logits float [T, N], truth bool [T, N], T a multiple of N.
    """
    num_captions, num_pictures = logits.shape
    row = torch.arange(num_captions)
    own = logits[row, row % num_pictures]  # [T]
    wrong = logits.masked_fill(truth, float("-inf"))
    against_pictures = torch.logaddexp(own, wrong.logsumexp(dim=1)) - own
    against_captions = torch.logaddexp(own, wrong.logsumexp(dim=0)[row % num_pictures]) - own
    return (against_pictures.mean() + against_captions.mean()) / 2


class FactReader(torch.nn.Module):
    """Reads the facts off a vector, the same way for pictures and texts; for training alone.

    The contrastive loss by itself is at a standstill where neither side tells the order of two
    objects: each has to before it pays for the other. Reading the facts pays for each alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(PROJECTION, sum(SLOT_SIZES))

    def loss(self, vectors: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over slots; `vectors` [N, PROJECTION], `facts` int64 [N, slots]."""
        logits = self.head(_READER_SCALE * vectors).float().split(SLOT_SIZES, dim=1)
        losses = [
            cross_entropy(part, wanted, ignore_index=UNSAID, reduction="sum")
            / (wanted != UNSAID).sum().clamp(min=1)
            for part, wanted in zip(logits, facts.unbind(1), strict=True)
        ]
        return torch.stack(losses).mean()


def save_clip(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the Hugging Face folder: weights (float32), tokenizer, image processor."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # the writer makes it private
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
