"""How a command ends: its status, and one line on stderr where it went wrong.

Errors that are none of the user's keep their traceback; with VAAL_TRACEBACK=1 in the environment
every error does.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import typer

__all__ = ["end", "exit_status", "keeping"]

_BAD_INPUT = 2
_INTERRUPTED = 130
_EXTRAS = ("matplotlib", "scipy", "sklearn", "torchvision")


class _Interrupted(Exception):
    """Ctrl-C or SIGTERM, with what is kept. No KeyboardInterrupt: typer would swallow its text."""


def end(status: int) -> NoReturn:
    """Ends a command with this exit status; raises typer's Exit, which is no Error."""
    raise typer.Exit(status)


@contextmanager
def keeping(kept: str | Callable[[], str], again: str = "to go on") -> Iterator[None]:
    """Around a command's work: Ctrl-C, and SIGTERM alike, end it with status 130 and one line.

    The line says what is kept, and how to take the work up: `again`, with the command as it was
    given. `kept` is that text, or a function that looks, once the work has ended, and returns it.
    A handler of SIGTERM that is not Python's, which Python could not put back, stays as it is.

    Raises:
        _Interrupted: in place of the KeyboardInterrupt, for :func:`exit_status`.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if in_main else None
    if before is not None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        text = kept if isinstance(kept, str) else kept()
        raise _Interrupted(f"{text}; {again}") from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def exit_status(command: Any, arguments: Sequence[str] | None) -> int:
    """Runs a typer command on `arguments` (None: the process's) and says on stderr what went wrong.

    What the encoding of stdout lacks (a path, under ``LANG=C``) is printed with backslash escapes.

    Returns:
        0; 2 when what the command was given is bad; 130 when it was interrupted; or what the
        command itself asked for.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python has stderr
    with warnings.catch_warnings():
        said: set[str] = set()  # a folder may be looked through twice, with the same to tell of it

        def tell(message: Warning | str, *_: Any) -> None:
            if str(message) not in said:
                said.add(str(message))
                _say(f"warning: {message}")

        warnings.showwarning = cast(Any, tell)
        try:
            status = command.main(arguments, prog_name="vaal-ext", standalone_mode=False) or 0
            sys.stdout.flush()
        except (KeyboardInterrupt, typer.Abort):
            status = _INTERRUPTED
        except _Interrupted as interrupted:
            given = sys.argv[1:] if arguments is None else arguments
            # Not by _say: a path in the command may hold two spaces in a row. Below a bar's line.
            below = "\n" if sys.stderr.isatty() else ""
            line = (
                f"{below}vaal-ext: interrupted; {interrupted}: {shlex.join(['vaal-ext', *given])}"
            )
            print(line, file=sys.stderr, flush=True)
            return _INTERRUPTED
        except BrokenPipeError:
            # The reader has what it wanted. Python flushes stdout at exit: into nothing, then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1  # as typer does where it meets this first
        except Exception as error:
            text = _explanation(error)
            if text is None or os.environ.get("VAAL_TRACEBACK"):
                raise
            _say(f"vaal-ext: {text}")
            return _BAD_INPUT
    if status == _INTERRUPTED:  # which typer 0.26 and later return
        _say("vaal-ext: interrupted")
    return status


def _explanation(error: Exception) -> str | None:
    """What was wrong with the input, in a line; None for an error that is not the input's."""
    if hasattr(error, "format_message"):  # of typer, or of click before typer 0.26
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "vaal-ext"
        return f"{error.format_message().rstrip('.')}. Try: {path} --help"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return f"{error}: pip install 'vaal_ext[experiments]'"
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return _without_traceback(error) or type(error).__name__
    return None


def _without_traceback(error: Exception) -> str:
    """The error's message. That of an error in a DataLoader's worker process is the traceback
    there, which ends in the message."""
    name = re.escape(type(error).__name__)
    told = re.fullmatch(rf"Caught .*\n(?:\S+\.)?{name}: (.*)", str(error), re.DOTALL)
    return str(error) if told is None else told[1]


def _say(text: str) -> None:
    # One line; blanks within a line may be part of a file's name.
    print(re.sub(r"\s*\n\s*", " ", text.strip()), file=sys.stderr, flush=True)
