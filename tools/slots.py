"""Compares the extension's declarations of DuckDB's C API with DuckDB's headers: python -m tools.slots VERSION ...

The headers come from the sdist of that version, which pip gets from the package index it is configured with. Prints
what differs, and exits with 1 if something does.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[1] / "udfs" / "native"
# The version of the C Extension API that the extension asks for when it is loaded.
API = (1, 2, 0)
STRUCTS = ("duckdb_result", "duckdb_string_t", "duckdb_list_entry", "duckdb_extension_access")

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_TOKEN = re.compile(r"\w+|[^\s\w]")
_SLOT = re.compile(r"^SLOT\((\d+), (.+?), (\w+), (\(.*\))\)$", re.MULTILINE)
_TABLE = re.compile(r"typedef struct \{((?:(?!typedef struct).)*)\} duckdb_ext_api_v1;", re.DOTALL)
_POINTER = re.compile(r"([\w\s*]+?)\(\s*\*\s*(\w+)\s*\)\s*(\([^;]*\))\s*;")
_CALLBACK = re.compile(r"typedef\s+" + _POINTER.pattern)
_NUMBER = re.compile(r"\b(DUCKDB_TYPE_\w+|DuckDBSuccess|DuckDBError)\s*=\s*(\d+)")
_HANDLE = re.compile(r"typedef struct \w*\s*(?:\{[^{}]*\}\s*)?\*\s*(\w+);")
_ALIAS = re.compile(r"typedef (\w+) (idx_t);")
_AT_LEAST = re.compile(r"AT_LEAST\((\d+), (\d+), (\d+)\)")
_EXACT = re.compile(r"MINOR == (\d+) && \w+_PATCH >= (\d+)")


@dataclass(frozen=True)
class Headers:
    """What a header or two declare, each thing by its name, in a form that can be compared."""

    slots: dict[str, tuple[int, str]]
    callbacks: dict[str, str]
    numbers: dict[str, str]
    handles: frozenset[str]
    aliases: dict[str, str]
    structs: dict[str, str]


def ours(native: Path = NATIVE) -> Headers:
    """What the extension declares."""
    text = (native / "slots.h").read_text()
    found = _SLOT.findall(text)
    if len(found) != len(re.findall(r"^SLOT\b", text, re.MULTILINE)):
        raise SystemExit("slots.h has a SLOT that cannot be read; each takes one line")
    slots = {name: (int(place), signature(result, parameters)) for place, result, name, parameters in found}
    return _headers(slots, (native / "duckdb_api.h").read_text())


def theirs(header: str, extension_header: str) -> Headers:
    """What DuckDB's `duckdb.h` and `duckdb_extension.h` declare."""
    return _headers({name: (place, text) for place, (name, text) in enumerate(table(extension_header))}, header)


def _headers(slots: dict[str, tuple[int, str]], header: str) -> Headers:
    text = _COMMENT.sub(" ", header)
    return Headers(
        slots,
        {name: signature(result, parameters) for result, name, parameters in _CALLBACK.findall(text)},
        dict(_NUMBER.findall(text)),
        frozenset(_HANDLE.findall(text)),
        {alias: name for name, alias in _ALIAS.findall(text)},
        {name: found for name in STRUCTS if (found := layout(text, name))},
    )


def table(extension_header: str) -> list[tuple[str, str]]:
    """The functions, with their signatures, that an extension for version `API` finds in the table, in order."""
    found = _TABLE.search(stable(extension_header))
    if not found:
        raise SystemExit("duckdb_extension.h has no table of functions that can be read")
    body = _COMMENT.sub(" ", found[1])
    functions = [(name, signature(result, parameters)) for result, name, parameters in _POINTER.findall(body)]
    if len(functions) != body.count(";"):
        raise SystemExit(f"{body.count(';') - len(functions)} members of the table cannot be read")
    return functions


def stable(extension_header: str) -> str:
    """The table's text without what is under a condition that does not hold for version `API`."""
    text = extension_header.replace("\\\n", " ")
    begin = text.rfind("typedef struct {", 0, text.find("} duckdb_ext_api_v1;"))
    if begin < 0:
        return ""
    lines: list[str] = []
    holds = [True]
    for line in text[begin:].splitlines():
        word = line.strip()
        if word.startswith("#if"):
            holds.append(holds[-1] and _holds(word))
        elif word.startswith("#endif"):
            holds.pop()
        elif word.startswith("#"):
            raise SystemExit(f"the table of functions has a line that cannot be judged: {word}")
        elif holds[-1]:
            lines.append(line)
        if word.startswith("} duckdb_ext_api_v1;"):
            break
    return "\n".join(lines)


def _holds(condition: str) -> bool:
    if "UNSTABLE" in condition:
        return False
    version = _AT_LEAST.search(condition)
    if version:
        return tuple(map(int, version.groups())) <= API
    version = _EXACT.search(re.sub(r"\s+", " ", condition))
    if version:
        return (1, *map(int, version.groups())) <= API
    raise SystemExit(f"the table of functions has a condition that cannot be judged: {condition}")


def signature(result: str, parameters: str) -> str:
    """A function's type, without the names of its parameters."""
    inner = parameters.strip()[1:-1].strip()
    kinds = [_without_name(_TOKEN.findall(part)) for part in inner.split(",")] if inner else ["void"]
    return f"{' '.join(_TOKEN.findall(result))} ({', '.join(kinds)})"


def _without_name(tokens: list[str]) -> str:
    words = [token for token in tokens if token[0].isalpha() and token not in ("const", "struct", "enum")]
    has_name = tokens[-1].isidentifier() and (len(words) > 1 or tokens[-2:-1] == ["*"])
    return " ".join(tokens[:-1] if has_name else tokens)


def layout(text: str, name: str) -> str:
    """How a struct lies in memory: the types of its members in order; a pointer is one, whatever it points to."""
    text = _COMMENT.sub(" ", text)
    tagged = re.search(rf"struct {name} (?=\{{)", text)
    if tagged:
        return _members(iter(_TOKEN.findall(text[tagged.end() + 1 :])), "struct")
    last = re.search(rf"\}} {name};", text)
    if not last:
        return ""
    begin = max(text.rfind(f"typedef {kind} {{", 0, last.start()) for kind in ("struct", "union"))
    tokens = _TOKEN.findall(text[begin : last.end()])
    return _members(iter(tokens[3:]), tokens[1])


def _members(tokens: Iterator[str], kind: str) -> str:
    members: list[str] = []
    for token in tokens:
        if token == "}":
            break
        declared = [token]
        for following in tokens:
            if following == "{":
                members.append(_members(tokens, declared[0]))
                declared = []
            elif following == ";":
                break
            elif declared:
                declared.append(following)
        if declared:
            members += _declared(declared)
    return members[0] if len(members) == 1 else f"{kind} {{{'; '.join(members)}}}"


def _declared(tokens: list[str]) -> Iterator[str]:
    text = " ".join(tokens)
    pointer = _POINTER.fullmatch(f"{text};")
    if pointer:
        yield f"{pointer[2]}: {signature(pointer[1], pointer[3])}"
        return
    kind = next(word for word in tokens if word != "const")
    for declarator in text.split(","):
        size = re.search(r"\[ (\d+) \]", declarator)
        yield ("pointer" if "*" in declarator else kind) + (f"[{size[1]}]" if size else "")


def differences(mine: Headers, other: Headers) -> Iterator[str]:
    """What stands in `mine` and is not so in `other`."""
    for name, (place, text) in mine.slots.items():
        if name not in other.slots:
            yield f"{name}: not in the table of API v{'.'.join(map(str, API))}"
        elif other.slots[name] != (place, text):
            there, as_declared = other.slots[name]
            yield f"{name}: place {place}, {text}; in DuckDB place {there}, {as_declared}"
    for kind in ("callbacks", "numbers", "aliases", "structs"):
        found: dict[str, str] = getattr(other, kind)
        for name, text in getattr(mine, kind).items():
            if found.get(name) != text:
                yield f"{name}: {text}; in DuckDB {found.get(name, 'not there')}"
    for name in sorted(mine.handles - other.handles):
        yield f"{name}: a pointer; in DuckDB none"


def download(version: str) -> tuple[str, str]:
    """`duckdb.h` and `duckdb_extension.h` of a version. pip asks an sdist for its metadata, but compiles nothing."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "--no-binary", "duckdb", "--dest", folder, f"duckdb=={version}"], check=True)
        (sdist,) = Path(folder).glob("duckdb-*.tar.gz")
        return read(sdist)


def read(sdist: Path) -> tuple[str, str]:
    """The two headers from an sdist."""
    found: dict[str, str] = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if folder.endswith("/src/include") and name in ("duckdb.h", "duckdb_extension.h"):
                content = archive.extractfile(member)
                assert content is not None
                found[name] = content.read().decode()
    return found["duckdb.h"], found["duckdb_extension.h"]


def main(versions: list[str]) -> int:
    """The number of versions that differ; each argument is a version, or the path of an sdist."""
    mine, differing = ours(), 0
    for version in versions:
        found = list(differences(mine, theirs(*(read(Path(version)) if "/" in version else download(version)))))
        differing += bool(found)
        for line in found or [f"as declared: {len(mine.slots)} functions, {len(mine.structs)} structs"]:
            print(f"DuckDB {version}: {line}")  # noqa: T201
    return differing


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
