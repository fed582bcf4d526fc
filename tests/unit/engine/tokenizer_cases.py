"""What the tokenizer's tests share: model folders of the two kinds of vocabulary there are."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as BackendTokenizer
from tokenizers.processors import TemplateProcessing

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
CONTROL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEXTS = [
    "Once upon a time there was a little girl named Lily. She loved to play in the park.",
    "Wie schön, daß die Füße überall hinkommen! Où êtes-vous? ¿Qué pasó mañana?",
    "日本語のテキスト。中文文本。Русский текст. 😀👩‍👩‍👧 x=1; y = 22; print('a\tb')\n\n",
]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('unknown role ' + m['role']) }}{% endif %}"
    "{{ '<|' + m['role'] + '|>' + (m['content'] | trim) + '<|end|>' }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_level() -> BackendTokenizer:
    """Byte-level BPE as GPT-2 and LLaMA 3 have it: no unknown token, no space added in front."""
    backend = BackendTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[BOS, EOS, *CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    backend.add_tokens([AddedToken("two words"), AddedToken("→日")])  # added, but not special
    _begin_with_bos(backend)
    return backend


def byte_fallback() -> BackendTokenizer:
    """SentencePiece-style BPE as LLaMA 2 has it: "▁" for space, bytes for unknown characters."""
    backend = BackendTokenizer(models.BPE(unk_token=UNK, byte_fallback=True, fuse_unk=True))
    prepend_and_replace = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(prepend_and_replace)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[UNK, BOS, EOS, *CONTROL, *byte_tokens],
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS[:1] * 3, trainer)
    serialised = json.loads(backend.to_str())
    serialised["added_tokens"] = serialised["added_tokens"][:7]  # byte tokens are no added tokens
    backend = BackendTokenizer.from_str(json.dumps(serialised))
    _begin_with_bos(backend)
    return backend


def save(backend: BackendTokenizer, folder: Path, config: dict[str, object] | None = None) -> Path:
    """Write a model folder's tokenizer files, as transformers does."""
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": {"__type": "AddedToken", "content": EOS, "special": True},
        "clean_up_tokenization_spaces": False,
        **(config or {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _begin_with_bos(backend: BackendTokenizer) -> None:
    backend.post_processor = TemplateProcessing(
        single=[BOS, "$A"], special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
