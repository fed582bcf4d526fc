"""`orrery-clip`: its tokenizer, batches, loss, training and folder, and how it is judged."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from training.images import clip_card, eval_images
from training.images.captions import caption, few_facts, some_facts, vague_caption, words
from training.images.clip_data import (
    CAPTION_TOKENS,
    SLOT_SIZES,
    UNSAID,
    batches,
    draw_batch,
    slots,
    truth_matrix,
)
from training.images.clip_model import (
    FactReader,
    build_clip,
    contrastive_loss,
    image_processor,
    image_vectors,
    save_clip,
    to_pixel_values,
)
from training.images.clip_tokenizer import BOS, EOS, MAX_TOKENS, build_tokenizer
from training.images.clip_training import Recipe, Trainer
from training.images.drawing import COLOUR_VALUES, draw_many
from training.images.eval_clip import FolderEncoder, Vectors, colour_prompts, evaluate
from training.images.scenes import (
    COLOURS,
    KINDS,
    Facts,
    ObjectFacts,
    alter,
    describes,
    draw_scene,
    facts_of,
    held_out_scenes,
)
from training.shares import Share

TINY = Recipe(steps=4, pictures_per_step=8, warmup_steps=1, validate_every=100, checkpoint_every=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights, as training would write it."""
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(1)
    save_clip(build_clip(build_tokenizer()), build_tokenizer(), path)
    return path


def test_every_word_of_the_grammar_is_one_token() -> None:
    tokenizer = build_tokenizer()
    rng = random.Random(1)
    for word in words():
        assert tokenizer.tokenize(word) == [f"{word}</w>"]
    for _ in range(200):
        scene = draw_scene(rng, held_out=False)
        for text in (caption(scene, rng, full=True), vague_caption(scene, rng)):
            ids = tokenizer(text)["input_ids"]
            assert len(ids) <= CAPTION_TOKENS <= MAX_TOKENS
            assert len(ids) == 2 + len(text.replace(",", " ,").split())
            assert ids[0] == tokenizer.convert_tokens_to_ids(BOS)
            assert ids[-1] == tokenizer.convert_tokens_to_ids(EOS)


@pytest.mark.parametrize("text", ["zebra", "Größe 42!", "日本 🐢", "a\x00b", "crossroads, starry"])
def test_any_text_can_be_encoded_and_read_back(text: str) -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    kept = tokenizer.decode(ids).replace(" ", "")
    assert kept == text.lower().replace(" ", "")


def test_saved_tokenizer_is_the_same(folder: Path) -> None:
    text = "a red circle left of a blue square"
    loaded = AutoTokenizer.from_pretrained(folder)
    assert type(loaded).__name__.startswith("CLIPTokenizer")
    assert loaded.model_max_length == MAX_TOKENS
    assert loaded(text)["input_ids"] == build_tokenizer()(text)["input_ids"]


def test_truth_matrix_equals_describes_one_by_one() -> None:
    rng = random.Random(2)
    scenes = [draw_scene(rng, held_out=False) for _ in range(20)]
    scenes += [alter(scene, rng) for scene in scenes]
    said = [facts(scene, rng) for scene in scenes for facts in (some_facts, few_facts)]
    expected = [[describes(facts, scene) for scene in scenes] for facts in said]
    assert (truth_matrix(said, scenes) == np.array(expected)).all()


def test_batches_repeat_by_number_and_pair_each_caption_with_its_picture() -> None:
    tokenizer = build_tokenizer()
    second = list(islice(batches(tokenizer, 8, seed=3), 2))[1]
    again = next(batches(tokenizer, 8, seed=3, first=1))
    assert (second.pictures == again.pictures).all()
    assert (second.token_ids == again.token_ids).all()
    assert second.pictures.shape == (8, 64, 64, 3)
    assert second.token_ids.shape == (16, CAPTION_TOKENS)
    assert all(second.truth[index, index % 8] for index in range(16))


def test_loss_leaves_other_true_pictures_out_of_account() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    truth = torch.eye(2, dtype=torch.bool).repeat(2, 1)
    rows = torch.tensor([0, 1, 0, 1])
    by_caption = torch.nn.functional.cross_entropy(logits, rows)
    by_picture = torch.stack(
        [
            torch.nn.functional.cross_entropy(
                torch.cat([logits[index : index + 1, own], logits[~truth[:, own], own]])[None],
                torch.tensor([0]),
            )
            for index, own in enumerate(rows.tolist())
        ]
    ).mean()
    torch.testing.assert_close(contrastive_loss(logits, truth), (by_caption + by_picture) / 2)
    truth[0, 1] = True  # whatever the score of another picture that the caption is true of
    first = contrastive_loss(logits, truth)
    logits[0, 1] += 5
    torch.testing.assert_close(contrastive_loss(logits, truth), first)


def test_slots_are_equal_where_facts_are_and_unsaid_where_nothing_is() -> None:
    rng = random.Random(4)
    scenes = [draw_scene(rng, held_out=False) for _ in range(60)]
    rows = slots([facts_of(scene) for scene in scenes])
    assert rows.shape == (60, len(SLOT_SIZES))
    assert (rows < np.array(SLOT_SIZES)).all()
    for one, first in zip(rows, scenes, strict=True):
        for other, second in zip(rows, scenes, strict=True):
            assert (one == other).all() == (facts_of(first) == facts_of(second))
    vague = slots([Facts((ObjectFacts(colour="red"),))])[0]
    assert (vague != UNSAID).sum() == 3  # that it is a single object, one in number, and red


def test_a_caption_that_leaves_the_order_open_is_not_asked_for_it() -> None:
    batch = draw_batch(build_tokenizer(), 128, random.Random(5))
    kind, relation, colours = batch.said[:, 0], batch.said[:, 9], batch.said[:, [2, 5]]
    is_open = (kind == KINDS.index("pair")) & (relation == UNSAID)
    assert is_open.any()
    assert (colours[is_open] == UNSAID).all()
    shown = np.tile(batch.shown, (2, 1))
    told = batch.said != UNSAID
    assert (batch.said[told] == shown[told]).all()


def test_reader_pays_for_what_is_said_alone() -> None:
    torch.manual_seed(2)
    reader, vectors = FactReader(), torch.nn.functional.normalize(torch.randn(3, 128), dim=-1)
    said = torch.full((3, len(SLOT_SIZES)), UNSAID)
    assert reader.loss(vectors, said) == 0
    said[1, 2] = 4  # the second text says a colour
    expected = torch.nn.functional.cross_entropy(
        reader.head(10 * vectors[1:2])[:, 7 : 7 + len(COLOURS)], torch.tensor([4])
    )
    torch.testing.assert_close(reader.loss(vectors, said), expected / len(SLOT_SIZES))


def test_training_prepares_pictures_as_the_processor_does() -> None:
    pictures = draw_many(held_out_scenes(None, 3, seed=1))
    images = [Image.fromarray(picture) for picture in pictures]
    processed = image_processor()(images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(to_pixel_values(torch.from_numpy(pictures)), processed)


def test_training_resumed_equals_training_at_once(tmp_path: Path) -> None:
    whole = Trainer(TINY, tmp_path / "whole", compile_model=False)
    losses = [whole._step(batch) for batch in islice(batches(whole.tokenizer, 8, TINY.seed), 4)]
    assert len(losses) == 4
    halted = Trainer(TINY, tmp_path / "halves", compile_model=False)
    for batch in islice(batches(halted.tokenizer, 8, TINY.seed), 2):
        halted._step(batch)
    halted.progress.step = 2
    halted.save_checkpoint()
    resumed = Trainer(TINY, tmp_path / "halves", compile_model=False)
    assert resumed.progress.step == 2
    for key, value in halted.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[key], value)


def test_training_lowers_the_loss_on_a_batch(tmp_path: Path) -> None:
    trainer = Trainer(TINY, tmp_path, compile_model=False)
    batch = draw_batch(trainer.tokenizer, 8, random.Random(1))
    losses = [trainer._step(batch) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_folder_loads_in_transformers_and_sentence_transformers(folder: Path) -> None:
    pictures = draw_many(held_out_scenes(None, 4, seed=2))
    texts = ["a red circle", "a photo of a small blue square above an orange ring"]
    encoder = FolderEncoder(folder)
    vectors = encoder.pictures(pictures)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    sentences = SentenceTransformer(str(folder), device="cpu")
    images = [Image.fromarray(picture) for picture in pictures]
    by_pictures = sentences.encode(images, normalize_embeddings=True)
    by_texts = sentences.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(by_pictures, vectors, atol=1e-5)
    np.testing.assert_allclose(by_texts, encoder.texts(texts), atol=1e-5)


def test_the_folder_says_how_pictures_are_prepared(folder: Path) -> None:
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pictures = draw_many(held_out_scenes(None, 2, seed=3))
    images = [Image.fromarray(picture) for picture in pictures]
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        processed = processor(images, return_tensors="pt")["pixel_values"]
        prepared = to_pixel_values(torch.from_numpy(pictures))
        torch.testing.assert_close(image_vectors(model, processed), image_vectors(model, prepared))


class ColourOracle:
    """Sees the drawn colours and reads the first colour of a text; knows nothing else."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        named = [[text.find(f" {colour} ") for colour in COLOURS] for text in texts]
        return np.array([[1.0 * (place > 0) for place in row] for row in named], np.float32) + 1e-3

    def pictures(self, pictures: npt.NDArray[np.uint8]) -> Vectors:
        flat = pictures.reshape(len(pictures), -1, 3)
        shares = [(flat == COLOUR_VALUES[colour]).all(-1).mean(-1) for colour in COLOURS]
        return np.stack(shares, axis=1).astype(np.float32)


def test_figures_tell_what_an_encoder_knows_from_what_it_does_not() -> None:
    figures = evaluate(ColourOracle(), count=150)
    assert figures["colour"].value == 1
    assert figures["shape"].value < 0.4
    assert figures["position"].value < 0.4
    assert figures["relation"].value < 0.6


def test_colour_prompts_name_their_colour_and_no_other() -> None:
    for colour, prompts in colour_prompts().items():
        assert len(set(prompts)) == len(prompts) >= 5
        assert all(colour in prompt for prompt in prompts)
        assert not any(name in prompt for prompt in prompts for name in COLOURS if name != colour)


def test_figures_of_random_weights_are_those_of_chance(folder: Path) -> None:
    figures = evaluate(FolderEncoder(folder), count=24)
    assert set(figures) == {"colour", "shape", "position", "relation", "count", "search"}
    assert all(share.total == 24 for share in figures.values())
    assert figures["search"].value < 0.5
    assert figures["colour"].value < 0.7


def test_card_tells_figures_and_sizes(folder: Path) -> None:
    record = {
        "recipe": {"pictures_per_step": 256},
        "seconds": 120,
        "history": [{"step": 10, "loss": 2.0}, {"step": 20, "colour": 0.5}],
    }
    (folder / "training.json").write_text(json.dumps(record))
    eval_images.write_evaluation(folder, {"colour": Share("colour, of all", 497, 510, 0.95)})
    clip_card.write_card(folder)
    card = (folder / "README.md").read_text()
    assert all(part in card for part in ("97.5 %", "colour, of all", "128 dimensions"))
    assert (folder / "loss_curve.png").stat().st_size > 1000
