"""
`stromkreis config`: the configuration file with every key, its default and what turning it costs.

Made from the models themselves, so it cannot fall behind them; what it prints is a valid file where every setting is
commented out: `# ` begins an explanation, `#` without a space a setting.
"""

from __future__ import annotations

import json
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from coordinator.config import CoordinatorConfig
from loadtest.config import MetersConfig
from node.config import NodeConfig

_WIDTH = 100


class Section(StrEnum):
    """The sections of the file."""

    COORDINATOR = "coordinator"
    NODE = "node"
    METERS = "meters"


_MODELS: dict[Section, type[BaseModel]] = {
    Section.COORDINATOR: CoordinatorConfig,
    Section.NODE: NodeConfig,
    Section.METERS: MetersConfig,
}


def config(
    section: Annotated[Section | None, typer.Argument(help="One section only.")] = None,
) -> None:
    """
    Print a commented configuration file with every setting and its default.

    Every key can be set by an environment variable too: [coordinator.epoch] period_s by
    STROMKREIS_COORDINATOR__EPOCH__PERIOD_S.

    Example: stromkreis config coordinator > stromkreis.toml
    """
    typer.echo(reference([section] if section is not None else list(Section)))


def reference(sections: list[Section]) -> str:
    """The file's text."""
    return "\n".join("\n".join(_table(str(section), _MODELS[section])) for section in sections)


def _table(path: str, model: type[BaseModel]) -> list[str]:
    lines = [f"[{path}]"]
    tables: list[str] = []
    for name, field in model.model_fields.items():
        submodel, repeated = _submodel(field.annotation)
        if submodel is None:
            lines += ["", *_comment(field.description or ""), f"#{name} = {_value(field)}"]
        else:
            head = f"#[[{path}.{name}]]" if repeated else f"#[{path}.{name}]"
            described = _comment(field.description or (submodel.__doc__ or "").strip())
            inner = _table(f"{path}.{name}", submodel)[1:]
            tables += ["", *described, head, *inner]
    return [*lines, *tables, ""]


def _submodel(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in getattr(annotation, "__args__", ()):
        found, repeated = _submodel(argument)
        if found is not None:
            return found, repeated or getattr(annotation, "__origin__", None) is tuple
    return None, False


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH)]


def _value(field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined:
        return '""  # required'
    if default is None:
        return '""  # not set'
    if isinstance(default, Path):
        default = str(default)
    return json.dumps(default, ensure_ascii=False)
