"""The form of OpenAI, and those of Azure, Voyage AI and Jina AI, which are like it: from documentation and clients."""

import json
import re
from typing import ClassVar

from tests.endpoint.form import Call, Form, RefusedError, base64_of, dimensions_of, object_of, tokens_of


class OpenAI(Form):
    """POST /v1/embeddings of OpenAI, and of all who copy it."""

    name = "openai"
    most_texts = 2048
    most_tokens = 300_000
    most_tokens_each = 8192
    arguments = frozenset({"model", "input", "dimensions", "encoding_format", "user"})

    def wrong_key(self, key):
        if not key:
            return RefusedError(
                401, "You didn't provide an API key. You need to provide your API key in an Authorization header."
            )
        shown = key if len(key) < 13 else f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}"
        message = f"Incorrect API key provided: {shown}. You can find your API key at https://platform.openai.com/account/api-keys."
        return RefusedError(401, message, "invalid_api_key")

    def no_model(self, model):
        return RefusedError(
            404, f"The model `{model}` does not exist or you do not have access to it.", "model_not_found"
        )

    def too_many(self, count, most):
        message = f"Invalid 'input': array too long. Expected an array with maximum length {most}, but got {count}."
        return RefusedError(400, message, "array_above_max_length")

    def too_long(self, call, most):
        message = f"Requested {call.tokens} tokens, max {most} tokens per request"
        return RefusedError(400, message, "max_tokens_per_request")

    def read(self, path, payload, *, is_cut=False):
        unknown = sorted(set(object_of(payload)) - self.arguments)
        if unknown:
            raise RefusedError(400, f"Unrecognized request argument supplied: {unknown[0]}")
        model = payload.get("model", path.get("deployment"))
        if not isinstance(model, str) or not model:
            raise RefusedError(400, "you must provide a model parameter")
        texts = self._texts(payload.get("input"), is_cut)
        if payload.get("encoding_format", "float") not in ("float", "base64"):
            raise RefusedError(
                400, f"Invalid value: '{payload['encoding_format']}'. Supported values are: 'float' and 'base64'."
            )
        call = Call(
            model, texts, dimensions_of(payload, "dimensions"), is_base64=payload.get("encoding_format") == "base64"
        )
        if call.dimensions and model == "text-embedding-ada-002":
            raise RefusedError(400, "This model does not support specifying dimensions.")
        return call

    def _texts(self, given, is_cut):
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise RefusedError(
                400,
                "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
            )
        most = max(map(tokens_of, texts))
        if most > self.most_tokens_each and not is_cut:
            raise RefusedError(
                400,
                f"This model's maximum context length is {self.most_tokens_each} tokens, however you requested {most} "
                f"tokens ({most} in your prompt; 0 for the completion). Please reduce your prompt.",
            )
        return texts

    def answer(self, call, items):
        data = ", ".join(
            f'{{"object": "embedding", {self._index(item)}"embedding": {self._vector(call, item)}}}' for item in items
        )
        usage = {"prompt_tokens": call.tokens, "total_tokens": call.tokens}
        return (
            f'{{"object": "list", "data": [{data}], "model": {json.dumps(call.model)}, "usage": {json.dumps(usage)}}}'
        )

    def _index(self, item):
        return "" if item.index is None else f'"index": {json.dumps(item.index)}, '

    def _vector(self, call, item):
        return base64_of(item) if call.is_base64 and item.written is None else item.json()

    def error(self, status, message, code=None):
        kinds = {429: "requests", 500: "server_error", 503: "server_error"}
        kind = (
            code
            if code in ("insufficient_quota", "max_tokens_per_request")
            else kinds.get(status, "invalid_request_error")
        )
        return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


class Azure(OpenAI):
    """The same under Azure's paths, with Azure's header, and its codes."""

    name = "azure"

    def key(self, headers):
        return headers.get("api-key") or super().key(headers)

    def wrong_key(self, key):
        message = (
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for "
            "an active subscription and use a correct regional API endpoint for your resource."
        )
        return RefusedError(401, message, "401")

    def no_model(self, model):
        return RefusedError(404, "The API deployment for this resource does not exist.", "DeploymentNotFound")

    def read(self, path, payload):
        if "deployment" in path and not path.get("api-version"):
            raise RefusedError(404, "Resource not found", "404")
        call = super().read(path, payload)
        call.model = path.get("deployment", call.model)
        return call

    def error(self, status, message, code=None):
        return json.dumps({"error": {"code": code or str(status), "message": message}})


class Detailed(OpenAI):
    """What Voyage and Jina have in common: OpenAI's answer, and errors of another form."""

    def wrong_key(self, key):
        return RefusedError(401, "Provided API key is invalid.")

    def no_model(self, model):
        return RefusedError(400, f"Model '{model}' not found")

    def error(self, status, message, code=None):
        return json.dumps({"detail": message})

    def answer(self, call, items):
        body = super().answer(call, items)
        return re.sub(r'"usage": {"prompt_tokens": \d+, ', '"usage": {', body)


class Voyage(Detailed):
    """POST /v1/embeddings of Voyage AI."""

    name = "voyage"
    most_texts = 1000
    most_tokens = 120_000
    most_tokens_each = 32_000
    arguments = frozenset(
        {"model", "input", "input_type", "truncation", "output_dimension", "output_dtype", "encoding_format"}
    )

    def too_many(self, count, most):
        return RefusedError(400, f"The batch size limit is {most}. Your batch size is {count}.")

    def too_long(self, call, most):
        return RefusedError(
            400,
            f"Request to model '{call.model}' failed. The max allowed tokens per submitted batch is {most}. Your batch "
            f"has {call.tokens} tokens after truncation. Please lower the number of tokens in the batch.",
        )

    def read(self, path, payload):
        kind = object_of(payload).get("input_type")
        if kind not in (None, "query", "document"):
            raise RefusedError(
                400, f"Input type {kind!r} is not supported. Supported input types are 'query', 'document' and None."
            )
        if payload.get("output_dtype", "float") != "float":
            raise RefusedError(400, "this endpoint is played, and has an output_dtype of float")
        if payload.get("encoding_format") not in (None, "base64"):
            raise RefusedError(400, "encoding_format must be None or 'base64'")
        unknown = sorted(set(payload) - self.arguments)
        if unknown:
            raise RefusedError(400, f"Argument '{unknown[0]}' is not supported by our API.")
        given = {"model": payload.get("model"), "input": payload.get("input")}
        call = super().read(path, given, is_cut=payload.get("truncation") is not False)
        call.dimensions = dimensions_of(payload, "output_dimension")
        call.role, call.is_base64 = kind or "document", payload.get("encoding_format") == "base64"
        return call


class Jina(Detailed):
    """POST /v1/embeddings of Jina AI."""

    name = "jina"
    most_texts = 512
    most_tokens_each = 8192
    arguments = frozenset(
        {"model", "input", "task", "dimensions", "embedding_type", "normalized", "truncate", "late_chunking"}
    )
    tasks: ClassVar = {
        None: "document",
        "retrieval.passage": "document",
        "retrieval.query": "query",
        "text-matching": "matching",
        "classification": "classification",
        "separation": "separation",
    }

    def too_many(self, count, most):
        return RefusedError(400, f"Validation error: 'body' Each input list can contain at most {most} items..")

    def read(self, path, payload):
        unknown = sorted(set(object_of(payload)) - self.arguments)
        if unknown:
            raise RefusedError(422, f"Validation error: 'body' Extra inputs are not permitted: {unknown[0]}")
        if payload.get("task") not in self.tasks:
            raise RefusedError(
                422, f"Validation error: 'body -> task' Input should be one of {sorted(filter(None, self.tasks))}"
            )
        if payload.get("embedding_type", "float") not in ("float", "base64"):
            raise RefusedError(
                422, "Validation error: 'body -> embedding_type' this endpoint is played, and has float and base64"
            )
        texts = payload.get("input")
        if isinstance(texts, list):
            texts = [text["text"] if isinstance(text, dict) and set(text) == {"text"} else text for text in texts]
        given = {"model": payload.get("model"), "input": texts}
        call = super().read(path, given, is_cut=payload.get("truncate") is True)
        call.dimensions, call.role = dimensions_of(payload, "dimensions"), self.tasks[payload.get("task")]
        call.is_base64 = payload.get("embedding_type") == "base64"
        return call
