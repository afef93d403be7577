"""The directive `command-options`: every command of vaal-ext with what it takes, from its source.

Typer's commands are functions, whose annotations hold the help of each option. They are read here
as Python has them, because Typer's own objects are no click commands that sphinx-click could read.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.models import ArgumentInfo, OptionInfo

from vaal_ext.cli.app import app as commands

_KINDS = {"int": "NUMBER", "float": "NUMBER", "str": "TEXT", "Path": "PATH"}


def _kind(annotation: Any) -> str:
    """What is to be typed for a parameter of this type: NUMBER, PATH, or the words themselves."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(inner)
    if origin in (Union, types.UnionType):
        return " ".join(_kind(part) for part in inner if part is not type(None))
    if origin is list:
        return f"{_kind(inner[0])} ..."
    return _KINDS.get(annotation.__name__, annotation.__name__.upper())


def _term(name: str, annotation: Any, info: OptionInfo | ArgumentInfo) -> str:
    kind = info.metavar or _kind(annotation)
    if isinstance(info, ArgumentInfo):
        return f"{name.upper()} ({kind})"
    given = [text for text in info.param_decls or () if text.startswith("-")]
    flag = f"--{name.replace('_', '-')}"
    if annotation is bool or (type(None) in get_args(annotation) and bool in get_args(annotation)):
        return given[0] if given else f"{flag} / --no-{flag[2:]}"
    return f"{given[0] if given else flag} {kind}"


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        annotation, info = get_args(hints[name])[:2]
        default = parameter.default
        after = ""
        if default is inspect.Parameter.empty:
            after = " Required."
        elif default is not None and default is not False:
            after = f" By default {default}."
        yield _term(name, annotation, info), (info.help or "").rstrip() + after


def _paragraph(text: str) -> nodes.paragraph:
    """The text, with options named in it as code: their two hyphens are no dash."""
    paragraph = nodes.paragraph()
    for i, part in enumerate(re.split(r"(--[a-z][a-z-]*)", text)):
        paragraph += nodes.literal(text=part) if i % 2 else nodes.Text(part)
    return paragraph


class CommandOptions(SphinxDirective):
    """A section for each command: what it does, and a list of what it takes."""

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for command in commands.registered_commands:
            function = command.callback
            assert function is not None
            name = command.name or function.__name__
            section = nodes.section(ids=[f"vaal-ext-{name}"], names=[f"vaal-ext {name}"])
            section += nodes.title(text=f"vaal-ext {name}")
            self.state.document.note_explicit_target(section, section)
            for paragraph in (inspect.getdoc(function) or "").split("\n\n"):
                section += _paragraph(" ".join(paragraph.split()))
            listed = nodes.definition_list()
            for term, text in _parameters(function):
                item = nodes.definition_list_item()
                item += nodes.term("", "", nodes.literal(text=term))
                item += nodes.definition("", _paragraph(text))
                listed += item
            if len(listed):
                section += listed
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("command-options", CommandOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
