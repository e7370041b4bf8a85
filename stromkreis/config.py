"""
The loader of the configuration: one TOML file, then environment variables, then options of the command line.

A file has a section for each process (`[coordinator]`, `[node]`, `[meters]`); the models live where they are at home.
`STROMKREIS_COORDINATOR__EPOCH__PERIOD_S=1` sets `epoch.period_s` of `[coordinator]`: two underscores go one table
down, so that names may have one.  A variable's text is taken as it stands; one that begins with `[` or `{` is TOML.

Whoever mistypes a key should not need this code to find it: every error names the key, where it came from, what was
found and what was expected.  A token, a password and a URL that may hold one are never repeated.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from protocol.errors import StromkreisError

_PREFIX = "STROMKREIS_"
_SECRET = ("token", "password", "secret", "database", "keys", "ha1")

ModelT = TypeVar("ModelT", bound=BaseModel)


class ConfigError(StromkreisError):
    """The configuration cannot be used; the text is written for the person who wrote the file."""

    exit_code = 2


def load(model: type[ModelT], section: str, path: Path | None, *, options: Mapping[str, Any] | None = None) -> ModelT:
    """
    Build `model` from `[section]` of the file, the environment and options (dotted keys; None means not given).

    Later sources win key by key.  Relative paths stay relative to the working directory.  Raises ConfigError.
    """
    table = {} if path is None else _read(path, section)
    prefix = f"{_PREFIX}{section.upper()}__"
    origins = {} if path is None else {"": f"{path} [{section}]"}
    for name in os.environ:
        if name.upper().startswith(prefix):
            origins[".".join(name[len(prefix) :].lower().split("__"))] = name
    given: dict[str, Any] = {}
    for dotted, value in (options or {}).items():
        if value is not None:
            _put(given, dotted.split("."), value)
            origins[dotted] = "the command line"
    try:
        settings = _layered(model, prefix, table)(**given)
    except ValidationError as error:
        details = error.errors()
        inner = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
        # A list whose items are wrong counts as too short as well: only the items are worth saying.
        told = [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inner]
        raise ConfigError("\n".join(_explain(model, section, detail, origins) for detail in told)) from None
    # As the plain model, which equals one that was made in any other way.
    return model.model_construct(settings.model_fields_set, **dict(settings))


def _layered(model: type[BaseModel], prefix: str, table: dict[str, Any]) -> type[BaseSettings]:
    """The model with the sources that it is read from: options, then environment, then the file's table."""

    class Layered(model, BaseSettings):  # type: ignore[valid-type, misc]
        model_config = SettingsConfigDict(env_prefix=prefix, env_nested_delimiter="__")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, _Environment(settings_cls), InitSettingsSource(settings_cls, table)

    return Layered


class _Environment(EnvSettingsSource):
    """Environment variables whose lists and tables are TOML, as in the file, and whose mistyped names are errors."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002 - as above
        """Text that begins with a bracket as TOML, other text as it stands."""
        if not isinstance(value, str) or not value.startswith(("[", "{")):
            return value
        try:
            return tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError as error:
            names = [name.upper() for name, text in self.env_vars.items() if text == value]
            raise ConfigError(f"{', '.join(names)}: no TOML value: {error}") from None

    def __call__(self) -> dict[str, Any]:
        """The values, and with them each name of the section that is no key."""
        values = super().__call__()
        for name, text in self.env_vars.items():
            key = name.removeprefix(self.env_prefix.lower()).split("__")[0]
            if name.startswith(self.env_prefix.lower()) and key not in self.settings_cls.model_fields:
                values[key] = text
        return values


def _read(path: Path, section: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no TOML: {error}") from None
    known = ("coordinator", "node", "meters")
    if unknown := sorted(set(document) - set(known)):
        raise ConfigError(f"{path}: unknown section [{unknown[0]}]{_suggestion(unknown[0], known)}")
    table = document.get(section)
    if table is None:
        found = ", ".join(f"[{name}]" for name in document) or "an empty file"
        raise ConfigError(f"{path}: found {found}; expected a section [{section}]")
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {section} is {_found(table)}; expected a section [{section}]")
    return table


def _put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value


def _explain(model: type[BaseModel], section: str, detail: ErrorDetails, origins: Mapping[str, str]) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join([section, *location])
    origin = _origin(location, origins)
    start = f"{origin}: {key}" if origin else key
    match detail["type"]:
        case "missing":
            return f"{start} is missing; expected {_description(model, location)}"
        case "extra_forbidden":
            known = _keys(model, location[:-1])
            return f"{start} is no key there{_suggestion(location[-1], known)}"
        case "value_error":
            expected = str(detail["ctx"]["error"])
        case "string_pattern_mismatch":
            expected = f"a text of the form {detail['ctx']['pattern']}"
        case "tuple_type" | "list_type":
            expected = "a list"
        case "path_type":
            expected = "a path as text"
        case _:
            expected = detail["msg"].removeprefix("Input should be ")
    found = "" if isinstance(detail["input"], dict | BaseModel) else f": found {_found(detail['input'], location)}"
    return f"{start}{found}; expected {expected}"


def _origin(location: list[str], origins: Mapping[str, str]) -> str:
    for length in range(len(location), -1, -1):
        origin = origins.get(".".join(location[:length]))
        if origin is not None:
            return origin
    return ""


def _found(value: Any, location: Iterable[str] = ()) -> str:
    if any(word in part.lower() for part in location for word in _SECRET):
        return f"a {type(value).__name__} (not shown)"
    if isinstance(value, list | tuple):  # its items may be secrets
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(names)}"


def _submodel(model: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if part.isdigit():
            continue
        field = current.model_fields.get(part) if current is not None else None
        current = _model_in(field.annotation) if field is not None else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _keys(model: type[BaseModel], location: list[str]) -> list[str]:
    submodel = _submodel(model, location)
    return list(submodel.model_fields) if submodel is not None else []


def _description(model: type[BaseModel], location: list[str]) -> str:
    submodel = _submodel(model, location[:-1])
    field = submodel.model_fields.get(location[-1]) if submodel is not None and location else None
    text = field.description if field is not None and field.description else "a value"
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")
