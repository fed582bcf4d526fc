"""The trainer: exported folders load elsewhere, runs resume, figures count what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from training import train
from training.architectures import MODEL_NAMES, build_model
from training.prompt import END
from training.questions import QuestionType, held_out_cases
from training.tokenizer import train_tokenizer
from training.train import RECIPES, Recipe, Trainer
from training.upcycling import upcycle
from training.validate import exact_match, render_case


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(num_samples=200)


@pytest.fixture
def home(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for runs and models."""
    monkeypatch.setattr(train, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(train, "MODELS", tmp_path / "models")
    (tmp_path / "runs").mkdir()
    tokenizer.save(str(tmp_path / "runs" / "tokenizer.json"))
    return tmp_path


def small_recipe(name: str, tokens: int) -> Recipe:
    return Recipe(model=name, tokens=tokens, tokens_per_step=1024, checkpoint_every=2)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_exported_folder_loads_elsewhere_with_the_same_loss(name: str, home: Path) -> None:
    trainer = Trainer(small_recipe(name, 1000), compile_model=False)
    trainer.export()
    loaded = AutoModelForCausalLM.from_pretrained(home / "models" / f"orrery-{name}")
    ours = trainer.model
    for parameter in ours.parameters():  # not the angles of the positions: none is stored
        parameter.data = parameter.data.bfloat16().float()
    token_ids = torch.randint(7, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    losses = []
    with torch.no_grad():
        for model in (ours, loaded.float()):
            logits = model(input_ids=token_ids).logits[:, :-1]
            losses.append(F.cross_entropy(logits.flatten(0, 1), token_ids[:, 1:].flatten()))
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-5)


def test_mixture_begins_with_the_weights_of_the_dense_model(home: Path) -> None:
    dense = Trainer(small_recipe("llama", 1000), compile_model=False)
    dense.export()
    recipe = replace(RECIPES["moe"], tokens=1000, tokens_per_step=1024)
    sparse = Trainer(recipe, compile_model=False)
    assert sparse.progress.stage == "full"
    trained = LlamaForCausalLM.from_pretrained(home / "models/orrery-llama", dtype=torch.float32)
    assert torch.equal(sparse.model.model.embed_tokens.weight, trained.model.embed_tokens.weight)
    mlp, experts = trained.model.layers[0].mlp, sparse.model.model.layers[0].mlp.experts
    neurons = {tuple(row) for row in mlp.gate_proj.weight.tolist()}
    for expert in experts.gate_up_proj:  # [2 * width, hidden]
        drawn = {tuple(row) for row in expert[: len(expert) // 2].tolist()}
        assert drawn < neurons
        assert len(drawn) == len(neurons) // 2


def test_two_of_the_experts_come_to_the_dense_layer_on_average() -> None:
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    torch.manual_seed(0)
    dense, sparse = build_model("llama", 300, ids), build_model("moe", 300, ids)
    x = torch.randn(64, dense.config.hidden_size)
    sums = []
    with torch.no_grad():
        expected = dense.model.layers[0].mlp(x)
        for seed in range(20):
            upcycle(dense, sparse, seed)
            experts = sparse.model.layers[0].mlp.experts
            gate_up = torch.einsum("th,ewh->etw", x, experts.gate_up_proj)
            gate, up = gate_up.chunk(2, dim=-1)
            outputs = torch.einsum("etw,ehw->eth", F.silu(gate) * up, experts.down_proj)
            sums.append(outputs.mean(0))  # two experts of half the weight each
    average = torch.stack(sums).mean(0)
    assert F.cosine_similarity(average, expected).min() > 0.95


def test_balancing_loss_reaches_the_gates(home: Path) -> None:
    Trainer(small_recipe("llama", 1000), compile_model=False).export()
    plain = replace(RECIPES["moe"], tokens=1000, tokens_per_step=1024)
    losses = []
    for recipe in (replace(plain, balance_weight=0.0, z_loss_weight=0.0), plain):
        trainer = Trainer(recipe, compile_model=False)
        _, _, batch = next(trainer._batches())
        losses.append(trainer._step(batch))
    assert losses[1] > losses[0] + 0.009  # an even load's balancing loss is 1, weighted 0.01


def test_interrupted_run_continues_to_the_weights_of_a_whole_run(home: Path) -> None:
    whole = Trainer(small_recipe("llama", 6000), compile_model=False)
    stream = whole._batches()
    losses = [whole._step(next(stream)[2]) for _ in range(2)]
    del stream
    whole.progress.step = 2
    whole.progress.next_batch = 2
    whole.save_checkpoint()
    onward = Trainer(small_recipe("llama", 6000), compile_model=False)
    assert (onward.progress.step, onward.progress.next_batch) == (2, 2)
    following = [next(trainer._batches())[2] for trainer in (whole, onward)]
    assert (following[0].token_ids == following[1].token_ids).all()
    expected, actual = (t._step(b) for t, b in zip((whole, onward), following, strict=True))
    assert expected == pytest.approx(actual, rel=1e-4)
    assert losses[0] > 0


class _Oracle(torch.nn.Module):
    """A model that always predicts the tokens it was given, or one wrong token."""

    def __init__(self, vocab_size: int, wrong: bool) -> None:
        super().__init__()
        self.lm_head = torch.nn.Identity()
        self.base_model = self
        self._vocab_size = vocab_size
        self._wrong = wrong

    def forward(self, input_ids: torch.Tensor, use_cache: bool):
        following = input_ids.roll(-1, dims=1) + int(self._wrong)
        logits = F.one_hot(following, self._vocab_size + 1).float()
        return type("Output", (), {"last_hidden_state": logits})


@pytest.mark.parametrize("wrong", [False, True])
def test_exact_match_counts_replies_predicted_token_by_token(
    tokenizer: Tokenizer, wrong: bool
) -> None:
    cases = held_out_cases(QuestionType.ANSWERED, 30)
    oracle = _Oracle(tokenizer.get_vocab_size(), wrong)
    assert exact_match(oracle, tokenizer, cases) == (0.0 if wrong else 1.0)


def test_rendered_case_ends_where_the_assistant_speaks() -> None:
    case = held_out_cases(QuestionType.FACT_ABSENT, 1)[0]
    prompt, reply = render_case(case)
    assert prompt.endswith("<|assistant|>")
    assert reply == f"The documents do not say.{END}"


def test_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="bert"):
        build_model("bert", 300, {})
