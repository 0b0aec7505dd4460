"""YAML from strangers: plain values, bounded in size, each mistake with its line."""

from typing import Any

import yaml
from yaml.constructor import ConstructorError

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # `safe_load`, in C where it was built
LONGEST, DEEPEST = 100_000, 20  # characters of a study, and how deep it may be nested


def parse_yaml(text: str) -> Any:
    """Return what a YAML text says: plain values, no larger than a study can be.

    Aliases can stand for billions of values in a few lines, and the parser in C crashes on deep nesting.

    Raises:
        ValueError: for more than a study needs, or a value that there is none of.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has more than {LONGEST} characters")
    depth = 0
    for event in yaml.parse(text, Loader=SAFE_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"aliases (*{event.anchor}) are not accepted: write the value again")  # noqa: TRY004 - a setting
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is the safe one


class _Loader(SAFE_LOADER):  # type: ignore[misc, valid-type]
    """The safe loader; what it lets pass or trips over is an error with a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a node's value; PyYAML's own code stumbles on `!!bool x`, `!!int ''` and the like."""
        try:
            return super().construct_object(node, deep)
        except (KeyError, IndexError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"'{node.value}' is no {kind}", node.start_mark) from error

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a mapping; PyYAML takes the last of two values for one key, and the first is lost."""
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and first.setdefault((key.tag, key.value), key) is not key:
                line = first[key.tag, key.value].start_mark.line + 1
                what = f"'{key.value}' is written twice, first in line {line}"
                raise ConstructorError(None, None, what, key.start_mark)
        return super().construct_mapping(node, deep)
