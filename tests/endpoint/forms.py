"""The forms of Cohere, Ollama and Gemini, and which path belongs to which form: from documentation and clients."""

import json
import re
import uuid
from typing import Any, ClassVar

from tests.endpoint.form import Call, Form, RefusedError, base64_of, dimensions_of, object_of, tokens_of
from tests.endpoint.openai_forms import Azure, Jina, OpenAI, Voyage


class Cohere(Form):
    """POST /v2/embed, and /v1/embed."""

    name = "cohere"
    most_texts = 96
    arguments = frozenset(
        {"model", "texts", "input_type", "embedding_types", "truncate", "output_dimension", "max_tokens", "priority"}
    )
    roles: ClassVar = {
        "search_document": "document",
        "search_query": "query",
        "classification": "classification",
        "clustering": "clustering",
    }

    def wrong_key(self, key):
        return RefusedError(401, "invalid api token" if key else "no api key supplied")

    def no_model(self, model):
        return RefusedError(
            404,
            f"model '{model}' not found, make sure the correct model ID was used and that you have access to it.",
        )

    def too_many(self, count, most):
        return RefusedError(400, f"invalid request: total number of texts must be at most {most} - received {count}")

    def too_long(self, call, most):
        return RefusedError(400, f"too many tokens: at most {most} per request - received {call.tokens}")

    def read(self, path, payload):
        unknown = sorted(set(object_of(payload)) - self.arguments)
        if unknown:
            raise RefusedError(400, f"invalid type: unknown field: parameter '{unknown[0]}' is not a valid field")
        model, texts = payload.get("model"), payload.get("texts")
        if not isinstance(model, str) or not model:
            raise RefusedError(400, "invalid request: model is required.")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise RefusedError(400, "invalid request: texts or inputs must be set")
        if payload.get("input_type") not in self.roles:
            raise RefusedError(400, "invalid request: valid input_type must be provided with the provided model")
        if payload.get("truncate", "END") not in ("NONE", "START", "END"):
            raise RefusedError(400, "invalid request: truncate must be one of NONE, START or END")
        kinds = payload.get("embedding_types") or ([] if path["version"] == "1" else ["float"])
        if set(kinds) - {"float", "base64"}:
            raise RefusedError(
                400, "invalid request: this endpoint is played, and has embeddings of type float and base64"
            )
        if payload.get("truncate") == "NONE" and max(map(tokens_of, texts)) > 512:
            raise RefusedError(400, "too long: a text has more than 512 tokens")
        call = Call(model, texts, dimensions_of(payload, "output_dimension"), self.roles[payload["input_type"]])
        if call.dimensions and model.endswith("v3.0"):
            raise RefusedError(400, "invalid request: output_dimension is not supported by the provided model")
        call.version, call.extra = path["version"], {"kinds": kinds}
        return call

    def answer(self, call, items):
        kinds = call.extra["kinds"]
        floats = f"[{', '.join(item.json() for item in items)}]"
        vectors = floats if not kinds else f"{{{', '.join(self._typed(kind, floats, items) for kind in kinds)}}}"
        rest = {
            "texts": list(call.texts),
            "meta": {"api_version": {"version": call.version}, "billed_units": {"input_tokens": call.tokens}},
            "response_type": "embeddings_by_type" if kinds else "embeddings_floats",
        }
        return f'{{"id": "{uuid.uuid4()}", "embeddings": {vectors}, {json.dumps(rest)[1:]}'

    def _typed(self, kind, floats, items):
        return f'"float": {floats}' if kind == "float" else f'"base64": [{", ".join(map(base64_of, items))}]'

    def error(self, status, message, code=None):
        return json.dumps({"id": str(uuid.uuid4()), "message": message})


class Ollama(Form):
    """POST /api/embed; it wants no key, but what stands before it may."""

    name = "ollama"
    needs_key = False

    def too_many(self, count, most):
        return RefusedError(400, f"too many inputs: {count}, at most {most}")

    def too_long(self, call, most):
        return RefusedError(400, "the input length exceeds the context length")

    def wrong_key(self, key):
        return RefusedError(401, "unauthorized")

    def no_model(self, model):
        return RefusedError(404, f'model "{model}" not found, try pulling it first')

    def read(self, path, payload):
        model, given = object_of(payload).get("model"), payload.get("input")
        texts = [given] if isinstance(given, str) else [] if given is None else given
        if not isinstance(model, str) or not model:
            raise RefusedError(400, "model is required")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise RefusedError(400, "invalid input type")
        if payload.get("truncate") is False and texts and max(map(tokens_of, texts)) > 2048:
            raise RefusedError(400, "the input length exceeds the context length")
        return Call(model.removesuffix(":latest"), texts, dimensions_of(payload, "dimensions"))

    def answer(self, call, items):
        vectors = ", ".join(item.json() for item in items)
        rest = {"total_duration": 14143917, "load_duration": 1019500, "prompt_eval_count": call.tokens}
        return f'{{"model": {json.dumps(call.model)}, "embeddings": [{vectors}], {json.dumps(rest)[1:]}'

    def error(self, status, message, code=None):
        return json.dumps({"error": message})


class Gemini(Form):
    """POST /v1beta/models/NAME:batchEmbedContents of the Gemini API."""

    name = "gemini"
    most_texts = 100
    roles: ClassVar = {None: "document", "RETRIEVAL_DOCUMENT": "document", "RETRIEVAL_QUERY": "query"}
    statuses: ClassVar = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
                          429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}  # fmt: skip

    def key(self, headers):
        return headers.get("x-goog-api-key")

    def wrong_key(self, key):
        if not key:
            return RefusedError(
                403, "Method doesn't allow unregistered callers (callers without established identity)."
            )
        return RefusedError(400, "API key not valid. Please pass a valid API key.", "API_KEY_INVALID")

    def no_model(self, model):
        return RefusedError(
            404, f"models/{model} is not found for API version v1beta, or is not supported for embedContent."
        )

    def too_many(self, count, most):
        return RefusedError(400, f"* BatchEmbedContentsRequest.requests: at most {most} requests can be in one batch\n")

    def too_long(self, call, most):
        return RefusedError(
            400, f"The input token count ({call.tokens}) exceeds the maximum number of tokens ({most})."
        )

    def read(self, path, payload):
        requests = object_of(payload).get("requests")
        if not isinstance(requests, list) or not requests:
            raise RefusedError(400, "* BatchEmbedContentsRequest.requests: must not be empty\n")
        for i, each in enumerate(requests):
            if object_of(each).get("model") != f"models/{path['model']}":
                raise RefusedError(
                    400, f"* BatchEmbedContentsRequest.requests[{i}].model: model must match the batch's model\n"
                )
        try:
            texts = ["".join(part["text"] for part in each["content"]["parts"]) for each in requests]
        except (KeyError, TypeError):
            raise RefusedError(400, "* BatchEmbedContentsRequest.requests[0].content: content is required.\n") from None
        if not all(texts):
            raise RefusedError(400, "* EmbedContentRequest.content: content contains an empty Part.\n")
        if len({(each.get("taskType"), each.get("outputDimensionality")) for each in requests}) > 1:
            raise RefusedError(400, "this endpoint is played, and wants the same of each request of a batch")
        dimensions = dimensions_of(requests[0], "outputDimensionality")
        call = Call(path["model"], texts, dimensions, self.roles.get(requests[0].get("taskType"), "other"))
        # The real one gives vectors of length 1 only if they are not shortened.
        call.vectors_scale = 0.75 if dimensions else 1
        return call

    def answer(self, call, items):
        return f'{{"embeddings": [{", ".join(f"""{{"values": {item.json()}}}""" for item in items)}]}}'

    def error(self, status, message, code=None):
        error: dict[str, Any] = {"code": status, "message": message, "status": self.statuses.get(status, "UNKNOWN")}
        if code:
            error["details"] = [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "googleapis.com"}
            ]
        return json.dumps({"error": error})


_PATHS = [
    (re.compile("/v1/embeddings"), OpenAI()),
    (re.compile("/openai/deployments/(?P<deployment>[^/]+)/embeddings"), Azure()),
    (re.compile("/openai/v1/embeddings"), Azure()),
    (re.compile("/v(?P<version>[12])/embed"), Cohere()),
    (re.compile("/voyage/v1/embeddings"), Voyage()),
    (re.compile("/jina/v1/embeddings"), Jina()),
    (re.compile("/api/embed"), Ollama()),
    (re.compile("/v1beta/models/(?P<model>[^/:]+):batchEmbedContents"), Gemini()),
]


def form_of(path: str) -> tuple[Form, dict[str, str]] | None:
    """The form that a path belongs to, and the parts of the path that have names; None if it is no form's."""
    for pattern, form in _PATHS:
        match = pattern.fullmatch(path)
        if match:
            return form, match.groupdict()
    return None
