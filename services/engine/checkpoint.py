"""Reads a checkpoint's tensors, each exactly once, strictly. Knows files, not models.

Every tensor that a model takes is copied once out of a memory map into its final place (fused
weights are assembled there), so the peak is the model itself. What is missing, misshapen or left
over is a `CheckpointError` that names it. Only safetensors: a pickle can run code when loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from services.engine.errors import CheckpointError

__all__ = ["Checkpoint", "TensorSource", "read_json"]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# Buffers that older transformers wrote although they follow from the config.
_DERIVED_BUFFERS = re.compile(
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
    r"|(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)"
)


class TensorSource(Protocol):
    """Where a model's constructor takes its weights from, by their name in the checkpoint."""

    def __contains__(self, name: str) -> bool: ...

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, in the model's dtype and on its device, owned by the caller."""
        ...

    def take_transposed(self, name: str, shape: tuple[int, int]) -> Tensor:
        """`take(name, shape).T`, contiguous."""
        ...

    def take_fused(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Tensor:
        """The tensors joined along their first axis."""
        ...

    def take_entry(self, name: str, index: int, shape: tuple[int, ...]) -> Tensor:
        """Entry `index` along the first axis of a tensor of that shape, the others unread."""
        ...

    def skip_tied(self, name: str, twin: Tensor) -> None:
        """Accepts `name`, where present, as a duplicate of a tensor that was already taken."""
        ...

    def skip(self, names: Iterable[str]) -> None:
        """Accepts these, where present, as tensors that the model takes from elsewhere."""
        ...


class Checkpoint:
    """The safetensors of a Hugging Face folder: one file, or shards with their index.

    A context manager: `__exit__` closes the maps. Raises `CheckpointError` when there is no such
    file, it is damaged, or the index and the shards disagree.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None, device: torch.device) -> None:
        self._files = ExitStack()
        self._slices: dict[str, Any] = {}  # name -> open file
        self._taken: set[str] = set()
        self._elsewhere: set[str] = set()  # taken by another process
        self._tied: set[str] = set()
        self._device = device
        try:
            for path, expected in _shards(folder):
                self._open(path, expected)
            self._names = sorted(n for n in self._slices if not _DERIVED_BUFFERS.fullmatch(n))
            self._dtype = dtype or self._widest_dtype()
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    @property
    def dtype(self) -> torch.dtype:
        """What tensors are converted to when taken."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where tensors are put when taken."""
        return self._device

    @property
    def num_parameters(self) -> int:
        """Of the model so far: also those of tensors in the folder that it takes from elsewhere."""
        counted = self._taken | self._elsewhere.intersection(self._slices)
        return sum(torch.Size(self._shape(name)).numel() for name in counted)

    def __contains__(self, name: str) -> bool:
        return name in self._slices

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self._copy(self._read(name, shape))

    def take_transposed(self, name: str, shape: tuple[int, int]) -> Tensor:
        return self._copy(self._read(name, shape).T)

    def take_fused(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Tensor:
        views = [self._read(name, shape) for name, shape in zip(names, shapes, strict=True)]
        rows = [len(view) for view in views]
        fused = torch.empty((sum(rows), *shapes[0][1:]), dtype=self._dtype, device=self._device)
        for part, view in zip(torch.split(fused, rows), views, strict=True):
            part.copy_(view)
        return fused

    def take_entry(self, name: str, index: int, shape: tuple[int, ...]) -> Tensor:
        self._claim(name, shape)
        return self._copy(self._load(name, index))

    def skip(self, names: Iterable[str]) -> None:
        self._elsewhere.update(names)

    def skip_tied(self, name: str, twin: Tensor) -> None:
        if name not in self:
            return
        tensor = self._read(name, tuple(twin.shape)).to(twin.device, twin.dtype)
        self._taken.discard(name)  # counts once
        self._tied.add(name)
        if not torch.equal(tensor, twin):
            raise CheckpointError(
                f"{name}: tie_word_embeddings is set, but it differs from the token embedding"
            )

    def check_all_taken(self) -> None:
        """Raises `CheckpointError` naming the tensors that the model has no place for."""
        known = self._taken | self._elsewhere | self._tied
        unused = [name for name in self._names if name not in known]
        if unused:
            more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
            raise CheckpointError(f"unused tensor: {', '.join(unused[:5])}{more}")

    def content_hash(self) -> str:
        """SHA-256 over name, dtype, shape and bytes of every tensor, in the order of names.

        The same for one file and for shards of it; another for any change of a weight.
        """
        digest = hashlib.sha256()
        for name in sorted(self._slices):
            tensor = self._load(name)
            header = f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|"
            digest.update(header.encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _open(self, path: Path, expected: set[str] | None) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, although {INDEX_FILE} lists it")
        try:
            file = self._files.enter_context(safe_open(path, framework="pt", device="cpu"))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: truncated or not safetensors ({error})") from error
        names = set(file.keys())
        if expected is not None and names != expected:
            name = min(names ^ expected)
            where = "the index but not in the file" if name in expected else "the file alone"
            raise CheckpointError(f"{name}: {INDEX_FILE} and {path.name} disagree: in {where}")
        self._slices.update(dict.fromkeys(names, file))

    def _widest_dtype(self) -> torch.dtype:
        """The dtype that keeps every bit of the checkpoint: bfloat16, or else float32."""
        dtypes = {self._stored_dtype(name) for name in self._names}
        return torch.bfloat16 if dtypes == {torch.bfloat16} else torch.float32

    def _stored_dtype(self, name: str) -> torch.dtype:
        dtype = self._slices[name].get_slice(name).get_dtype()
        if dtype not in _DTYPES:
            raise CheckpointError(f"{name}: expected {', '.join(_DTYPES)}, got {dtype}")
        return _DTYPES[dtype]

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slices[name].get_slice(name).get_shape())

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A view into the memory map, checked and marked as taken."""
        self._claim(name, shape)
        return self._load(name)

    def _claim(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self:
            raise CheckpointError(f"missing tensor: {name} {shape}")
        found = self._shape(name)
        if found != shape:
            raise CheckpointError(f"{name}: expected shape {shape}, got {found}")
        self._stored_dtype(name)
        self._taken.add(name)

    def _load(self, name: str, index: int | None = None) -> Tensor:
        """All of a tensor, or one entry of its first axis."""
        file = self._slices[name]
        try:
            tensor: Tensor = file.get_tensor(name) if index is None else file.get_slice(name)[index]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{name}: cannot be read ({error})") from error
        return tensor

    def _copy(self, view: Tensor) -> Tensor:
        owned = torch.empty(view.shape, dtype=self._dtype, device=self._device)
        return owned.copy_(view)


def _shards(folder: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """The files to open, each with the names that an index promises in it."""
    if (folder / SINGLE_FILE).is_file():
        yield folder / SINGLE_FILE, None
        return
    if not (folder / INDEX_FILE).is_file():
        pickles = [path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))]
        if pickles:
            raise CheckpointError(
                f"{folder}: only pickled weights ({pickles[0]}), which can run code when loaded; "
                "convert them to safetensors"
            )
        raise CheckpointError(f"{folder}: neither {SINGLE_FILE} nor {INDEX_FILE}")
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX_FILE}: expected a non-empty weight_map")
    for name in sorted(set(weight_map.values())):
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{folder / INDEX_FILE}: {name!r} is not a file name")
        yield folder / name, {tensor for tensor, file in weight_map.items() if file == name}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `CheckpointError` when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content
