"""What all recipe settings share: strict, frozen, and the number ranges that come up again and again."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["LayerDecay", "Positive", "Share", "Strict", "Unmentioned", "Weight"]

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
#: A layer's learning rate as a share of that of the layer above.
LayerDecay = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _share_of_absence(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected ignore, absent or a number from 0 to 1")
    return {"ignore": 0.0, "absent": 1.0}.get(value, value) if isinstance(value, str) else value


#: How much it counts as absence that a report does not speak of a finding: `ignore` is 0, `absent` 1.
Unmentioned = Annotated[float, Field(ge=0, le=1), BeforeValidator(_share_of_absence)]


class Strict(BaseModel):
    """Settings that refuse unknown keys and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())
