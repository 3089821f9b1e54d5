"""The commands and their options; what they do is in the modules beside this one.

Only typer and rich are imported here: `ftkit --help` must not wait for torch.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ftkit import __version__
from ftkit.cli import course
from ftkit.errors import FtkitError, SettingsError
from ftkit.profiles import settings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="ftkit",
    help="See what fine-tuning really does, token by token, and change one thing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--notebooks",
        help="Notebooks named like 02_sft.ipynb, instead of the course's.",
        exists=True,
        file_okay=False,
    ),
]


def main() -> None:
    """Run the command line; errors of ours and of the file system end it with one clear line."""
    try:
        app()
    except (FtkitError, OSError) as error:
        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED) from None


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ftkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """See what fine-tuning really does, token by token, and change one thing."""


@app.command()
def tour(
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="A notebook by number or topic, e.g. 02 or sft. Repeat it for more. "
            f"Default: {', '.join(course.DEFAULT_STAGES)}."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every notebook.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(help="cpu, gpu or smoke. Default: FTKIT_PROFILE, else cpu."),
    ] = None,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Where the executed notebooks and pages go.")
    ] = Path("tour"),
    notebooks: Folder = None,
) -> None:
    """Run the notebooks and leave executed copies and one page with the pictures."""
    if everything and stage:
        raise SettingsError("--all and --stage exclude each other; leave one out")
    known = course.stages(notebooks or course.home())
    wanted = course.choose(known, stage) if stage else course.default(known)
    chosen = known if everything else wanted
    name = settings(profile).profile

    from ftkit.cli.guide import lead

    raise typer.Exit(lead(chosen, out, name, Console()))


@app.command()
def lab(
    port: Annotated[int, typer.Option(help="JupyterLab takes the next free one if taken.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    notebooks: Folder = None,
) -> None:
    """Open JupyterLab on the notebooks (in an installed wheel: on a copy you can edit)."""
    from ftkit.cli.lab import open_lab, workspace

    folder = notebooks or workspace(course.home(), Path.cwd())
    typer.echo(f"JupyterLab on {folder}")
    raise typer.Exit(open_lab(folder, port, browser))


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="A name ftkit knows, a hub id or a folder.")
    ] = "smollm2-135m",
) -> None:
    """Fetch the model ahead, so that the notebooks start without the network.

    The course's data sets came with the installation.
    """
    from ftkit.models import fetch

    with Console(stderr=True).status(f"fetching {model}"):
        path = fetch(model)
    typer.echo(path)


@app.command()
def doctor(
    tokenizer: Annotated[
        str | None, typer.Argument(help="A folder, a name ftkit knows, or a hub id.")
    ] = None,
    data: Annotated[
        Path | None, typer.Argument(help="Rows as .jsonl, .json, .parquet or .csv.")
    ] = None,
    mask: Annotated[
        str, typer.Option(help="full, completion, assistant or last_assistant.")
    ] = "assistant",
    max_length: Annotated[
        int, typer.Option(min=0, help="Where rows would be cut, in tokens; 0 for nowhere.")
    ] = 1024,
    response_template: Annotated[
        str | None, typer.Option(help="Text that opens the answer, as old tutorials give it.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Jinja file to use instead.")
    ] = None,
    script: Annotated[
        list[Path] | None,
        typer.Option(help="A training script or notebook to hold against the installed TRL."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows that are read at most.")] = 10_000,
    form: Annotated[str, typer.Option("--format", help="text, json or html.")] = "text",
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write .html, .json or .txt instead.")
    ] = None,
    save_template: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Where the patched template goes.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="CODE", help="Explain a code, or all, and end.")
    ] = None,
) -> None:
    """Find what would fail silently in a tokenizer, a data set or a script.

    Exit status: 0 nothing grave, 4 errors, 3 warnings with --strict, 1 could not run, 2 wrong use.
    """
    from ftkit.cli import doctor as office

    if explain is not None:
        typer.echo(office.explain_text(explain))
        return
    if form not in office.FORMATS:
        raise SettingsError(f"--format {form!r} is unknown; use {', '.join(office.FORMATS)}")
    report = office.diagnose(
        tokenizer,
        data,
        mask=mask,
        response_template=response_template,
        chat_template=chat_template,
        max_length=max_length,
        scripts=script or (),
        rows=rows,
    )
    office.write(report, form, out, Console())
    if save_template is not None:
        office.save_template(report, save_template)
    raise typer.Exit(report.exit_code(strict=strict))
