"""``outrider man``: the manual pages, made of the commands themselves."""

from pathlib import Path

import click

from outrider.cli.man_pages import page_of, pages
from outrider.core.errors import ConfigError, NotFound


@click.command()
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write all pages to this folder, such as ~/.local/share/man/man1.",
)
@click.pass_context
def man(context: click.Context, words: tuple[str, ...], folder: Path | None) -> None:
    """Print the manual page of COMMAND, or write all pages to a folder.

    To read one: outrider man app create | man -l -
    """
    # not as this process was called: a page is of the program
    root = click.Context(context.find_root().command, info_name="outrider", auto_envvar_prefix="OUTRIDER")
    if folder is None:
        page = page_of(root, words)
        if page is None:
            raise NotFound(f"no command {' '.join(words)!r}; `outrider --help` lists them")
        click.echo(page, nl=False)
        return
    if words:
        raise click.UsageError("--dir writes all pages: leave COMMAND out")
    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, page in pages(root):
            (folder / f"{name}.1").write_text(page, encoding="utf-8")
            count += 1
    except OSError as error:
        raise ConfigError(f"--dir {error.filename}: {error.strerror}") from error
    click.echo(f"{count} pages in {folder}")
