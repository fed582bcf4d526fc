"""The manifest of a snapshot: which log and position it is of, and a checksum of every file.

    {"manifest": {...}, "sha256": "..."}

The checksum is of the manifest's own bytes, exactly as they stand in the file, so a cut or a
flipped bit anywhere in a snapshot is found before any of it is used.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.retrieval.log.position import Position
from services.retrieval.types import CollectionConfig

__all__ = ["FILE_NAME", "CollectionRecord", "Manifest", "SnapshotInvalid", "file_sha256"]

FILE_NAME = "manifest.json"
_FORM = re.compile(rb'\{"manifest":(.*),"sha256":"([0-9a-f]{64})"\}\n', re.DOTALL)
_BLOCK = 1 << 20


class SnapshotInvalid(Exception):
    """A snapshot is torn, corrupt, or of a format that this version does not know; says which."""


class CollectionRecord(BaseModel):
    """One collection of a snapshot; its index is in `<id>.safetensors`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{32}$")  # becomes a file's name
    name: str
    title: str
    config: CollectionConfig
    metadata: dict[str, str]
    created_at_ms: int
    last_write_at_ms: int
    num_documents: int
    num_chunks: int
    num_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.id}.safetensors"


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=1, ge=1, le=1)
    log_id: str
    position: str
    collections: tuple[CollectionRecord, ...]

    def to_bytes(self) -> bytes:
        content = self.model_dump_json().encode()
        checksum = hashlib.sha256(content).hexdigest().encode()
        return b'{"manifest":' + content + b',"sha256":"' + checksum + b'"}\n'

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in a snapshot's folder. Raises `SnapshotInvalid`."""
        try:
            data = (folder / FILE_NAME).read_bytes()
        except OSError as error:
            raise SnapshotInvalid(f"{FILE_NAME}: {error.strerror}") from error
        match = _FORM.fullmatch(data)
        if match is None or hashlib.sha256(match[1]).hexdigest().encode() != match[2]:
            raise SnapshotInvalid(f"{FILE_NAME}: torn or corrupt")
        try:
            manifest = cls.model_validate_json(match[1])
            position = Position.parse(manifest.position)
        except (ValidationError, ValueError) as error:
            raise SnapshotInvalid(f"{FILE_NAME}: of another format") from error
        if str(position) != folder.name:
            raise SnapshotInvalid(f"{FILE_NAME}: of position {position}")
        return manifest

    def check_files(self, folder: Path) -> None:
        """Raises `SnapshotInvalid` where a file is missing or is not the one that was written."""
        for record in self.collections:
            try:
                checksum = file_sha256(folder / record.file_name)
            except OSError as error:
                raise SnapshotInvalid(f"{record.file_name}: {error.strerror}") from error
            if checksum != record.sha256:
                raise SnapshotInvalid(f"{record.file_name}: torn or corrupt")


def file_sha256(path: Path) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum.update(block)
    return checksum.hexdigest()
