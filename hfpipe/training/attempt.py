"""How far a process came with a run."""

from __future__ import annotations

from dataclasses import dataclass

from hfpipe.errors import HfpipeError, MachineError
from hfpipe.runs.store import Run
from hfpipe.system.stops import stopped


@dataclass
class Attempt:
    """How far this process came, for the message when it is stopped."""

    run: Run | None = None
    resumed: bool = False
    trains: bool = False

    def stopped(self, asked: int) -> HfpipeError:
        """The error of a stop in the middle of something."""
        if not self.trains:
            what = "the run is as it was" if self.resumed else "nothing was trained, and there is nothing to resume"
            return stopped(asked, f"while preparing, {what}", "Start the same command again.")
        assert self.run is not None
        return stopped(
            asked,
            "at once",
            f"`hfpipe finetune --resume {self.run.path}` goes on from its newest whole checkpoint.",
        )


def memory_ran_out(error: MachineError) -> bool:
    """Whether it is the memory of the device or of the machine that a fault is about."""
    return error.what.startswith("out of memory")
