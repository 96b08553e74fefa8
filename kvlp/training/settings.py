"""What all recipe settings share: strict, frozen, and the number ranges that come up again and again."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LayerDecay", "Positive", "Share", "Strict", "Weight"]

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
#: A layer's learning rate as a share of that of the layer above.
LayerDecay = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Settings that refuse unknown keys and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())
