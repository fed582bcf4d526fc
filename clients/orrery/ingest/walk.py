"""Which files of a folder go into a collection, and which do not, and why. Reads no contents."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from orrery.errors import InvalidRequestError
from orrery.results import FileProblem

__all__ = ["FoundFile", "Walk", "walk_files"]

# The folders of version control whose names do not begin with a dot.
_VERSION_CONTROL = frozenset({"CVS", "_darcs"})


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to be sent. Its document's id is its path relative to the root, with `/`."""

    document_id: str
    path: Path


@dataclass(frozen=True, slots=True)
class Walk:
    """What was found, in the order of the walk. The path of a skipped folder ends with `/`."""

    files: tuple[FoundFile, ...]
    skipped: tuple[FileProblem, ...]

    @property
    def there(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """What is on disk: names of files, and beginnings of the names of unknown ones."""
        skipped = [problem.path for problem in self.skipped]
        files = {file.document_id for file in self.files} | set(skipped)
        return frozenset(files), tuple(name for name in skipped if name.endswith("/"))


def walk_files(path: Path, max_file_bytes: int) -> Walk:
    """The files of a folder, or the one file that `path` is.

    A folder's files come before those of its sub-folders, each by name. Hidden files and folders
    and those of version control are skipped, as are files that are too large or no ordinary files.
    Symbolic links to folders are not followed, nor are those to files outside the root; `path`
    itself may be one.

    Raises:
        InvalidRequestError: There is nothing at `path`, or it cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InvalidRequestError(
            f"path: expected a file or a folder, there is none at {path}", field="path"
        ) from None
    except (OSError, ValueError) as error:  # the second for a name with a zero byte
        raise InvalidRequestError(f"path: {_problem(error)}: {path}", field="path") from error
    walker = _Walker(path, max_file_bytes)
    if stat.S_ISDIR(mode):
        walker.walk()
    else:
        walker.take(path, path.name)
    return Walk(tuple(walker.files), tuple(walker.skipped))


class _Walker:
    def __init__(self, root: Path, max_file_bytes: int) -> None:
        self.files: list[FoundFile] = []
        self.skipped: list[FileProblem] = []
        self._root = root
        self._inside = Path(os.path.realpath(root))
        self._max_file_bytes = max_file_bytes

    def walk(self) -> None:
        folders = [self._root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if folder == self._root:
                    raise InvalidRequestError(
                        f"path: {_problem(error)}: {folder}", field="path"
                    ) from error
                self._skip(self._name(folder) + "/", "UNREADABLE", _problem(error))
                continue
            deeper = [Path(entry.path) for entry in found if self._look_at(entry)]
            folders.extend(reversed(deeper))

    def _look_at(self, entry: os.DirEntry[str]) -> bool:
        """Takes a file in, or says why not; whether it is a folder to be walked."""
        path = Path(entry.path)
        name = self._name(path)
        is_folder = _is_folder(entry)
        if is_folder:
            name += "/"
        if entry.name.startswith("."):
            self._skip(name, "HIDDEN", "hidden")
        elif is_folder and entry.name in _VERSION_CONTROL:
            self._skip(name, "HIDDEN", "belongs to version control")
        elif is_folder and entry.is_symlink():
            self._skip(name, "LINK", "a symbolic link to a folder")
        elif is_folder:
            return True
        elif entry.is_symlink() and not self._is_inside(path):
            self._skip(name, "LINK", "a symbolic link out of the folder")
        else:
            self.take(path, name)
        return False

    def take(self, path: Path, name: str) -> None:
        """Takes a file in, or says why not."""
        try:
            name.encode()
            found = path.stat()
        except UnicodeEncodeError:
            return self._skip(ascii(name)[1:-1], "BAD_NAME", "its name is not Unicode")
        except OSError as error:
            return self._skip(name, "UNREADABLE", _problem(error))
        if not stat.S_ISREG(found.st_mode):
            return self._skip(name, "NOT_A_FILE", "not an ordinary file")
        if found.st_size > self._max_file_bytes:
            limit = self._max_file_bytes
            return self._skip(name, "TOO_LARGE", f"{found.st_size} bytes; the limit is {limit}")
        self.files.append(FoundFile(name, path))
        return None

    def _is_inside(self, link: Path) -> bool:
        # Unlike `Path.resolve`, `realpath` takes links that lead in circles.
        return Path(os.path.realpath(link)).is_relative_to(self._inside)

    def _skip(self, name: str, reason: str, message: str) -> None:
        # A name that is not Unicode can be neither printed nor sent.
        shown = name.encode("utf-8", "backslashreplace").decode()
        self.skipped.append(FileProblem(shown, reason, message))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles, or to where this user may not look
        return False


def _problem(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
