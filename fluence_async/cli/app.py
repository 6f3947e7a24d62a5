"""The commands and their options; the one place where an error becomes a line and an exit code.

Exit codes: 0, 1 for a `FluenceError`, 2 for a mistake in the command line or the settings, 130
for Ctrl-C, 141 where the reader of stdout has gone (`| head -1`), 143 for SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from .. import FluenceError, __version__
from .asking import Settings
from .terminal import complain, draws, printable

__all__ = ["run"]

_app = typer.Typer(
    name="fluence",
    help="Talk to the Fluence Chat API.",
    epilog="The key is read from FLUENCE_API_KEY, the API's address from FLUENCE_BASE_URL. "
    "There is no option for the key: any user of this machine could read it in the list of "
    "processes, and the shell would remember it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # frames around texts are hard to search and to quote
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> NoReturn:
    """Run the command line that the process was started with; exits with its code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: `>&-`
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", closefd=False))
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the encoding lacks becomes "?"
    _app(prog_name="fluence")
    sys.exit(0)


def _run_to_end(program: Coroutine[Any, Any, None]) -> None:
    """Run `program` to its end. SIGTERM cancels it, so that it leaves the terminal as it found it.

    An exception raised by the signal's handler would not do: it can strike between any two
    instructions, and prompt_toolkit is not made for that while it draws.
    """

    async def cancellable() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))
        try:
            await program
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    try:
        asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise typer.Exit(143) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fluence {__version__}")
        raise typer.Exit


@_app.callback()
def _fluence(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say it and exit."),
    ] = False,
) -> None:
    pass


@contextmanager
def _outcome() -> Iterator[None]:
    try:
        yield
    except FluenceError as error:
        complain(error)
        raise typer.Exit(1) from None
    except ValueError as error:  # how the package says that a setting cannot work
        print(f"fluence: {printable(str(error))}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        _abandon_stdout()
        raise typer.Exit(141) from None
    except OSError as error:  # a full disk
        print(f"fluence: {error}", file=sys.stderr)
        _abandon_stdout()
        raise typer.Exit(1) from None


def _abandon_stdout() -> None:
    """Let the interpreter's last flush go where it can."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@_app.command()
def chat(  # noqa: PLR0917  # how typer is told the options
    prompt: Annotated[
        list[str] | None,
        typer.Argument(help="The question; without it, what is piped in, or a conversation."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Who answers.")] = "fluence-chat",
    system: Annotated[str | None, typer.Option("--system", "-s", help="How to answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", min=0, max=2, help="How freely, 0 to 2.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="At most so many tokens.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object when the answer is whole: text, model, finish_reason, "
            "usage, meta; and error, if it failed.",
        ),
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Show the answer as it comes.")
    ] = True,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="The API's address, before FLUENCE_BASE_URL.")
    ] = None,
) -> None:
    """Ask a question, or hold a conversation.

    With a question, or with text piped in, or with both (first the question, then the text),
    the answer is streamed to standard output. With neither, on a terminal, it is a
    conversation that remembers its turns; Ctrl-C stops an answer, Ctrl-D leaves.

    Without FLUENCE_API_KEY and FLUENCE_BASE_URL a local server within the program answers,
    which is no language model.
    """
    from .chat import answer_as_json, answer_as_text, question

    settings = Settings(
        model=model,
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        stream=stream,
        base_url=base_url,
    )
    with _outcome():
        asked = question(prompt or [])
        if asked and as_json:
            _run_to_end(answer_as_json(asked, settings))
        elif asked:
            _run_to_end(answer_as_text(asked, settings))
        elif prompt or as_json or not (sys.stdin and sys.stdin.isatty() and draws(sys.stdout)):
            raise ValueError("nothing is asked: give a question, or pipe one in")
        else:
            from .conversation import converse

            _run_to_end(converse(settings))


@_app.command()
def usage(
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="The file; by default the user's own.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="How far back.")] = 30,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, tags included.")
    ] = False,
) -> None:
    """Show what calls cost, by day and model.

    Reads the ledger that programs keep with FluenceSession(ledger=True). A ~ marks sums that
    hold estimates, because the server did not report all.
    """
    from .spent import show_spent

    with _outcome():
        show_spent(ledger, days=days, as_json=as_json)


@_app.command()
def limits(
    obeyed: Annotated[
        list[str] | None,
        typer.Option("--limits", help="What the programs obey: once for each limit."),
    ] = None,
    limiter: Annotated[
        str, typer.Option("--limiter", help="Where: file, redis://…, auto (FLUENCE_LIMITER, file).")
    ] = "auto",
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Whose limits, before FLUENCE_BASE_URL.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, once.")] = False,
) -> None:
    """Show how the limits stand that programs share, live until Ctrl-C.

    What is used and left, who waits, what was learnt of the server, and when 10 and 100 more calls
    could go if nobody else comes. Looking takes nothing, and no program notices. Without a terminal
    it is shown once.
    """
    from .gauge import Gauge, limits_of, show_live

    live = draws(sys.stdout) and not as_json
    with _outcome(), suppress(*[KeyboardInterrupt] * live):
        gauge = Gauge(limits_of(obeyed, limiter, base_url))
        _run_to_end(show_live(gauge) if live else gauge.show_once(as_json=as_json))


@_app.command()
def serve(  # noqa: PLR0917  # how typer is told the options
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 8383,
    pace: Annotated[
        float, typer.Option(min=0, max=60, help="Seconds between two tokens of a stream.")
    ] = 0.02,
    limits: Annotated[
        bool, typer.Option("--limits/--no-limits", help="100 requests a minute, 1000 an hour.")
    ] = True,
    control: Annotated[
        bool, typer.Option("--control", help="Take scripts over HTTP, for tests in any language.")
    ] = False,
    upstream: Annotated[
        str | None,
        typer.Option(help="Pass requests on to this address, with the key in FLUENCE_API_KEY."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Append what the upstream says to this file, without keys.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Answer from a recording, again and again.")
    ] = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Spoil some answers, and say which and how.")
    ] = False,
    chaos_rate: Annotated[
        float, typer.Option(min=0, max=1, help="The share of requests that chaos spoils.")
    ] = 0.3,
    seed: Annotated[
        int | None, typer.Option(help="Which chaos; by default another one each time.")
    ] = None,
) -> None:
    """Run the local Fluence server until Ctrl-C.

    It speaks the documented API in full, keys and rate limits included, and is no language
    model: its answers are computed from the questions. It prints how to point a client at it.
    """
    from .serve import Serving, serve_forever

    serving = Serving(
        host=host,
        port=port,
        pace=pace,
        limited=limits,
        control=control,
        upstream=upstream,
        record=record,
        replay=replay,
        chaos=chaos,
        chaos_rate=chaos_rate,
        seed=seed,
    )
    with _outcome(), _foreground(serving.host, serving.port):
        _run_to_end(serve_forever(serving))


@contextmanager
def _foreground(host: str, port: int) -> Iterator[None]:
    """How a server in the foreground ends: with Ctrl-C, or because it cannot begin."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        print(
            f"fluence: cannot listen on {host}:{port}: {reason}; choose another --port",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None
