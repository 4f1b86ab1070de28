"""The played endpoint is right: the real clients of OpenAI, Azure, Cohere and Ollama understand it."""

import asyncio
import base64
import gzip
import http.client
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import cohere
import httpx
import numpy as np
import ollama
import openai
import pytest

from tests.endpoint import Endpoint, text_of, vector_of, vectors_of
from tests.endpoint.acts import NAMED, Act, echo, failing, flood, limited, rate_headers, redirect
from tests.endpoint.server import KEY

TEXTS = ["a duck", "water", "naïve 🦆", "a duck swims in water"]


@pytest.fixture
def endpoint():
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def client(endpoint):
    with openai.OpenAI(api_key=KEY, base_url=endpoint.url("openai"), max_retries=0, timeout=10) as client:
        yield client


def post(endpoint, path, payload, headers=None):
    """The status, the headers and the body of an answer, as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    try:
        connection.request("POST", path, body, {"Authorization": f"Bearer {KEY}"} if headers is None else headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def ask(endpoint, texts=TEXTS, **options):
    return post(endpoint, "/v1/embeddings", {"model": "any", "input": texts, **options})


class TestVectors:
    @pytest.mark.parametrize("dimensions", [1, 2, 3, 16, 17, 32, 64, 100, 1536])
    def test_they_have_length_1(self, dimensions):
        vectors = vectors_of(TEXTS, dimensions)
        assert vectors.shape == (4, dimensions)
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
        assert (vectors[1] == vector_of("water", dimensions)).all()

    def test_each_tells_its_text_and_its_role(self):
        texts = [f"text {i}" for i in range(1000)]
        for role in ("document", "query", "classification"):
            for text in texts[::100]:
                vector = vector_of(text, 16, role) * 3
                assert text_of(vector, texts, ("document", "query", "classification")) == (text, role)
        assert text_of(vector_of("another", 16), texts, ("document", "query")) == ("", "")

    def test_a_query_is_nearest_to_the_same_text(self):
        texts = [f"text {i}" for i in range(1000)]
        near = vectors_of(texts, 16) @ vector_of("text 7", 16, "query")
        assert near.argmax() == 7
        assert near[7] == pytest.approx(np.cos(0.3), abs=1e-5)


class TestOpenAI:
    def test_the_client_gets_each_vector(self, endpoint, client):
        answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
        assert [item.index for item in answer.data] == [0, 1, 2, 3]
        assert np.array_equal(np.array([item.embedding for item in answer.data], np.float32), vectors_of(TEXTS, 1536))
        assert (answer.model, answer.object) == ("text-embedding-3-small", "list")
        assert answer.usage.total_tokens == answer.usage.prompt_tokens == 2 + 2 + 2 + 6
        assert endpoint.requests[0].payload["encoding_format"] == "base64"

    @pytest.mark.parametrize("encoding_format", ["float", "base64"])
    @pytest.mark.parametrize("dimensions", [3, 16, 256])
    def test_the_formats(self, client, encoding_format, dimensions):
        answer = client.embeddings.create(
            model="any", input="a duck", dimensions=dimensions, encoding_format=encoding_format
        )
        given = answer.data[0].embedding
        if encoding_format == "base64":
            given = np.frombuffer(base64.b64decode(given), "<f4")
        assert np.array_equal(np.array(given, np.float32), vector_of("a duck", dimensions))

    def test_many_at_once(self, endpoint):
        together = threading.Barrier(8)
        endpoint.acts = lambda _: Act("together", lambda exchange: (together.wait(10), NAMED["ok"](exchange)))
        batches = [[f"text {i} of {batch}" for i in range(10)] for batch in range(8)]

        async def all_batches():
            async with openai.AsyncOpenAI(api_key=KEY, base_url=endpoint.url("openai")) as client:
                calls = [client.embeddings.create(model="any", input=batch, dimensions=16) for batch in batches]
                return await asyncio.gather(*calls)

        for batch, answer in zip(batches, asyncio.run(all_batches()), strict=True):
            assert np.allclose([item.embedding for item in answer.data], vectors_of(batch, 16))
        assert endpoint.sums == {"requests": 8, "texts": 80, "at_once": 8}

    def test_a_connection_is_kept(self, endpoint, client):
        for _ in range(3):
            client.embeddings.create(model="any", input="a duck")
        assert endpoint.connections == 1
        assert [request.number for request in endpoint.requests] == [0, 1, 2]

    @pytest.mark.parametrize("key", ["sk-wrong-0123456789abcdef", "short"])
    def test_a_wrong_key(self, endpoint, client, key):
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided") as caught:
            client.with_options(api_key=key).embeddings.create(model="any", input="a duck")
        assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
        assert caught.value.body["type"] == "invalid_request_error"
        # The real one hides the middle of a key.
        assert ("sk-wrong*************cdef" in str(caught.value)) == (key != "short")

    def test_an_unknown_model(self, endpoint, client):
        endpoint.models = ["mine"]
        assert client.embeddings.create(model="mine", input="a duck").data
        with pytest.raises(openai.NotFoundError, match="`yours` does not exist") as caught:
            client.embeddings.create(model="yours", input="a duck")
        assert caught.value.code == "model_not_found"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"input": [1, 2, 3]}, "is invalid"),
            ({"input": [[1, 2], [3]]}, "is invalid"),
            ({"input": ""}, "is invalid"),
            ({"input": ["a", ""]}, "is invalid"),
            ({"input": ["a"] * 2049}, "maximum length 2048"),
            ({"input": "word " * 8000}, "maximum context length is 8192"),
            ({"input": ["word " * 6000] * 41}, "max 300000 tokens per request"),
            ({"input": "a", "dimensions": 0}, "dimensions"),
            ({"input": "a", "encoding_format": "hex"}, "Supported values"),
            ({"input": "a", "extra_body": {"input_type": "query"}}, "Unrecognized request argument"),
            ({"input": "a", "model": "text-embedding-ada-002", "dimensions": 8}, "does not support"),
        ],
    )
    def test_what_is_refused(self, client, arguments, message):
        with pytest.raises(openai.BadRequestError, match=message):
            client.embeddings.create(**{"model": "any", **arguments})

    def test_a_text_is_refused(self, endpoint, client):
        endpoint.refuses = "poison"
        with pytest.raises(openai.BadRequestError, match="refused"):
            client.embeddings.create(model="any", input=["a", "some poison"])
        assert client.embeddings.create(model="any", input=["a"]).data

    @pytest.mark.parametrize("act", [limited(0.3), limited(0.3, milliseconds=True), limited(0.3, as_date=True)])
    def test_the_client_waits_as_long_as_it_is_told(self, endpoint, client, act):
        endpoint.acts = [act]
        client.with_options(max_retries=1).embeddings.create(model="any", input="a duck")
        first, second = endpoint.requests
        assert (first.status, second.status) == (429, 200)
        assert second.began - first.began >= 0.29

    def test_rate_limits_in_headers(self, endpoint, client):
        endpoint.acts = [limited(headers=rate_headers(0.12))]
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model="any", input="a duck")
        assert caught.value.response.headers["x-ratelimit-reset-requests"] == "120ms"

    @pytest.mark.parametrize(
        ("act", "error"),
        [
            ("429 out of quota", openai.RateLimitError),
            ("500", openai.InternalServerError),
            ("503", openai.InternalServerError),
            ("403", openai.PermissionDeniedError),
            ("409", openai.ConflictError),
            ("422", openai.UnprocessableEntityError),
            ("html 502", openai.InternalServerError),
            ("reset", openai.APIConnectionError),
            ("reset within", openai.APIConnectionError),
            ("closed", openai.APIConnectionError),
            ("truncated", openai.APIConnectionError),
            ("chunks end early", openai.APIConnectionError),
            ("hang", openai.APITimeoutError),
            ("stall", openai.APITimeoutError),
        ],
    )
    def test_errors_are_of_the_client_s_classes(self, endpoint, client, act, error):
        endpoint.acts = [act]
        with pytest.raises(error):
            client.with_options(timeout=0.5).embeddings.create(model="any", input=TEXTS)
        assert [request.act for request in endpoint.requests] == [NAMED[act].name]
        assert client.embeddings.create(model="any", input="a duck").data

    def test_out_of_quota(self, endpoint, client):
        endpoint.acts = ["429 out of quota"]
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model="any", input="a duck")
        assert caught.value.code == caught.value.type == "insufficient_quota"

    @pytest.mark.parametrize("act", ["chunked", "gzip", "hints", "drip"])
    def test_answers_that_come_in_other_ways(self, endpoint, client, act):
        endpoint.acts = [act]
        answer = client.embeddings.create(model="any", input=TEXTS, dimensions=16)
        assert np.allclose([item.embedding for item in answer.data], vectors_of(TEXTS, 16))
        assert endpoint.answered == TEXTS


class TestAzure:
    def test_the_client(self, endpoint):
        arguments = {"azure_endpoint": endpoint.url(), "api_version": "2024-10-21", "max_retries": 0}
        with openai.AzureOpenAI(api_key=KEY, **arguments) as client:
            answer = client.embeddings.create(model="mine", input=TEXTS, dimensions=16)
            assert np.allclose([item.embedding for item in answer.data], vectors_of(TEXTS, 16))
            (request,) = endpoint.requests
            assert request.path == "/openai/deployments/mine/embeddings"
            assert request.query == {"api-version": "2024-10-21"}
            assert request.headers["api-key"] == KEY
            assert "authorization" not in request.headers
            endpoint.models = ["other"]
            with pytest.raises(openai.NotFoundError) as caught:
                client.embeddings.create(model="mine", input="a duck")
            assert caught.value.code == "DeploymentNotFound"
        with openai.AzureOpenAI(api_key="wrong", **arguments) as client:
            with pytest.raises(openai.AuthenticationError, match="invalid subscription key"):
                client.embeddings.create(model="mine", input="a duck")

    def test_a_version_is_needed(self, endpoint):
        path, payload = "/openai/deployments/mine/embeddings", {"input": "a"}
        assert post(endpoint, path, payload, {"api-key": KEY})[0] == 404
        assert post(endpoint, path + "?api-version=1", payload, {"api-key": KEY})[0] == 200
        with openai.OpenAI(api_key=KEY, base_url=endpoint.url() + "/openai/v1") as client:
            assert client.embeddings.create(model="mine", input="a").model == "mine"


@pytest.fixture
def cohere_client(endpoint):
    """`cohere_client()` is one of version 2; `cohere_client(cohere.Client)` is one of version 1."""
    with httpx.Client(timeout=10) as transport:
        yield lambda kind=cohere.ClientV2, key=KEY: kind(key, base_url=endpoint.url(), httpx_client=transport)


class TestCohere:
    @pytest.mark.parametrize(
        ("input_type", "role"),
        [("search_document", "document"), ("search_query", "query"), ("classification", "classification")],
    )
    def test_version_2(self, endpoint, cohere_client, input_type, role):
        client = cohere_client()
        answer = client.embed(
            model="embed-v4.0", input_type=input_type, texts=TEXTS, embedding_types=["float"], output_dimension=16
        )
        assert np.allclose(answer.embeddings.float_, vectors_of(TEXTS, 16, role))
        assert answer.texts == TEXTS
        assert answer.meta.billed_units.input_tokens == 12
        assert (endpoint.requests[0].path, endpoint.requests[0].role) == ("/v2/embed", role)

    def test_version_2_in_base64(self, endpoint, cohere_client):
        client = cohere_client()
        answer = client.embed(
            model="embed-english-v3.0", input_type="search_query", texts=["a"], embedding_types=["float", "base64"]
        )
        given = np.frombuffer(base64.b64decode(answer.embeddings.base64[0]), "<f4")
        assert np.array_equal(given, vector_of("a", 1024, "query"))
        assert np.allclose(answer.embeddings.float_, given)

    def test_version_1(self, endpoint, cohere_client):
        client = cohere_client(cohere.Client)
        many = [f"text {i}" for i in range(200)]
        answer = client.embed(texts=many, model="embed-english-light-v3.0", input_type="search_document")
        assert np.allclose(answer.embeddings, vectors_of(many, 384))
        assert answer.response_type == "embeddings_floats"
        assert sorted(len(request.texts) for request in endpoint.requests) == [8, 96, 96]
        by_type = client.embed(
            texts=["a"], model="any", input_type="search_query", embedding_types=["float"], batching=False
        )
        assert np.allclose(by_type.embeddings.float_, [vector_of("a", 64, "query")])

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"texts": ["a"] * 97}, cohere.BadRequestError, "at most 96 - received 97"),
            ({"texts": []}, cohere.BadRequestError, "texts or inputs must be set"),
            ({"input_type": "other"}, cohere.BadRequestError, "valid input_type"),
            ({"truncate": "NONE", "texts": ["word " * 1000]}, cohere.BadRequestError, "too long"),
            ({"model": "embed-english-v3.0", "output_dimension": 8}, cohere.BadRequestError, "not supported"),
            ({"model": "unknown"}, cohere.NotFoundError, "model 'unknown' not found"),
        ],
    )
    def test_what_is_refused(self, endpoint, cohere_client, arguments, error, message):
        endpoint.models = ["any", "embed-english-v3.0"]
        client = cohere_client()
        with pytest.raises(error) as caught:
            client.embed(**{"model": "any", "input_type": "search_document", "texts": ["a"], **arguments})
        assert message in caught.value.body["message"]

    def test_a_wrong_key(self, endpoint, cohere_client):
        client = cohere_client(key="wrong")
        with pytest.raises(cohere.UnauthorizedError) as caught:
            client.embed(model="any", input_type="search_document", texts=["a"])
        assert caught.value.body["message"] == "invalid api token"

    def test_the_client_waits_as_long_as_it_is_told(self, endpoint, cohere_client):
        endpoint.acts = [limited(1), failing(503, headers={"Retry-After": "1"})]
        client = cohere_client()
        client.embed(model="any", input_type="search_document", texts=["a"])
        began = [request.began for request in endpoint.requests]
        assert [request.status for request in endpoint.requests] == [429, 503, 200]
        assert min(np.diff(began)) >= 1


class TestOllama:
    def test_the_client(self, endpoint):
        with ollama.Client(endpoint.url()) as client:
            answer = client.embed("nomic-embed-text", TEXTS)
            assert np.allclose(answer.embeddings, vectors_of(TEXTS, 768))
            assert (answer.model, answer.prompt_eval_count) == ("nomic-embed-text", 12)
            assert np.allclose(client.embed("any", "a duck", dimensions=16).embeddings, [vector_of("a duck", 16)])
            assert client.embed("any", []).embeddings == []
        assert "authorization" not in endpoint.requests[0].headers

    def test_errors(self, endpoint):
        endpoint.models = ["mine"]
        with ollama.Client(endpoint.url()) as client:
            assert client.embed("mine:latest", "a").embeddings
            with pytest.raises(ollama.ResponseError, match="try pulling it first") as caught:
                client.embed("yours", "a")
            assert caught.value.status_code == 404
            with pytest.raises(ollama.ResponseError, match="exceeds the context length"):
                client.embed("mine", "word " * 5000, truncate=False)
            endpoint.acts = lambda _: failing(500, "failed to encode response: json: unsupported value: NaN")
            with pytest.raises(ollama.ResponseError, match="unsupported value: NaN"):
                client.embed("mine", "a")

    def test_a_key_is_not_needed_but_may_be_wrong(self, endpoint):
        with ollama.Client(endpoint.url(), headers={"Authorization": "Bearer wrong"}) as client:
            with pytest.raises(ollama.ResponseError, match="unauthorized"):
                client.embed("mine", "a")


class TestOthers:
    """Their clients need many packages; Voyage's and Jina's answers are OpenAI's, but for the sum of tokens."""

    def test_voyage(self, endpoint):
        payload = {"model": "voyage-3.5", "input": TEXTS, "input_type": "query", "output_dimension": 256}
        status, _, body = post(endpoint, "/voyage/v1/embeddings", payload)
        answer = json.loads(body)
        assert (status, answer["usage"]) == (200, {"total_tokens": 12})
        assert np.allclose([item["embedding"] for item in answer["data"]], vectors_of(TEXTS, 256, "query"))
        assert post(endpoint, "/voyage/v1/embeddings", {**payload, "input": "a", "input_type": None})[0] == 200
        with_tokens = post(endpoint, "/voyage/v1/embeddings", {**payload, "input": ["word " * 20_000] * 5})
        assert with_tokens[0] == 400
        assert "max allowed tokens per submitted batch is 120000" in json.loads(with_tokens[2])["detail"]
        assert post(endpoint, "/voyage/v1/embeddings", {**payload, "input_type": "other"})[0] == 400
        assert post(endpoint, "/voyage/v1/embeddings", payload, {})[0] == 401

    def test_voyage_and_jina_through_a_client(self, endpoint):
        for form in ("voyage", "jina"):
            with openai.OpenAI(api_key=KEY, base_url=endpoint.url(form)) as client:
                names = {"voyage": ("encoding_format", "output_dimension"), "jina": ("embedding_type", "dimensions")}
                options = dict(zip(names[form], ("base64", 16), strict=True))
                answer = client.post("/embeddings", body={"model": "any", "input": ["a"], **options}, cast_to=dict)
            given = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
            assert np.array_equal(given, vector_of("a", 16))

    def test_jina(self, endpoint):
        payload = {"model": "jina-embeddings-v3", "input": TEXTS, "task": "retrieval.query", "dimensions": 64}
        status, _, body = post(endpoint, "/jina/v1/embeddings", payload)
        assert status == 200
        assert np.allclose([item["embedding"] for item in json.loads(body)["data"]], vectors_of(TEXTS, 64, "query"))
        as_objects = {**payload, "input": [{"text": text} for text in TEXTS], "task": "retrieval.passage"}
        assert post(endpoint, "/jina/v1/embeddings", as_objects)[0] == 200
        assert endpoint.requests[-1].texts == TEXTS
        assert post(endpoint, "/jina/v1/embeddings", {**payload, "input": ["a"] * 513})[0] == 400
        assert post(endpoint, "/jina/v1/embeddings", {**payload, "task": "other"})[0] == 422

    def test_gemini(self, endpoint):
        def asked(texts, key=KEY, **options):
            requests = [
                {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]}, **options}
                for text in texts
            ]
            path = "/v1beta/models/gemini-embedding-001:batchEmbedContents"
            status, _, body = post(endpoint, path, {"requests": requests}, {"x-goog-api-key": key} if key else {})
            return status, json.loads(body)

        status, answer = asked(TEXTS, taskType="RETRIEVAL_QUERY")
        assert status == 200
        assert np.allclose([each["values"] for each in answer["embeddings"]], vectors_of(TEXTS, 3072, "query"))
        status, answer = asked(TEXTS, taskType="RETRIEVAL_DOCUMENT", outputDimensionality=16)
        # Shortened ones are not of length 1.
        assert np.allclose([each["values"] for each in answer["embeddings"]], vectors_of(TEXTS, 16) * 0.75)
        status, answer = asked(["a"] * 101)
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
        assert "at most 100 requests" in answer["error"]["message"]
        # A wrong key is no 401 here.
        status, answer = asked(["a"], key="wrong")
        assert (status, answer["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")
        assert asked(["a"], key=None)[0] == 403


class TestActs:
    """What the hostile tests rely on: that each act does to the bytes what its name says."""

    @pytest.mark.parametrize("name", NAMED)
    def test_each_ends_and_the_endpoint_goes_on(self, endpoint, name):
        endpoint.acts = [name]
        client = threading.Thread(target=_look_at, args=(endpoint,))
        client.start()
        client.join(30)
        assert not client.is_alive()
        assert ask(endpoint, ["a"], dimensions=16)[0] == 200

    def test_reordered(self, endpoint):
        endpoint.acts = ["reordered"]
        data = json.loads(ask(endpoint, dimensions=16)[2])["data"]
        assert [item["index"] for item in data] == [3, 2, 1, 0]
        assert np.allclose([item["embedding"] for item in data], vectors_of(TEXTS, 16)[::-1])

    @pytest.mark.parametrize(
        ("name", "indexes"),
        [
            ("index twice", [0, 1, 2, 0]),
            ("no index", [None] * 4),
            ("index beyond", [0, 1, 2, 9]),
            ("index negative", [0, 1, 2, -1]),
            ("index as text", ["0", "1", "2", "3"]),
            ("one short", [0, 1, 2]),
            ("none at all", []),
            ("one more", [0, 1, 2, 3, 4]),
        ],
    )
    def test_indexes(self, endpoint, name, indexes):
        endpoint.acts = [name]
        assert [item.get("index") for item in json.loads(ask(endpoint)[2])["data"]] == indexes

    @pytest.mark.parametrize(
        ("name", "lengths"),
        [
            ("one is longer", [17, 16, 16, 16]),
            ("all are longer", [17] * 4),
            ("one is empty", [0, 16, 16, 16]),
            ("all are empty", [0] * 4),
        ],
    )
    def test_widths(self, endpoint, name, lengths):
        endpoint.acts = [name]
        data = json.loads(ask(endpoint, dimensions=16)[2])["data"]
        assert [len(item["embedding"]) for item in data] == lengths

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "null", "true", '"0.5"', "1e400", "{}"])
    def test_numbers_in_json(self, endpoint, number):
        endpoint.acts = [f"one has {number}"]
        first = ask(endpoint, dimensions=16)[2].split(b"]")[0]
        assert first.split(b", ")[-15] == number.encode()

    @pytest.mark.parametrize("number", ["NaN", "Infinity"])
    def test_numbers_in_base64(self, endpoint, number):
        endpoint.acts = [f"one has {number}"]
        data = json.loads(ask(endpoint, dimensions=16, encoding_format="base64")[2])["data"]
        given = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data]
        assert [not np.isfinite(vector).all() for vector in given] == [True, False, False, False]
        assert len(given[0]) == 16

    @pytest.mark.parametrize("form", ["openai", "cohere", "ollama"])
    def test_they_happen_in_each_form(self, endpoint, form):
        endpoint.acts = ["one short", "one has NaN", "all are longer", "500"]
        found = [_vectors(endpoint, form) for _ in range(4)]
        assert len(found[0]) == 3
        assert np.isnan(found[1][0][1])
        assert [len(vector) for vector in found[2]] == [65] * 4
        assert found[3] == 500

    def test_a_redirect_and_an_echo(self, endpoint):
        endpoint.acts = [redirect(308, "http://localhost:9/v1/embeddings"), echo(400)]
        status, headers, _ = ask(endpoint)
        assert (status, headers["Location"]) == (308, "http://localhost:9/v1/embeddings")
        status, _, body = ask(endpoint)
        assert (status, body.count(KEY.encode())) == (400, 3)

    def test_a_flood_is_a_good_answer_behind_much(self, endpoint):
        endpoint.acts = [flood(1_000_000), flood(1_000_000, declared=True)]
        for _ in range(2):
            _, headers, body = ask(endpoint, dimensions=16)
            assert len(body) > 900_000
            assert [item["index"] for item in json.loads(body)["data"]] == [0, 1, 2, 3]
        assert int(headers["Content-Length"]) == len(body)

    def test_a_bomb_grows(self, endpoint):
        import zlib

        from tests.endpoint.acts import _packed_block

        assert len(_packed_block()) < 2000
        unpacking = zlib.decompressobj(31)
        unpacking.decompress(b"\x1f\x8b\x08" + b"\0" * 5 + b"\2\xff")
        assert len(unpacking.decompress(_packed_block() * 5)) == 5_000_000

    def test_gzip_and_length(self, endpoint):
        endpoint.acts = ["gzip", "length is less"]
        assert json.loads(gzip.decompress(ask(endpoint)[2]))["data"]
        with pytest.raises(json.JSONDecodeError):
            json.loads(ask(endpoint)[2])

    def test_a_function_says_what_happens(self, endpoint):
        endpoint.acts = lambda request: "500" if "water" in request.texts else None
        assert [ask(endpoint, [text])[0] for text in TEXTS[:2]] == [200, 500]

    def test_more_at_once_than_are_allowed(self, endpoint):
        endpoint.most_at_once = 2
        refused = threading.Event()
        endpoint.acts = lambda _: Act("waits", lambda exchange: (refused.wait(10), NAMED["ok"](exchange)))
        with ThreadPoolExecutor(4) as pool:
            asked = as_completed([pool.submit(ask, endpoint) for _ in range(4)])
            statuses = [next(asked).result()[0], next(asked).result()[0]]
            refused.set()
            statuses += [each.result()[0] for each in asked]
        assert statuses == [429, 429, 200, 200]

    def test_its_end_does_not_wait_for_what_hangs(self):
        with Endpoint(acts=["hang"]) as endpoint:
            client = threading.Thread(target=_look_at, args=(endpoint, 60))
            client.start()
            while not endpoint.requests:
                time.sleep(0.01)
        client.join(10)
        assert not client.is_alive()

    def test_a_body_may_be_chunked_or_no_json(self, endpoint):
        connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
        body = iter([b'{"model": "any", ', b'"input": ["a"]}'])
        headers = {"Authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/embeddings", body, headers, encode_chunked=True)
        assert connection.getresponse().status == 200
        connection.close()
        assert post(endpoint, "/v1/embeddings", b"{")[0] == 400
        assert post(endpoint, "/v1/embeddings", [])[0] == 400
        assert post(endpoint, "/elsewhere", {})[0] == 404

    def test_as_a_process(self):
        command = [sys.executable, "-m", "tests.endpoint", "--delay", "0.01", "--at-once", "8", "--dimensions", "16"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            url = process.stdout.readline().strip()
            with openai.OpenAI(api_key=KEY, base_url=url + "/v1") as client:
                answer = client.embeddings.create(model="any", input=TEXTS)
            assert np.allclose([item.embedding for item in answer.data], vectors_of(TEXTS, 16))
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
            connection.request("GET", "/played")
            sums = json.loads(connection.getresponse().read())
            connection.close()
            process.stdin.close()
            assert process.wait(10) == 0
        assert sums == {"requests": 1, "texts": 4, "at_once": 1}


def _look_at(endpoint, timeout=0.5):
    """Ask for something, and read the answer as long as it does not take long, or much."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=timeout)
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        connection.request("POST", "/v1/embeddings", json.dumps({"model": "any", "input": TEXTS}), headers)
        response = connection.getresponse()
        read = 0
        while (content := response.read(1_000_000)) and read < 5_000_000:
            read += len(content)
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()


def _vectors(endpoint, form):
    path, payload = {
        "openai": ("/v1/embeddings", {"model": "any", "input": TEXTS}),
        "cohere": ("/v2/embed", {"model": "any", "texts": TEXTS, "input_type": "search_document"}),
        "ollama": ("/api/embed", {"model": "any", "input": TEXTS}),
    }[form]
    status, _, body = post(endpoint, path, payload)
    if status != 200:
        return status
    answer = json.loads(body)
    if form == "openai":
        return [item["embedding"] for item in answer["data"]]
    return answer["embeddings"]["float"] if form == "cohere" else answer["embeddings"]
