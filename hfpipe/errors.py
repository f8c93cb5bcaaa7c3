"""The errors hfpipe raises on purpose; each knows the exit code of the command line.

HfpipeError
├── RecipeError        2   the recipe, an override or the usage is wrong
├── DataError          3   the data cannot give a correct result
├── ModelError         4   the checkpoint or the tokenizer cannot
├── MachineError       5   disk, permission, memory, network
├── NumericError       6   a number that must be finite is not, or training diverged
├── RefusedError       7   refused for security
├── InterruptedRun    75   stopped early and resumable
└── StoppedByUser    130   Ctrl-C
"""

from __future__ import annotations


class HfpipeError(Exception):
    """A mistake or a fault that a user can act on, printed as one paragraph.

    Args:
        what: what was found, with the value that was got.
        where: file:line:column, data set and row, or option; empty when there is no better place than the message.
        allowed: what would have been accepted.
        fix: what to do about it, a full sentence.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", allowed: str = "", fix: str = "") -> None:
        self.what, self.where, self.allowed, self.fix = what, where, allowed, fix
        super().__init__(what)

    def __str__(self) -> str:
        """The whole paragraph: where, what was got, what is allowed, what to do."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.allowed:
            text = f"{text.rstrip('.')}; allowed: {self.allowed}"
        if self.fix:
            text = f"{text}\n{self.fix}" if "\n" in text else f"{text.rstrip('.')}. {self.fix}"
        return text


class RecipeError(HfpipeError):
    """The recipe, an override or the usage is wrong."""

    exit_code = 2


class DataError(HfpipeError):
    """The data cannot give a correct result."""

    exit_code = 3


class ModelError(HfpipeError):
    """The checkpoint or its tokenizer cannot give a correct result."""

    exit_code = 4


class MachineError(HfpipeError):
    """The machine is in the way: disk, permission, memory or network."""

    exit_code = 5


class NumericError(HfpipeError):
    """A number that must be finite is not."""

    exit_code = 6


class RefusedError(HfpipeError):
    """Refused for security."""

    exit_code = 7


class InterruptedRun(HfpipeError):
    """The run stopped early and can be resumed."""

    exit_code = 75


class StoppedByUser(HfpipeError):
    """The user stopped the command."""

    exit_code = 130
