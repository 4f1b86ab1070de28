"""A whole session at the command line prints what tests/golden/cli.txt has.

python -m tests.test_cli_session --write     writes it anew
"""

import re
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

from tools.program import in_pipe

GOLDEN = Path(__file__).parent / "golden" / "cli.txt"
ANIMALS = """id,name,text
1,cat,A small cat sleeps on the sofa.
2,duck,A duck swims in water.
3,fish,A fish lives in water.
4,nothing,
"""


_CHANGING = (
    (r"__\d{8}T\d{6}", "__20260325T120000"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d+", "2026-03-25T12:00:00.000"),
    (r"\d+\.\d s\b", "0.1 s"),
    (r"(seconds +|\"seconds\": )[\d.]+", r"\g<1>0.1"),
    (r" +# where copies", " # where copies"),
    (r"\b00:00:\d\d(\.\d+)?", "00:00:01"),
    (r"(?m)^(# Models are computed by the engine) .*", r"\1 native (avx512, float32)"),
    (r"(\"_(?:score|similarity|distance|bm25)\":\d\.\d{3})\d*", r"\1"),
)


def steady(text, folder):
    """The text without what differs from run to run and from machine to machine."""
    text = text.replace(folder, "/home/you")
    for pattern, instead in _CHANGING:
        text = re.sub(pattern, instead, text)
    return text


def session(golden, folder):
    """The golden text with what its commands print now."""
    (folder / "animals.csv").write_text(ANIMALS)
    parts = []
    for line in re.findall(r"^\$ .*$", golden, re.MULTILINE):
        built = {path.name.split(".")[0] for path in folder.glob("artifacts/jammi_db/*")}
        command = re.sub(
            r"\S+__20260325T120000", lambda found, built=built: min(built, default=found[0]), line.removeprefix("$ ")
        )
        done = in_pipe(
            command,
            folder,
            JAMMI_INFERENCE__PRECISION="float32",
            XDG_CONFIG_HOME=f"{folder}/config",
            XDG_CACHE_HOME=f"{folder}/cache",
        )
        code = f"(exit code {done.returncode})\n" if done.returncode else ""
        parts.append(f"{line}\n{done.stdout}{done.stderr}{code}")
    return steady("\n".join(parts), str(folder))


@pytest.mark.minilm
@pytest.mark.skipif(duckdb.__version__ < "2", reason="earlier versions draw their tables a little differently")
def test_the_session_prints_what_it_did(tmp_path):
    golden = GOLDEN.read_text()
    assert session(golden, tmp_path) == golden


if __name__ == "__main__" and "--write" in sys.argv:
    with tempfile.TemporaryDirectory() as here:
        GOLDEN.write_text(session(GOLDEN.read_text(), Path(here)))
