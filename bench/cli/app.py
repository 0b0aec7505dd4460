"""The command `bench`: its commands, and how it ends. Heavy imports happen inside the commands."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bench import __version__
from bench.cli import console, inspect, predict, report, run
from bench.core.errors import InputError
from bench.system.debugging import debugging
from bench.system.import_path import leave_out_current_folder

UNUSABLE = 2  # exit status: input or machine must be mended first
INTERRUPTED = 130  # exit status


class _Commands(TyperGroup):
    """The commands; one that is interrupted says so."""

    def invoke(self, ctx: Any) -> Any:  # click's, which some versions of typer have inside them
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.complain(f"bench: interrupted{_goes_on() if ctx.invoked_subcommand == 'run' else ''}")
            raise typer.Exit(INTERRUPTED) from None


def _goes_on() -> str:
    """Say which command goes on with a run: this one, but for what would begin it anew."""
    from bench.system.command_line import as_typed
    from bench.tracking import store_uri

    words = [word for word in sys.argv[1:] if word != "--fresh"]
    return f"; `{store_uri.shown(as_typed(['bench', *words]))}` goes on from here"


app = typer.Typer(
    cls=_Commands,
    name="bench",
    help="How should I use these pretrained weights on my data? Measured under one protocol.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(short_help="run a study, or find out what is best for a folder")(run.run)
app.command(short_help="write the report of a study once more")(report.report)
app.command(short_help="register what is recommended in MLflow")(report.register)
app.command(short_help="say what a trained model sees in images")(predict.predict)
app.command(short_help="write a trained model to files that others load")(predict.export)
app.command(short_help="open the MLflow UI on all runs")(inspect.ui)
app.command("list", short_help="list studies, strategies, data sets, ...")(inspect.list_)
app.command(short_help="show a study, train each strategy one step")(inspect.check)
app.command(short_help="draw what augmentation does")(inspect.preview)
app.command(short_help="show or clear what is kept to be faster")(inspect.cache)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="show the version")] = False) -> None:
    if version:
        console.say(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line and leave with its exit status."""
    console.open_streams()
    console.speak(console.Voice.full)
    leave_out_current_folder()
    # Threads that wait for work must sleep: spinning ones cost a twentieth less on an idle machine, but make
    # training ten times slower beside any other busy process. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.log_to_stderr()
    try:
        try:
            app()
        finally:
            console.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        sys.exit(1)
    except (InputError, OSError) as error:
        console.complain(f"bench: {_in_words(error)}", error if debugging() else None)
        sys.exit(UNUSABLE)


def _in_words(error: InputError | OSError) -> str:
    """Return an error as one line; a folder that can't be written, or a disk that is full, names itself."""
    if isinstance(error, InputError):
        return str(error)
    where = f": {error.filename}" if error.filename else ""  # a write that fails names no file
    return f"{error.strerror or error}{where}"
