"""The base of every piece of an experiment: frozen, and unknown fields are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, PydanticKnownError


class Spec(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=False, allow_inf_nan=False
    )


def fault(message: str, *, field: str = "", fix: str = "") -> PydanticCustomError:
    """What a validator raises: `field` names the guilty field below the validated record, for the error's line."""
    # the message goes through pydantic's template, so it must travel as a value: it may hold braces
    return PydanticCustomError("redline", "{message}", {"message": message, "field": field, "fix": fix})


def _not_bool(error: Literal["int_type", "float_type"]) -> BeforeValidator:
    """`repeats: true` must not quietly become 1."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(error)
        return value

    return BeforeValidator(check)


Whole = Annotated[int, _not_bool("int_type"), Field(le=2**53)]
"""A whole number that every JSON reader keeps exact."""
Number = Annotated[float, _not_bool("float_type")]
