"""The pieces every request model is made of: strict fields, and parameters refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = [
    "MAX_ENTRIES",
    "CollectionName",
    "ConsistencyToken",
    "Float",
    "ModelName",
    "QueryModel",
    "StrictModel",
    "UInt32",
    "Unsupported",
    "User",
    "refuse",
]

MAX_UINT32 = 2**32 - 1
# Of a list whose entries are read one by one, on the event loop: a body has room for millions of
# empty ones. As in OpenAI's API; what is too many for a service, the service says.
MAX_ENTRIES = 2048

UInt32 = Annotated[int, Field(ge=0, le=MAX_UINT32)]
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=256, description="Name of a model that `/v1/models` lists."),
]
CollectionName = Annotated[str, Field(min_length=1, max_length=256)]
ConsistencyToken = Annotated[
    str,
    Field(
        max_length=128,
        description="Of a write that the answer must see. Goes before the header of that name.",
    ),
]
User = Annotated[
    str,
    Field(
        max_length=512,
        description="An end user of yours. Only a hash of it goes to the access log.",
    ),
]
Float = Annotated[float, Field(allow_inf_nan=False)]


class StrictModel(BaseModel):
    """A request body or a part of one: unknown fields and wrong types are errors.

    Strict: the string "1" is not an integer, and `true` is not a number.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class QueryModel(BaseModel):
    """A query string: unknown parameters are errors; values are texts, read by their type."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refuse(code: str, message: str) -> PydanticCustomError:
    """A validation error whose `code` reaches the client as `error.code`."""
    # PydanticCustomError formats its template: braces of a client's text must not be fields.
    return PydanticCustomError(code, "{message}", {"message": message})


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Marks a parameter of OpenAI's API that Orrery does not have.

    Null and the `neutral` values, which ask for nothing, are accepted; anything else is refused
    by name. `why` completes the sentence "is not supported: ...".
    """

    why: str
    neutral: tuple[Any, ...] = ()

    def check(self, value: Any) -> None:
        """Raises unless the value asks for nothing. The field always ends as None."""
        # `0 == False` in Python but not in JSON.
        if value is None or any(type(value) is type(n) and value == n for n in self.neutral):
            return
        raise refuse("unsupported_parameter", f"is not supported: {self.why}")

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "enum": [*self.neutral, None],
            "description": f"Not supported: {self.why}.",
        }
