"""What each error is to clients: a status of gRPC, a status of HTTP, and a word for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from google.protobuf.message import DecodeError

from jammi_duck.doors.server.admission import BusyError, GoneError
from jammi_duck.doors.server.identity import UnknownError
from jammi_duck.doors.server.models import ModelDeniedError
from jammi_duck.doors.server.service import LimitError
from jammi_duck.errors import (
    ConfigError,
    DeniedError,
    InputError,
    JammiError,
    ModelError,
    NotFoundError,
    StorageError,
)


class UnsupportedCallError(JammiError):
    """The server has no such call."""


@dataclass(frozen=True)
class Code:
    """A class of errors: the word in bodies of HTTP, the status of HTTP, and the name of gRPC's, if it has one."""

    word: str
    http: int
    grpc: str | None = None

    @property
    def kind(self) -> str:
        """The `type` of an error in OpenAI's API."""
        return "invalid_request_error" if self.http < 500 else "server_error"


BUSY = Code("busy", 429, "RESOURCE_EXHAUSTED")
DENIED = Code("denied", 403, "PERMISSION_DENIED")
INTERNAL = Code("internal", 500, "INTERNAL")
INVALID = Code("invalid", 400, "INVALID_ARGUMENT")
NOT_FOUND = Code("not_found", 404, "NOT_FOUND")
OUT_OF_MEMORY = Code("out_of_memory", 503, "RESOURCE_EXHAUSTED")
TIMEOUT = Code("timeout", 504, "DEADLINE_EXCEEDED")
UNAUTHENTICATED = Code("unauthenticated", 401, "UNAUTHENTICATED")
UNAVAILABLE = Code("unavailable", 503, "CANCELLED")
# An error has it once the server ends, whatever the error is otherwise.
ENDING = Code("ending", 503, "CANCELLED")
# HTTP's own.
METHOD_NOT_ALLOWED = Code("method_not_allowed", 405)
BODY_TIMEOUT = Code("timeout", 408)
TOO_LARGE = Code("too_large", 413)
UNSUPPORTED_MEDIA_TYPE = Code("unsupported_media_type", 415)
# What a status of 499 is to nginx: nobody reads the answer.
LEFT = Code("gone", 499)

# The first that an error is an instance of counts.
_ERRORS: Mapping[type[BaseException], Code] = {
    UnknownError: UNAUTHENTICATED,
    # As OpenAI's API says it, whether there is no such model, or it is not for everybody.
    ModelDeniedError: Code("model_not_found", 404, "PERMISSION_DENIED"),
    ModelError: Code("model_not_found", 404, "INVALID_ARGUMENT"),
    DeniedError: DENIED,
    duckdb.PermissionException: DENIED,
    BusyError: BUSY,
    LimitError: Code("result_too_large", 400, "RESOURCE_EXHAUSTED"),
    GoneError: UNAVAILABLE,
    duckdb.InterruptException: UNAVAILABLE,
    UnsupportedCallError: Code("unsupported", 501, "UNIMPLEMENTED"),
    NotFoundError: NOT_FOUND,
    InputError: INVALID,
    ConfigError: INVALID,
    DecodeError: INVALID,
    pa.ArrowInvalid: INVALID,
    StorageError: Code("storage", 503, "UNAVAILABLE"),
    MemoryError: OUT_OF_MEMORY,
    duckdb.OutOfMemoryException: OUT_OF_MEMORY,
    JammiError: INVALID,
}
_OTHERS = (TIMEOUT, ENDING, INTERNAL, METHOD_NOT_ALLOWED, BODY_TIMEOUT, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE)


def code_of(error: BaseException) -> Code:
    """The class of an error."""
    if isinstance(error, LimitError) and "took longer" in str(error):
        return TIMEOUT
    return next((code for kind, code in _ERRORS.items() if isinstance(error, kind)), INTERNAL)


def words_for(status: int) -> list[str]:
    """The words that bodies with this status of HTTP may have."""
    return list(dict.fromkeys(code.word for code in (*_ERRORS.values(), *_OTHERS) if code.http == status))
