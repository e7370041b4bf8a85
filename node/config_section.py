"""What every section of the node's configuration is: unknown keys are errors, docstrings are descriptions."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigSection(BaseModel):
    """One section."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
