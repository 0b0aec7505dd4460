"""Studies by name or path: found, read, checked, overridden, written."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bench.core.errors import InputError, nearest
from bench.study.budgets import (
    Budget,
    apply_budget,
)
from bench.study.safe_yaml import (
    LONGEST,
    parse_yaml,
)
from bench.study.schema import (
    Part,
    Study,
)

log = logging.getLogger(__name__)


def folders() -> list[Path]:
    """Where named studies are looked for: the current folder's `studies/` first, then the packaged ones."""
    package = Path(__file__).parents[1]
    return [f for f in (Path("studies"), package / "_studies", package.parent / "studies") if f.is_dir()]


def available() -> dict[str, Path]:
    """Return the named studies, `small_similar` or `reference/small_similar`, and their files."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.rglob("*.yaml")):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return dict(sorted(found.items(), key=lambda item: (item[0].count("/"), item[0])))


# What is set on the command line takes the place of the other, wherever that was set.
INSTEAD = {"training.steps": "training.epochs", "training.epochs": "training.steps"}


def find(name_or_path: str) -> Path:
    """Return the file of a study given by name or by path; raise InputError for neither."""
    named = available()
    if name_or_path in named:
        return named[name_or_path]
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or os.sep in name_or_path:
        if path.is_file():
            return path
        raise InputError(f"there is no study file {path}", "--study", nearest(name_or_path, named))
    raise InputError(f"unknown study '{name_or_path}'", "--study", nearest(name_or_path, named))


def load(name_or_path: str, overrides: Iterable[str] = (), budget: Budget = "default") -> Study:
    """Read and check a study.

    Args:
        name_or_path: a name that `bench list studies` shows, or the path of a YAML file.
        overrides: `key=value` with dotted keys (`training.steps=600`); they win over file and budget.
        budget: preset of trials, seeds, steps and labels.

    Raises:
        InputError: for anything that is not a valid study, naming file and key.
    """
    path = find(name_or_path)
    values = _read(path)
    values.setdefault("name", _name_of(path))
    study = apply_budget(_validate(values, str(path)), budget)
    if not (changes := list(overrides)):
        return study
    values = study.model_dump(mode="json")
    for instead in {INSTEAD[key] for change in changes if (key := change.partition("=")[0]) in INSTEAD}:
        _override(values, f"{instead}=null")
    for change in changes:
        _override(values, change)
    return _validate(values, f"{path} with --set")


def _name_of(path: Path) -> str:
    """Return a study's name from its file's; what can't be part of a name becomes `_`, which is said."""
    stem = path.stem if path.parent.name != "reference" else f"reference_{path.stem}"
    name = re.sub(r"[^\w.\-]+", "_", stem)
    name = name if re.match("[A-Za-z0-9]", name) else f"study_{name.lstrip('_.-')}"
    if name != stem:
        log.warning("%s: the study is called %s; a key `name` in the file would say otherwise", path, name)
    return name


def parse(text: str, where: str) -> Study:
    """Return the study that `as_yaml` wrote; `where` names the text, should it be unusable."""
    return _validate(_values(text, where), where)


def as_yaml(study: Study) -> str:
    """Return the study with every value resolved."""
    values: dict[str, Any] = study.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return _values(file.read(LONGEST + 1), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read ({error})", str(path)) from error


def _values(text: str, where: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        what = str(getattr(error, "problem", None) or error)[:200]
        raise InputError(f"is not valid YAML{place}: {what}", where) from error
    if not isinstance(values, dict):
        raise InputError("is not a mapping of keys to values", where, "see studies/small_similar.yaml")
    return values


def _override(values: dict[str, Any], change: str) -> None:
    """Set one dotted key in place; intermediate keys may be absent (they are checked later)."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise InputError(f"'{change}' is not KEY=VALUE", "--set", "for example --set training.steps=600")
    try:
        value = parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"the value of '{key}' is not valid YAML", "--set") from error
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        nested = values[parent]
        if not isinstance(nested, dict):
            raise InputError(f"'{parent}' in '{key}' has no keys of its own", "--set")
        values = nested
    values[last] = value


def _validate(values: dict[str, Any], where: str) -> Study:
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from error


def _explain(error: ValidationError, where: str) -> InputError:
    """Turn pydantic's first complaint into one line: file, key, what, nearest valid key."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or "study"
    if first["type"] == "extra_forbidden":
        return InputError(f"unknown key '{key}'", where, nearest(location[-1], _fields(location[:-1])))
    if first["type"] == "missing":
        return InputError(f"the key '{key}' is missing", where)
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict | Part) else f" (given: {str(first['input'])[:60]!r})"
    more = f" and {error.error_count() - 1} more mistakes" if error.error_count() > 1 else ""
    return InputError(f"{key}: {message}{given}{more}", where)


def _fields(location: list[str]) -> list[str]:
    """Return the valid keys at a place of the schema."""
    part: Any = Study
    for name in location:
        part = next((t for t in _part_types(part.model_fields[name].annotation)), part)
    return list(part.model_fields)


def _part_types(annotation: Any) -> list[type[Part]]:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [c for c in candidates if isinstance(c, type) and issubclass(c, Part)]
