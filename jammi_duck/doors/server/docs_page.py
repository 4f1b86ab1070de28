"""The page of an OpenAPI document, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #b7791f; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 58rem; padding: 2rem 1.25rem 4rem; }
h1 { margin-bottom: 0; } h2 { border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1.5rem; }
h2 b { color: var(--accent); margin-right: .6rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
small { opacity: .7; } nav a { margin-right: 1rem; } a { color: inherit; }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: var(--soft); border-radius: 4px; }
code { padding: .1em .3em; } pre { overflow-x: auto; padding: .8rem 1rem; } pre code { background: none; padding: 0; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .4rem .6rem .4rem 0; text-align: left; vertical-align: top; }
td:first-child { white-space: nowrap; }
"""


def page(document: Mapping[str, Any]) -> tuple[str, str]:
    """The page of a document, and the policy under which a browser is to show it: nothing else is loaded or run."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return "".join(_parts(document)), policy


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{escape(info['title'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    yield f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>\n"
    yield f"<p>{_prose(info['description'])}</p>\n"
    token = document["components"]["securitySchemes"]["token"]["description"]
    yield f"<p><code>Authorization: Bearer TOKEN</code>: {_prose(token)}</p>\n<nav>\n"
    for path, _, operation in operations:
        yield f'<a href="#{escape(operation["operationId"])}">{escape(path)}</a>\n'
    yield "</nav>\n"
    for path, method, operation in operations:
        yield from _operation(document, path, method, operation)
    yield "</body>\n</html>\n"


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h2 id="{escape(operation["operationId"])}"><b>{escape(method.upper())}</b>'
    yield f"<code>{escape(path)}</code></h2>\n"
    yield f"<p><strong>{escape(operation['summary'])}.</strong> {_prose(operation['description'])}</p>\n"
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        yield from _keys(_schema(document, content["schema"]))
        sent = json.dumps(content["example"]).replace("'", "'\\''")
        command = f"curl http://HOST:PORT{path} \\\n  -H 'Content-Type: application/json' \\\n  -d '{sent}'"
        yield f"<h3>Example</h3>\n<pre><code>{escape(command)}</code></pre>\n"
    yield "<h3>Answers</h3>\n<table>\n"
    for status, response in operation["responses"].items():
        yield f"<tr><td><code>{escape(status)}</code></td><td>{_prose(response['description'])}</td></tr>\n"
    yield "</table>\n"
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            if "example" in content:
                example = content["example"]
                shown = example if isinstance(example, str) else json.dumps(example, indent=2)
                yield f"<h3>{escape(status)}</h3>\n<pre><code>{escape(shown)}</code></pre>\n"


def _keys(schema: Mapping[str, Any]) -> Iterator[str]:
    yield "<h3>Keys</h3>\n<table>\n"
    for name, each in schema["properties"].items():
        facts = [_type(each)]
        if name in schema["required"]:
            facts.append("required")
        if "enum" in each:
            facts.append("one of " + ", ".join(map(str, each["enum"])))
        if "minimum" in each and "maximum" in each:
            facts.append(f"{each['minimum']:,} to {each['maximum']:,}")
        if "default" in each:
            facts.append(f"default {json.dumps(each['default'])}")
        yield f"<tr><td><code>{escape(name)}</code></td><td>{_prose(each['description'])} "
        yield f"<small>{escape('; '.join(facts))}</small></td></tr>\n"
    yield "</table>\n"


def _type(schema: Mapping[str, Any]) -> str:
    if "oneOf" in schema:
        return " or ".join(map(_type, schema["oneOf"]))
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}s"
    return {"string": "text", "integer": "whole number"}.get(schema["type"], str(schema["type"]))


def _schema(document: Mapping[str, Any], reference: Mapping[str, str]) -> Mapping[str, Any]:
    name = reference["$ref"].rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["schemas"][name]
    return found


def _prose(text: str) -> str:
    """A text with `code` in it."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
