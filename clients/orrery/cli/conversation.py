"""The state of a chat: messages, and the commands that change them. No terminal, no network."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["HELP", "Command", "Conversation", "parse_command"]

HELP = """\
/system TEXT   set the system message (without TEXT: remove it)
/reset         forget the conversation, keep the system message
/help          show this
/exit          leave (as does Ctrl-D)
Ctrl-C         stop the answer that is being written"""

_COMMANDS = ("/system", "/reset", "/help", "/exit")


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with a slash."""

    name: str
    argument: str

    @property
    def known(self) -> bool:
        """Whether there is such a command."""
        return self.name in _COMMANDS


def parse_command(line: str) -> Command | None:
    """The command in a line, or None if the line is something to say.

    Two slashes say a text that begins with one.
    """
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, argument = line.partition(" ")
    return Command(name, argument.strip())


@dataclass(slots=True)
class Conversation:
    """Who said what. The system message, if any, comes first."""

    system: str | None = None
    _turns: list[dict[str, object]] = field(default_factory=list)

    @property
    def messages(self) -> list[dict[str, object]]:
        """The messages as the server wants them."""
        system: list[dict[str, object]] = []
        if self.system:
            system.append({"role": "system", "content": self.system})
        return [*system, *self._turns]

    def ask(self, text: str) -> None:
        """The user says something."""
        self._turns.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        """The assistant has answered, perhaps only in part.

        An answer without a word takes the question back: templates want the turns to alternate.
        """
        if text:
            self._turns.append({"role": "assistant", "content": text})
        elif self._turns:
            self._turns.pop()

    def reset(self) -> None:
        """Forgets what was said."""
        self._turns.clear()
