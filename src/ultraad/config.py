"""Options from files, dictionaries and ``key=value`` words to one frozen pydantic model; an unknown key is an error.

Keys are dotted: ``score.tau`` is the field ``tau`` of the field ``score``. A dictionary may nest, be dotted, or both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ultraad.errors import ConfigError
from ultraad.registry import similar

_FAULTS = 8  # wrong keys in one message

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T", bound=str)


class Strict(BaseModel):
    """A frozen model without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a model, for lists and help pages.

    Attributes:
        key: Dotted key.
        type: Its type as written in the code.
        values: The possible values in words: ``"number in [0, 1]"``, ``"mean | max"``.
        default: Value if it is not given.
        description: Its meaning; may be empty.
        section: Title of its group of options; empty outside a group.
    """

    key: str
    type: str
    values: str
    default: Any
    description: str
    section: str


def one_of(name: str, value: T, choices: Iterable[str]) -> T:
    """The value of an argument.

    Raises:
        ConfigError: If it is none of the choices.
    """
    choices = tuple(choices)
    if value not in choices:
        msg = f"{name} {value!r}: choose from {', '.join(choices)}"
        raise ConfigError(msg)
    return value


def names_of(given: str | Iterable[str]) -> list[str]:
    """Names as a list; one alone need not be in a list."""
    return [given] if isinstance(given, str) else list(given)


def options(model: type[BaseModel]) -> list[Option]:
    """Every option of a model with its default, in the order of the code. Nested models are flattened."""
    return [
        Option(
            key=key,
            type=_type_name(field),
            values=_values(field),
            default=field.get_default(call_default_factory=True),
            description=field.description or "",
            section=_section(model, key),
        )
        for key, field in _fields(model)
    ]


def resolve(model: type[M], given: Mapping[str, Any] | None = None, *, where: str = "options") -> M:
    """A model with the given options, and defaults for the others.

    Args:
        model: The pydantic model of the options.
        given: Nested or dotted keys.
        where: Source of the options for messages: a file, or ``"--set"``.

    Raises:
        ConfigError: If a key is unknown (the message names similar ones) or given twice, or a value does not fit. Where
            a list is wanted, one value alone is a list of one, and ``"1,2,3"`` is a list of three.

    Examples:
        >>> from pydantic import BaseModel
        >>> from ultraad.config import resolve
        >>> class Score(BaseModel):
        ...     tau: float = 0.01
        >>> class Options(BaseModel):
        ...     score: Score = Score()
        >>> resolve(Options, {"score.tau": 0.07}).score.tau
        0.07
    """
    fields = dict(_fields(model))
    known, tree = list(fields), dict[str, Any]()
    found = list(_leaves(given or {}, known))
    for key, value in found:
        if key not in known:
            raise ConfigError(_unknown(shortened(key), known, where))
        _insert(tree, key, value, where)
    try:
        return model.model_validate(tree)
    except ValidationError as e:
        faulty = {_key(fault["loc"], known) for fault in e.errors(include_url=False)}
        lists = {key: items for key, value in found if key in faulty and (items := _as_list(value, fields[key], where))}
        if lists:
            return resolve(model, {**dict(found), **lists}, where=where)
        wanted = {key: _wanted(fields[key]) for key in faulty & set(known) if _is_plain(fields[key].annotation)}
        raise ConfigError(explain(e, where=where, known=known, wanted=wanted)) from e


def completed(options: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options of a saved model with values for those that came later.

    Args:
        options: As :func:`dump` gave them.
        earlier: {dotted key: what models did before there was this option}.
    """

    def recorded(key: str) -> bool:
        place: Any = options
        for part in key.split("."):
            if not isinstance(place, Mapping) or part not in place:
                return False
            place = place[part]
        return True

    return {**options, **{key: value for key, value in earlier.items() if not recorded(key)}}


def dump(model: BaseModel) -> dict[str, Any]:
    """The resolved options as plain JSON types, nested, as they are stored with every result."""
    return model.model_dump(mode="json")


def explain(error: ValidationError, *, where: str, known: Sequence[str] = (), wanted: Mapping[str, str] = {}) -> str:
    """A pydantic error as one sentence: key, reasons, value found.

    Args:
        error: From a failed validation.
        where: Source of the values; begins the sentence.
        known: Dotted keys. Anything that pydantic adds to one of them (the member of a union) is left out.
        wanted: {dotted key: the values that it accepts, in words}, instead of the words of pydantic.
    """
    reasons: dict[str, dict[str, None]] = {}
    found: dict[str, str] = {}
    for e in error.errors(include_url=False):
        key = _key(e["loc"], known)
        own = key in wanted and e["type"] not in ("missing", "extra_forbidden", "value_error")
        reason = f"wanted {wanted[key]}" if own else e["msg"].removeprefix("Value error, ")
        reasons.setdefault(key, {})[reason[:1].lower() + reason[1:]] = None
        if key and e["type"] not in ("missing", "extra_forbidden"):
            found[key] = f", found {shortened(repr(e['input']))}"
    sentences = [
        f"{shortened(k)}: {' or '.join(r)}{found.get(k, '')}" if k else " or ".join(r) for k, r in reasons.items()
    ]
    more = f"; and {len(sentences) - _FAULTS} more" if len(sentences) > _FAULTS else ""
    return f"{where}: {'; '.join(sentences[:_FAULTS])}{more}"


def _key(place: Sequence[str | int], known: Sequence[str]) -> str:
    """The dotted key at which pydantic found a fault: the longest that is known, or the whole place."""
    parts = [str(part) for part in place]
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((p for p in prefixes if p in known), ".".join(parts))


def shortened(text: str, limit: int = 200) -> str:
    """A text of any length for a message."""
    return text if len(text) <= limit else f"{text[:limit]} ..."


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """``["score.tau=0.07", "layers=[3, 6]"]`` to a dictionary; values are read as YAML, ``3,6`` as text.

    Raises:
        ConfigError: If a word has no ``=``, a value is not YAML, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            msg = f"cannot understand the option {word!r}; wanted key=value, e.g. --set score.tau=0.07"
            raise ConfigError(msg)
        if key in found:
            msg = f"the option {key!r} is given twice; keep one"
            raise ConfigError(msg)
        found[key] = _load_yaml(text, where=f"--set {key}")
    return found


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Numbers and booleans follow YAML 1.2: ``1e-3`` is a number, ``off`` and ``no`` are words.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, holds no mapping, or has a key twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        msg = f"cannot read {path}: {reason}; wanted a YAML file"
        raise ConfigError(msg) from e
    value = _load_yaml(text, where=str(path))
    if not isinstance(value, dict):
        msg = f"{path} holds {type(value).__name__}; wanted a mapping 'key: value'"
        raise ConfigError(msg)
    return value


def _submodel(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = _submodel(field)
        if inner is None:
            yield f"{prefix}{name}", field
        else:
            yield from _fields(inner, f"{prefix}{name}.")


def _type_name(field: FieldInfo) -> str:
    kind = field.annotation
    if isinstance(kind, type) and not hasattr(kind, "__args__"):
        return kind.__name__
    return re.sub(r"(?:\w+\.)+(?=\w)", "", str(kind))  # without module names


def _section(model: type[BaseModel], key: str) -> str:
    """First line of the docstring of the group that a key belongs to."""
    group = model
    for name in key.split(".")[:-1]:
        group = _submodel(group.model_fields[name]) or group
    return "" if group is model else (group.__doc__ or "").strip().partition("\n")[0]


_WORDS: dict[Any, str] = {
    bool: "true | false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "none",
}


def _values(field: FieldInfo) -> str:
    """The values that a field accepts, in words, with the bounds of numbers."""
    return " | ".join(dict.fromkeys(_kinds(field.annotation, _bounds(field.metadata))))


def _wanted(field: FieldInfo) -> str:
    """The values that an option accepts, in words, with an example of a list."""
    words, default = _values(field), field.get_default(call_default_factory=True)
    if "list of" not in words:
        return words
    usual = [1, 2] if "whole numbers" in words else [0.5, 1.0] if "numbers" in words else ["a", "b"]
    return f"{words}, e.g. {','.join(map(str, default[:3] if isinstance(default, tuple) and default else usual))}"


def _is_plain(kind: Any) -> bool:  # noqa: ANN401
    """Whether the words of :func:`_values` say all about a type."""
    inner = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return kind in (*_WORDS, Ellipsis) or get_origin(kind) is Literal or (inner != () and all(map(_is_plain, inner)))


def _as_list(value: Any, field: FieldInfo, where: str) -> list[Any] | None:  # noqa: ANN401
    """One element, or text with commas, as the list that an option can be; None if it cannot, or the value is none."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool) or "list of" not in _values(field):
        return None
    return [_load_yaml(part, where=where) for part in value.split(",")] if isinstance(value, str) else [value]


def _bounds(metadata: Iterable[Any]) -> dict[str, float]:
    names = ("ge", "gt", "le", "lt")
    return {name: value for m in metadata for name in names if (value := getattr(m, name, None)) is not None}


def _kinds(kind: Any, bounds: Mapping[str, float]) -> Iterator[str]:  # noqa: ANN401
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        yield from map(str, inner)
    elif origin in (Union, UnionType):
        for one in inner:
            yield from _kinds(one, bounds)
    elif origin is Annotated:
        own = [part for m in inner[1:] for part in getattr(m, "metadata", [m])]  # a Field, or a bound itself
        yield from _kinds(inner[0], {**bounds, **_bounds(own)})
    elif origin in (tuple, list):
        items = dict.fromkeys(k for one in inner if one is not Ellipsis for k in _kinds(one, {}))
        yield f"list of {' or '.join(k.replace('number', 'numbers') for k in items)}"
    elif kind in (int, float):
        yield _WORDS[kind] + _range(**bounds)
    elif kind in _WORDS:
        yield _WORDS[kind]
    else:  # any other class: TextBank is "text bank"
        yield re.sub(r"(?<=[a-z])(?=[A-Z])", " ", getattr(origin or kind, "__name__", str(kind))).lower()


def _range(
    *, ge: float | None = None, gt: float | None = None, le: float | None = None, lt: float | None = None
) -> str:
    low, high = (gt if ge is None else ge), (lt if le is None else le)
    if low is not None and high is not None:
        return f" in {'(' if ge is None else '['}{low:g}, {high:g}{')' if le is None else ']'}"
    if low is not None:
        return f" {'>' if ge is None else '>='} {low:g}"
    return "" if high is None else f" {'<' if le is None else '<='} {high:g}"


def _leaves(given: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value; a mapping is flattened unless it is the value of an option."""
    for name, value in given.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in known and value:
            yield from _leaves(value, known, f"{key}.")
        else:
            yield key, value


def _insert(tree: dict[str, Any], key: str, value: Any, where: str) -> None:  # noqa: ANN401
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    if last in tree:
        msg = f"{where}: the option {key!r} is given twice; keep one"
        raise ConfigError(msg)
    tree[last] = value


def _unknown(key: str, known: Sequence[str], where: str) -> str:
    last = key.rpartition(".")[2]
    ends = [k.rpartition(".")[2] for k in known]
    near = [
        k for name in (last, *similar(last, ends, count=3)) for k, end in zip(known, ends, strict=True) if end == name
    ]
    near += [k for k in known if k.startswith(f"{key}.")]
    near += similar(key, known, count=2)
    if near:
        hint = f"did you mean {' or '.join(list(dict.fromkeys(near))[:4])}?"
    else:
        hint = f"known: {', '.join(sorted(known)) or 'none'}"
    return f"{where}: unknown option {key!r}; {hint}"


class _Loader(yaml.SafeLoader):
    """YAML with the booleans and floats of version 1.2 and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        twice = next((k for i, k in enumerate(keys) if k in keys[:i]), None)
        if twice is not None:
            msg = f"the key {twice!r} is given twice"
            raise yaml.YAMLError(msg)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep=deep))


_BOOL = "tag:yaml.org,2002:bool"
_FLOAT = "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?(?:(?:\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def _load_yaml(text: str, *, where: str) -> Any:  # noqa: ANN401
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as e:  # 2020-13-45 is a ValueError
        reason = shortened(" ".join(str(e).split()), 500)
        msg = f"{where}: not valid YAML: {reason}"
        raise ConfigError(msg) from e
