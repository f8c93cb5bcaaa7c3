"""The command line: which commands there are, and how an error leaves them.

Results go to standard output, progress and messages to standard error. Each command reads its options, calls a function
of the package, and prints what it returns; whatever is heavy is imported inside a command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hfpipe.cli import data, recipes, runs, tools
from hfpipe.cli.evaluate import evaluate
from hfpipe.cli.examples import examples
from hfpipe.cli.finetune import finetune
from hfpipe.cli.output import print_json
from hfpipe.cli.predict import glue_zip, predict
from hfpipe.cli.usage import explain
from hfpipe.errors import HfpipeError, StoppedByUser
from hfpipe.system.text import one_line

app = typer.Typer(
    name="hfpipe",
    help="Fine-tune Hugging Face checkpoints, and trust the number that comes out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. Can be given anywhere.")] = False,
) -> None:
    """Options of every command."""
    if version:
        from importlib.metadata import version as installed

        print(f"hfpipe {installed('hfpipe')}")
        raise typer.Exit


_COMMANDS: dict[str, Callable[..., None]] = {
    "finetune": finetune,
    "evaluate": evaluate,
    "predict": predict,
    "glue-zip": glue_zip,
    "compare": tools.compare,
    "data": data.show,
    "preprocess": data.preprocess,
    "peek": data.peek,
    "push": tools.push,
    "doctor": tools.doctor,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, epilog=examples(_name))(_command)
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")

# A wrong option or a missing argument. Some releases of typer bring their own copy of click, where this class is.
_USAGE_ERRORS: tuple[Any, ...] = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Run a command; print an error as one paragraph, and leave with its exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(args=arguments, prog_name="hfpipe", standalone_mode=False)
        if code == StoppedByUser.exit_code:  # typer's own answer to Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        _leave(StoppedByUser("stopped by the user"), arguments, debug)
    except HfpipeError as error:
        _leave(error, arguments, debug)
    except OSError as error:
        from hfpipe.system.machine import as_machine_error

        _leave(as_machine_error(error), arguments, debug)
    except Exception as error:  # noqa: BLE001 - the last resort: a fault of hfpipe itself, printed without a traceback
        if isinstance(error, _USAGE_ERRORS):
            explain(error, arguments)
            error.show()  # with the usage above it
            if "--json" in arguments:
                print_json({"error": error.format_message(), "exit_code": error.exit_code})
            sys.exit(error.exit_code)
        fault = HfpipeError(
            f"{type(error).__name__}: {one_line(error, 400)}",
            where="unexpected",
            fix="This is a fault in hfpipe; --debug shows where, and the run's log.txt has it too.",
        )
        _leave(fault, arguments, debug, error)


def _leave(error: HfpipeError, arguments: list[str], debug: bool, cause: BaseException | None = None) -> None:
    if debug:
        import traceback

        traceback.print_exception(cause or error)
    print(error, file=sys.stderr)
    if "--json" in arguments:
        print_json({"error": str(error), "exit_code": error.exit_code})
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
