"""What the machine does to a program, as hfpipe's errors: a full disk, a missing permission, memory used up."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hfpipe.errors import HfpipeError, MachineError, StoppedByUser

_SMALLER = (
    "Halve train.batch_size and double train.accumulate: here that gives the same update. Or shorten model.max_length."
)


def as_machine_error(error: OSError) -> MachineError:
    """The fault in words, with the path and what is free there."""
    where = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            f"the disk is full{_free(where)}", where=where, fix="Free some space, or use another --runs-dir."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MachineError(f"not allowed: {error.strerror}", where=where, fix="Use a folder you may write.")
    return MachineError(
        f"{error.strerror or error}", where=where, fix="Look at the path and the disk; --debug shows where it happened."
    )


def bytes_below(place: Path) -> int:
    """Bytes of a file, or of the files below a folder; a link counts nothing, what it points to is there itself."""
    found = [str(place)] if place.is_file() else []
    found += [os.path.join(parent, name) for parent, _, names in os.walk(place) for name in names]
    total = 0
    for path in found:
        with suppress(FileNotFoundError):  # another process tidies up
            total += 0 if os.path.islink(path) else os.lstat(path).st_size
    return total


@contextmanager
def translated_errors(after_stop: str = "Every finished step is in the run's records.jsonl.") -> Iterator[None]:
    """Turn what the machine or the user does inside the block into hfpipe's errors.

    Args:
        after_stop: what is left when the user stops it, a full sentence.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedByUser("stopped by the user", fix=after_stop) from None
    except HfpipeError:
        raise
    except MemoryError as error:
        raise MachineError("out of memory", fix=_SMALLER) from error
    except OSError as error:
        if error.errno is None:
            raise
        raise as_machine_error(error) from error
    except Exception as error:
        text = str(error).lower()
        if isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text):
            raise MachineError(f"out of memory: {str(error).splitlines()[0]}", fix=_SMALLER) from error
        if "no space left on device" in text:  # safetensors and Arrow have errors of their own
            raise as_machine_error(OSError(errno.ENOSPC, str(error))) from error
        if _is_peer_lost(error):
            raise _alone(error) from error
        raise


def _is_peer_lost(error: Exception) -> bool:
    """Whether a process that this one exchanges with closed its connection; gloo has no class of its own for it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    by_gloo = "gloo/transport" in text or "caused pair closure" in text
    return "DistError" in kinds or (isinstance(error, RuntimeError) and by_gloo)


def _alone(error: Exception) -> MachineError:
    again = "started again with --resume RUN, all of them go on from the newest checkpoint."
    if "timed out" in str(error).lower() or "timeout" in str(error).lower():
        return MachineError(
            f"another process of this training does not answer ({_first_sentence(error)})",
            fix=f"See whether it hangs; {again} Where it only takes longer, HFPIPE_WAIT_MINUTES says how long it is waited for.",
        )
    return MachineError(
        f"another process of this training is gone ({_first_sentence(error)})",
        fix=f"What it printed says why; {again}",
    )


def _first_sentence(error: Exception) -> str:
    """What a library says, without the line of its source that gloo begins with."""
    return str(error).split("] ", 1)[-1].split(". ")[0].strip()


def _free(path: str) -> str:
    for folder in Path(path).resolve().parents if path else ():
        if folder.is_dir():
            return f" ({shutil.disk_usage(folder).free:,} bytes free)"
    return ""
