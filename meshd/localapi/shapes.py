"""Shapes of plain dicts, and the one function that checks a value against a shape.

A shape *is* a JSON Schema (the small part of it that the makers below use), so that docs/openapi.yaml is made of the
very dicts that the daemon checks with. Requests are checked strictly: an unknown member is refused, since it is a wish
that would be ignored. Answers are checked loosely: unknown members come from a newer release. Messages name the
place, never the value, because the value may be a passphrase.
"""

from __future__ import annotations

from meshd.errors import BadRequest, FormatError, MeshError
from meshd.localapi import SCHEMA

Shape = dict[str, object]
Json = dict[str, object]

MAX_DEPTH = 16


def text(about: str = "", *, least: int = 0, most: int = 1024, enum: tuple[str, ...] = (), form: str = "") -> Shape:
    """A string of `least` to `most` characters, or one of `enum`. `form` is documentation ("date-time", "password")."""
    shape: Shape = {"type": "string", "enum": list(enum)} if enum else {"type": "string", "maxLength": most}
    if least:
        shape["minLength"] = least
    if form:
        shape["format"] = form
    return _about(shape, about)


def integer(about: str = "", *, least: int = 0, most: int = 2**53 - 1) -> Shape:
    return _about({"type": "integer", "minimum": least, "maximum": most}, about)


def number(about: str = "", *, least: float = 0, most: float = 1e12) -> Shape:
    return _about({"type": "number", "minimum": least, "maximum": most}, about)


def boolean(about: str = "") -> Shape:
    return _about({"type": "boolean"}, about)


def array(items: Shape, about: str = "", *, least: int = 0, most: int = 1_000_000) -> Shape:
    shape: Shape = {"type": "array", "items": items, "maxItems": most}
    if least:
        shape["minItems"] = least
    return _about(shape, about)


def record(required: dict[str, Shape], optional: dict[str, Shape] | None = None, about: str = "") -> Shape:
    """An object with these members."""
    shape: Shape = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        shape["required"] = list(required)
    return _about(shape, about)


def mapping(values: Shape, about: str = "") -> Shape:
    """An object whose member names are data."""
    return _about({"type": "object", "additionalProperties": values}, about)


def nullable(shape: Shape) -> Shape:
    changed = dict(shape)
    changed["type"] = [shape["type"], "null"]
    if "enum" in shape:
        changed["enum"] = [*_list(shape["enum"]), None]
    return changed


def check_request(value: object, shape: Shape) -> Json:
    """The request body, when it fits; BadRequest names the first place that does not."""
    return check(value, shape, strict=True, error=BadRequest)


def check_answer(value: object, shape: Shape) -> Json:
    """The answer's body, when it has at least what the shape asks for; FormatError otherwise."""
    return check(value, shape, strict=False, error=FormatError)


def check(value: object, shape: Shape, *, strict: bool, error: type[MeshError]) -> Json:
    """Check an object against a shape and return it."""
    if type(value) is not dict:
        raise error("a JSON object is expected")
    if value.get("schema", SCHEMA) != SCHEMA:
        raise error(f"schema {SCHEMA} is expected")
    _check(value, shape, "", strict, error, 0)
    return value


def read_query(pairs: dict[str, str], shape: Shape) -> Json:
    """Turn the strings of a query into the shape's types ("1" and "0" are booleans), then check them strictly."""
    properties = _dict(shape.get("properties", {}))
    read: Json = {}
    for name, raw in pairs.items():
        if name not in properties:
            raise BadRequest(f"unknown parameter {_shown(name)}")
        kind = properties[name]["type"]
        try:
            read[name] = _from_text(raw, kind)
        except ValueError:
            raise BadRequest(f"{name}: {_named(kind)} is expected") from None
    return check(read, shape, strict=True, error=BadRequest)


def _from_text(raw: str, kind: object) -> object:
    if kind == "boolean":
        return {"1": True, "true": True, "0": False, "false": False}[raw] if raw in _TRUTH else _refuse()
    if kind == "integer":
        return int(raw) if len(raw) <= 16 and raw.isascii() and raw.isdigit() else _refuse()
    if kind == "number":
        return float(raw) if len(raw) <= 24 and raw.replace(".", "", 1).isdigit() and raw.isascii() else _refuse()
    return raw


_TRUTH = ("1", "true", "0", "false")


def _refuse() -> object:
    raise ValueError


def _check(value: object, shape: Shape, where: str, strict: bool, error: type[MeshError], depth: int) -> None:
    kinds = shape["type"]
    if type(kinds) is list:
        if value is None and "null" in kinds:
            return
        kinds = kinds[0]
    if depth > MAX_DEPTH:
        raise error(f"{where}: nested too deeply")
    if not _is(value, kinds):
        raise error(f"{where or 'body'}: {_named(kinds)} is expected")
    if type(value) is str:
        _check_text(value, shape, where, error)
    elif type(value) is int or type(value) is float:
        if not _number(shape["minimum"]) <= value <= _number(shape["maximum"]):  # NaN fails too
            raise error(f"{where}: not between {shape['minimum']} and {shape['maximum']}")
    elif type(value) is list:
        if not _number(shape.get("minItems", 0)) <= len(value) <= _number(shape["maxItems"]):
            raise error(f"{where}: {len(value)} entries")
        for place, part in enumerate(value):
            _check(part, _shape(shape["items"]), f"{where}[{place}]", strict, error, depth + 1)
    elif isinstance(value, dict):
        _check_record(value, shape, where, strict, error, depth)


def _check_text(value: str, shape: Shape, where: str, error: type[MeshError]) -> None:
    if "enum" in shape:
        if value not in _list(shape["enum"]):
            raise error(f"{where}: one of {', '.join(str(word) for word in _list(shape['enum']) if word)} is expected")
        return
    if not _number(shape.get("minLength", 0)) <= len(value) <= _number(shape["maxLength"]):
        least, most = shape.get("minLength", 0), shape["maxLength"]
        raise error(f"{where}: {len(value)} characters, {least} to {most} are allowed")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise error(f"{where}: not text")  # lone surrogates can't be encoded again


def _check_record(
    value: dict[str, object], shape: Shape, where: str, strict: bool, error: type[MeshError], depth: int
) -> None:
    if "additionalProperties" in shape:
        for name, part in value.items():
            _check(part, _shape(shape["additionalProperties"]), f"{where}.{_shown(name)}", strict, error, depth + 1)
        return
    properties = _dict(shape["properties"])
    for wanted in _list(shape.get("required", [])):
        if wanted not in value:
            raise error(f"{_join(where, str(wanted))}: missing")
    for name, part in value.items():
        if name in properties:
            _check(part, properties[name], _join(where, name), strict, error, depth + 1)
        elif strict and (where or name != "schema"):
            raise error(f"{_join(where, _shown(name))}: unknown member")


def _is(value: object, kind: object) -> bool:
    if kind == "number":
        return type(value) is float or type(value) is int
    return type(value) is _TYPES.get(str(kind))  # exact: True is no integer


_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def _named(kind: object) -> str:
    return ("an " if str(kind)[0] in "aeio" else "a ") + str(kind)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(name: str) -> str:
    return ascii(name[:40])


def _about(shape: Shape, about: str) -> Shape:
    if about:
        shape["description"] = about
    return shape


def _dict(value: object) -> dict[str, Shape]:
    if type(value) is not dict:
        raise TypeError("a shape is malformed")
    return value


def _shape(value: object) -> Shape:
    if type(value) is not dict:
        raise TypeError("a shape is malformed")
    return value


def _list(value: object) -> list[object]:
    if type(value) is not list:
        raise TypeError("a shape is malformed")
    return value


def _number(value: object) -> float:
    if type(value) is not int and type(value) is not float:
        raise TypeError("a shape is malformed")
    return value
