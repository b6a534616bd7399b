"""A `YamlSource` is a YAML text whose fields know their lines, which `definition_file.py` names in its errors.

It refuses what PyYAML would take in silence: a key that is there twice, a number that would become another one, and a
text that is too large or nested too deeply once each alias stands for what it names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import yaml

from saga.definition import CALL_FIELDS
from saga.errors import DefinitionError
from saga.exact_json import DIGITS_AT_MOST
from saga.payload import LEVELS_AT_MOST, field_name
from saga.urls import masked

YAML_NODES_AT_MOST = 20_000  # parts of a file, each alias counted as all that it stands for


def compose(text: str, file: str) -> yaml.Node | None:
    """Return the root node of a YAML text; None where the text is empty.

    Raises DefinitionError where this module refuses it, and yaml.YAMLError where it is not YAML. `file` is only named.
    """
    loader = _StrictLoader(text)
    loader.file = file
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _StrictLoader(yaml.SafeLoader):
    """Composes YAML nodes, and refuses three things that PyYAML would take, each with its line.

    They are: what is nested too deeply, what is too large once every alias stands for what it names, and a number
    that would silently become another one.
    """

    file = ""

    def __init__(self, text: str):
        super().__init__(text)
        self._level = 0
        self._measured: dict[int, tuple[int, int]] = {}  # by a node's identity: (how many nodes, how many levels)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._level += 1
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._level > LEVELS_AT_MOST + 1:  # a scalar may stand in the last level
            raise self._refused(event, f"it is nested too deeply: {LEVELS_AT_MOST} levels are the most")
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is not None and id(node) not in self._measured and not isinstance(event, yaml.AliasEvent):
            self._measured[id(node)] = self._measure(node)
        self._check(node, event)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        """Return how many nodes are in a node and how many levels, from the sizes of its children."""
        if isinstance(node, yaml.ScalarNode):
            self._refuse_inexact(node)
            return 1, 0
        children = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes = [self._measured[id(each)] for each in children]
        return 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)

    def _check(self, node: yaml.Node | None, event: yaml.Event) -> None:
        known = self._measured.get(id(node))
        if known is None:
            raise self._refused(event, "an alias refers to what it stands in")
        if known[0] > YAML_NODES_AT_MOST:
            raise self._refused(event, f"it is too much, with what its aliases stand for: {YAML_NODES_AT_MOST} parts")
        if known[1] > LEVELS_AT_MOST:
            raise self._refused(
                event, f"it is nested too deeply, with what its aliases stand for: {LEVELS_AT_MOST} levels"
            )

    def _refuse_inexact(self, node: yaml.ScalarNode) -> None:
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS_AT_MOST:
            raise self._refused(
                node, f"a number of {len(node.value)} digits is too long: {DIGITS_AT_MOST} are the most"
            )
        if node.tag != "tag:yaml.org,2002:float":
            return
        text = node.value.replace("_", "").lower()
        if text.lstrip("+-") in (".inf", ".nan"):
            raise self._refused(node, f"{node.value} is no number here")
        with suppress(ValueError):  # YAML 1.1 also knows numbers to the base of 60
            if not math.isfinite(value := float(text)) or Decimal(repr(value)) != Decimal(text):
                raise self._refused(node, f"the number {node.value[:60]} is not one that a double holds")

    def _refused(self, part: Any, problem: str) -> DefinitionError:
        return DefinitionError(self.file, part.start_mark.line + 1, "", problem)


class YamlSource:
    """The tree of YAML nodes beside the data. It knows the line of every field."""

    def __init__(self, file: str, root: yaml.Node, urls: bool):
        self.file = file
        self.root = root
        self.urls = urls

    def error(self, path: Sequence[Any], problem: str) -> DefinitionError:
        """Return an error that names the file, the line of the field at `path`, and the field."""
        return DefinitionError(self.file, self._line(path), field_name(path), masked(problem))

    def _line(self, path: Sequence[Any]) -> int:
        node, line = self.root, self.root.start_mark.line
        for part in path:
            if isinstance(node, yaml.MappingNode):
                match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
                if match is None:
                    break
                line, node = match[0].start_mark.line, match[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line = node.start_mark.line
        return int(line) + 1

    def refuse_duplicate_keys(self) -> None:
        """Raise DefinitionError for a key that a mapping has twice; PyYAML would take the last one."""
        for path, node in _walk(self.root):
            if isinstance(node, yaml.MappingNode):
                seen: set[str] = set()
                for key, _ in node.value:
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise DefinitionError(self.file, line, field_name([*path, key.value]), "this key is here twice")
                    seen.add(key.value)

    def expand(self, data: Any, environ: Mapping[str, str], path: tuple[Any, ...] = ()) -> Any:
        """Return `data` with every `${VAR}` in its strings replaced. Raises DefinitionError for an unset variable."""
        if isinstance(data, dict):
            return {key: self.expand(value, environ, (*path, key)) for key, value in data.items()}
        if isinstance(data, list):
            return [self.expand(value, environ, (*path, index)) for index, value in enumerate(data)]
        if not isinstance(data, str) or (not self.urls and path[:1] == ("steps",) and path[-1] in CALL_FIELDS):
            return data

        def value_of(match: re.Match[str]) -> str:
            if match[1] not in environ:
                raise self.error(path, f"the environment variable {match[1]} is not set")
            return environ[match[1]]

        return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value_of, data)


def _walk(node: yaml.Node, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], yaml.Node]]:
    yield path, node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*path, index))
