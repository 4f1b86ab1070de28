"""The file of words, held to golden bytes and to docs/format.md, and what is wrong with it: damage, and forgeries."""

# ruff: noqa: F811 - fixtures of another file

import contextlib
import hashlib
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jammi_duck import DamagedError, UnsupportedError
from jammi_duck.retrieval.text_query import TextQuery
from jammi_duck.storage.words.bm25 import Clause, Words
from jammi_duck.storage.words.collecting import Collector, Source
from jammi_duck.storage.words.words_file import MAGIC, WordsFile
from tests.effort import some
from tests.test_words import ENGLISH, PARQUET, Folder, contents, expected, folder  # noqa: F401

GOLDEN = Path(__file__).parent / "golden" / "segment.words"


def golden(folder):
    texts = ["A porous film", "E-1047: film, films & film!", "", "the C++ 语言学 naïve", " ".join(map(str, range(300)))]
    collector = Collector(ENGLISH, folder.new)
    for row, text in enumerate(texts):
        collector.add(row, text)
    path = folder.path / "segment.words"
    collector.save(path, len(texts), PARQUET)
    return path, texts


def content(file):
    """The bytes of a file that its JSON is about, and that JSON."""
    length = int.from_bytes(file[-12:-8], "little")
    return file[: -12 - length], json.loads(file[-12 - length : -12])


def varints(written):
    """All numbers in bytes."""
    found, number, shift = [], 0, 0
    for byte in written:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number = shift = 0
    assert not shift
    return found


def read_plainly(file):
    """What a file says, read as docs/format.md has it: the lengths, and for each term its rows with the positions."""
    body, header = content(file)
    lengths_at = len(MAGIC)
    postings_at = lengths_at + header["rows"] * header["length_bytes"]
    dictionary_at = postings_at + header["postings_bytes"]
    blocks_at = dictionary_at + header["dictionary_bytes"]
    assert body[:lengths_at] == MAGIC == file[-8:]
    width = header["length_bytes"]
    lengths = [int.from_bytes(body[at : at + width], "little") for at in range(lengths_at, postings_at, width)]
    blocks = [int.from_bytes(body[at : at + 8], "little") for at in range(blocks_at, len(body), 8)]
    at, term, posting, terms, begun = dictionary_at, b"", postings_at, {}, []

    def number():
        nonlocal at
        start = at
        while body[at] > 127:
            at += 1
        at += 1
        return varints(body[start:at])[0]

    while at < blocks_at:
        if len(terms) % 16 == 0:
            begun += [at - dictionary_at, posting - postings_at]
        shared, more = number(), number()
        assert shared == 0 or len(terms) % 16
        term = term[:shared] + body[at : at + more]
        at += more
        count, *sizes = (number() for _ in range(4))
        lists = []
        for size in sizes:
            lists.append(varints(body[posting : posting + size]))
            posting += size
        distances, repeated, positions = (iter(each) for each in lists)
        row, rows = -1, {}
        for distance in distances:
            row += distance >> 1
            often = next(repeated) + 2 if distance & 1 else 1
            steps = itertools.islice(positions, often)
            rows[row] = list(itertools.accumulate(steps))
        assert len(rows) == count
        assert not [*repeated, *positions]
        terms[term.decode()] = rows
    assert posting == dictionary_at
    assert begun == blocks
    assert len(terms) == header["terms"]
    assert list(terms) == sorted(terms, key=str.encode)
    return lengths, terms


class TestGolden:
    def test_the_page_says_how_to_read_it(self):
        file = GOLDEN.read_bytes()
        assert read_plainly(file) == contents(WordsFile(GOLDEN))
        body, header = content(file)
        assert header["content"] == hashlib.sha256(body).hexdigest()
        assert (header["parquet"], header["rows"], header["length_bytes"]) == (PARQUET, 5, 2)

    def test_it_is_read(self, folder):
        _, texts = golden(folder)
        words = WordsFile(GOLDEN)
        words.check()
        assert contents(words) == expected(texts)
        assert words.analysis.analyser == "words-1"
        assert words.analysis.language == "english"

    def test_it_is_written(self, folder):
        """But for the version of the stemmer."""
        path, _ = golden(folder)
        mine, old = ((*content(each.read_bytes())[:2],) for each in (path, GOLDEN))
        assert mine[0] == old[0]
        for each in (mine[1], old[1]):
            each["analysis"].pop("stemmer")
        assert mine[1] == old[1]


def sealed(body, header, **changes):
    """A file of these bytes whose JSON, but for the changes, tells the truth about their SHA-256."""
    header = {**header, "content": hashlib.sha256(body).hexdigest(), **changes}
    text = json.dumps(header).encode()
    return body + text + len(text).to_bytes(4, "little") + MAGIC


def read_all(path):
    """Ask for everything in a file, and of it what a search asks for, but do not compare its SHA-256."""
    words = WordsFile(path)
    with contextlib.suppress(DamagedError):
        contents(words)
    with contextlib.suppress(DamagedError):
        words.beginning(b"")
    for clause in (
        Clause((("film", 0),)),
        Clause((("film", 0), ("film", 1))),
        Clause((("1", 0), ("2", 1), ("3", 2))),
        Clause((("2", 0),), is_prefix=True),
        Clause((("", 0),), is_prefix=True, also=("film",)),
    ):
        with contextlib.suppress(DamagedError):
            found = Words(ENGLISH, [words], [np.ones(words.rows, bool)]).scores(TextQuery(((clause, 1.0),), (), (), ""))
            assert len(found.rows) == len(set(found.rows.tolist()))
            assert set(found.rows.tolist()) <= set(range(words.rows))
            assert np.isfinite(found.values).all()
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(DamagedError):
        Folder(name).collected([], taken=[Source(words, np.arange(words.rows))], rows=words.rows)
    return words


class TestDamage:
    @given(st.data())
    @settings(max_examples=some(400))
    def test_any_byte_that_was_changed_is_damage_or_found_by_the_check(self, data):
        """What is wrong is never another error, and never a row that is not there, even if nobody looks before."""
        whole = GOLDEN.read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda each: each != whole[place]))
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "changed.words"
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                words = read_all(path)
            except (DamagedError, UnsupportedError):
                return
            if place < len(content(whole)[0]):
                with pytest.raises(DamagedError, match="'changed.words' was altered: its SHA-256 differs"):
                    words.check()

    @given(st.data())
    @settings(max_examples=some(400))
    def test_what_was_forged_is_damage_or_harmless(self, data):
        """Whoever can write to a location can make the SHA-256 fit."""
        body, header = content(GOLDEN.read_bytes())
        forged = bytearray(body)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(len(MAGIC), len(body) - 1))
            forged[place : place + data.draw(st.sampled_from([1, 1, 8]))] = data.draw(
                st.one_of(
                    st.binary(min_size=1, max_size=1), st.sampled_from([b"\xff", b"\x80", b"\xff" * 8, b"\0" * 8])
                )
            )
        forged = bytes((forged + bytes(len(body)))[: len(body)])
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "forged.words"
            path.write_bytes(sealed(forged, header))
            with contextlib.suppress(DamagedError):
                read_all(path).check()

    @given(st.integers(0, GOLDEN.stat().st_size - 1))
    @example(0)
    @example(8)
    def test_any_cut_is_noticed(self, length):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "cut.words"
            path.write_bytes(GOLDEN.read_bytes()[:length])
            with pytest.raises(DamagedError, match="^'cut.words' is (not a whole file of words|empty)"):
                WordsFile(path)

    @given(st.binary(max_size=100), st.booleans())
    def test_any_bytes_are_refused(self, other, framed):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "other.words"
            path.write_bytes(MAGIC + other + MAGIC if framed else other)
            with pytest.raises((DamagedError, UnsupportedError), match=r"^'other.words' "):
                WordsFile(path)

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"rows": 6}, DamagedError, "its sections have other sizes"),
            ({"rows": -1}, DamagedError, "a value that it cannot have"),
            ({"rows": 2**31}, DamagedError, "a value that it cannot have"),
            ({"terms": 1 << 40}, DamagedError, "its sections have other sizes"),
            ({"length_bytes": 3}, DamagedError, "its sections have other sizes"),
            ({"length_bytes": 0}, DamagedError, "its sections have other sizes"),
            ({"dictionary_bytes": None}, DamagedError, "a value that it cannot have"),
            ({"parquet": "x"}, DamagedError, "a value that it cannot have"),
            ({"analysis": "english"}, DamagedError, "fields"),
            ({"analysis": {}}, DamagedError, "a value that it cannot have"),
            ({"format_version": 2}, UnsupportedError, "has format version 2"),
            ({"format_version": 0}, DamagedError, "has the format version 0"),
            ({"features": ["scores"]}, UnsupportedError, "needs the feature 'scores'"),
        ],
        ids=str,
    )
    def test_headers_that_cannot_be(self, tmp_path, changes, error, message):
        path = tmp_path / "x.words"
        path.write_bytes(sealed(*content(GOLDEN.read_bytes()), **changes))
        with pytest.raises(error, match=rf"^'x\.words' .*{message}"):
            WordsFile(path)

    def test_unknown_fields_are_read_over(self, tmp_path):
        path = tmp_path / "x.words"
        path.write_bytes(sealed(*content(GOLDEN.read_bytes()), format_version=7, features=[], skips={"every": 128}))
        words = WordsFile(path)
        words.check()
        assert words.header.unknown == {"features": [], "skips": {"every": 128}}
        assert contents(words) == contents(WordsFile(GOLDEN))
