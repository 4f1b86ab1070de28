"""Pictures in SQL: BLOBs, paths and URLs, read within limits and from allowed places only; a broken one fails alone."""

import http.server
import io
import itertools
import os
import threading
import warnings
import zlib

import fsspec
import numpy as np
import pytest
from PIL import Image

import jammi_duck
from jammi_duck.config import settings
from jammi_duck.encoder.blobs import blob_of
from jammi_duck.encoder.images.clip_encoder import ClipEncoder
from jammi_duck.encoder.images.pictures import Pictures
from jammi_duck.encoder.images.places import PictureLimits, Places
from jammi_duck.encoder.images.preprocessing import of_open_clip
from jammi_duck.errors import ConfigError, EncodingError, InputError
from tests.clip_models import picture
from tests.races import interrupted_build
from tests.stock_shell import folder, needs_extension, shell  # noqa: F401
from tests.test_generate import error_of
from tests.test_settings import here, write  # noqa: F401

PREPARED = of_open_clip({}, 64, "x")


def pixels(content, **limits):
    return Pictures(PictureLimits(**limits)).pixels(blob_of(content), PREPARED)


def refusal(content, **limits):
    with pytest.raises(InputError) as error:
        pixels(content, **limits)
    return str(error.value)


def png(width, height):
    """The beginning of a PNG that claims this size."""

    def chunk(kind, content):
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


class TestPictures:
    def test_what_is_none(self):
        for content in (b"", b"no picture", b"\x89PNG\r\n\x1a\n", picture()[:20], b"GIF89a", os.urandom(1000)):
            assert "it is no picture in a format that is read: JPEG, PNG" in refusal(content) or "decoded" in refusal(
                content
            )

    @pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "TGA", "PDF"])
    def test_formats_that_are_not_read(self, kind):
        assert refusal(picture(kind=kind)).startswith("it is no picture in a format that is read")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
    def test_what_is_cut_short(self, kind):
        whole = picture(300, 200, kind=kind)
        assert "cannot be decoded" in refusal(whole[: len(whole) // 2])

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
    def test_damage_of_all_kinds_is_told_or_not_seen(self, kind):
        random, whole = np.random.default_rng(7), picture(60, 50, "P" if kind == "GIF" else "RGB", kind)
        told = 0
        for _ in range(150):
            content = bytearray(whole)
            for place in random.integers(0, len(whole), 8):
                content[place] = random.integers(0, 256)
            try:
                assert np.isfinite(pixels(bytes(content))).all()
            except InputError:
                told += 1
        assert told or kind == "BMP"

    def test_base64_that_is_broken(self):
        with pytest.raises(InputError, match="its base64 is broken"):
            Pictures(PictureLimits()).pixels("data:;base64,a$b", PREPARED)

    def test_limits(self):
        content = picture(100, 50)
        assert pixels(content, max_pixels=5000, max_bytes=len(content)).shape == (3, 64, 64)
        assert refusal(content, max_pixels=4999) == "it has more than 4,999 pixels ([images] max_pixels), 100 x 50"
        assert "more than 100 bytes ([images] max_bytes)" in refusal(content, max_bytes=100)

    def test_it_is_not_decoded_before_its_size_is_known(self, monkeypatch):
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
        assert "more than 50,000,000 pixels ([images] max_pixels), 10,000 x 10,000" in refusal(png(10_000, 10_000))
        assert "more than 50,000,000 pixels" in refusal(png(60_000, 60_000))

    def test_one_that_would_become_too_large(self):
        assert "too long and narrow: with its shorter side at 64" in refusal(png(1, 1_000_000))

    def test_the_first_frame_counts(self):
        frames = [Image.open(io.BytesIO(picture(seed=seed))) for seed in (1, 2)]
        for kind in ("GIF", "WEBP"):
            one, both = io.BytesIO(), io.BytesIO()
            frames[0].save(one, kind, lossless=True)
            frames[0].save(both, kind, save_all=True, append_images=frames[1:], lossless=True)
            assert np.abs(pixels(one.getvalue()) - pixels(both.getvalue())).max() < 0.1

    def test_nobody_turns_it(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        assert (pixels(picture(kind="JPEG")) == pixels(picture(kind="JPEG", exif=exif))).all()

    def test_no_warning_of_pillows_gets_out(self):
        odd = picture(mode="P", transparency=b"\x00\x80" + b"\xff" * 100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pixels(odd).shape == (3, 64, 64)
            # 90 million pixels are what Pillow warns of.
            assert "more than 95,000,000 pixels" in refusal(png(10_000, 10_000), max_pixels=95_000_000)


class TestFolders:
    @pytest.fixture
    def place(self, tmp_path):
        for name in ("in/deep/a.png", "in/b.png", "inside/c.png", "out/d.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        (tmp_path / "in/link.png").symlink_to(tmp_path / "out/d.png")
        (tmp_path / "in/out").symlink_to(tmp_path / "out")
        (tmp_path / "in/good.png").symlink_to(tmp_path / "in/b.png")
        os.mkfifo(tmp_path / "in/pipe")
        return tmp_path

    @pytest.fixture
    def read(self, place, monkeypatch):
        monkeypatch.chdir(place)
        allow = settings.load({"images_allow": ["in"]}).config.images_allow
        return Places(PictureLimits(allow, max_bytes=20)).read

    def test_what_is_in_one(self, read, place):
        for name in (
            "in/b.png",
            f"{place}/in/deep/a.png",
            "out/../in/b.png",
            "in/good.png",
            f"file://{place}/in/b.png",
        ):
            assert read(name).startswith(b"in/")

    @pytest.mark.parametrize(
        "name",
        [
            "out/d.png", "in/link.png", "in/out/d.png", "in/../out/d.png", "inside/c.png", "/etc/passwd", "/dev/zero",
            "file:///etc/passwd", "no/such", "~/x.png", "",
        ],
    )  # fmt: skip
    def test_what_is_not(self, read, name):
        with pytest.raises(InputError, match=r"in no place that pictures may be read from; if it is to be, add \"/"):
            read(name)

    def test_what_cannot_be_read(self, read, place):
        (place / "in/large.png").write_bytes(b"x" * 21)
        for name, why in (
            ("in/none.png", "there is no such file"),
            ("in/pipe", "no regular file"),
            ("in", "Is a directory"),
            ("in/large.png", r"more than 20 bytes \(\[images\] max_bytes\)"),
            ("in/\0", "null"),
        ):
            with pytest.raises(InputError, match=why):
                read(name)

    def test_a_link_that_is_put_there_meanwhile(self, read, place, monkeypatch):
        from jammi_duck.encoder.images import places

        real = places.open_regular

        def swapped(name):
            os.unlink(name)
            os.symlink(place / "out/d.png", name)
            return real(name)

        monkeypatch.setattr(places, "open_regular", swapped)
        with pytest.raises(InputError, match="in no place"):
            read("in/b.png")

    def test_nothing_is_allowed_by_default(self):
        for name in ("/etc/passwd", "https://example.com/a/b.png?key=secret"):
            with pytest.raises(EncodingError, match=r"set \[images\] allow = ") as error:
                Places(PictureLimits()).read(name)
            assert "secret" not in str(error.value)


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        kind = self.path.partition("?")[0].rpartition("/")[2]
        self.send_response({"none": 404, "denied": 403, "broken": 500, "moved": 302}.get(kind, 200))
        if kind == "moved":
            self.send_header("Location", "/secret/a.png")
        if kind == "short":
            self.send_header("Content-Length", "1000000")
        self.end_headers()
        content = self.server.content
        for part in itertools.repeat(b"x" * 65536) if kind == "endless" else [content]:
            try:
                self.wfile.write(part)
            except OSError:
                return

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.asked, server.content = [], picture()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestUrls:
    @pytest.fixture
    def url(self, server):
        return f"http://127.0.0.1:{server.server_port}"

    @pytest.fixture
    def read(self, url):
        return Places(PictureLimits([f"{url}/photos"], max_bytes=200_000)).read

    def test_what_begins_so(self, read, url, server):
        assert read(f"{url}/photos/a.png") == read(f"{url}/photos/deep/b%20c.png?size=3") == server.content
        assert server.asked == ["/photos/a.png", "/photos/deep/b%20c.png?size=3"]

    @pytest.mark.parametrize(
        "path",
        [
            "/photos2/a.png", "/secret/a.png", "/photos/../secret/a.png", "/photos/%2e%2e/a.png", "/photos/./a.png",
            "/photos/..%5ca.png", "/photos/%252e%252e/a.png", "/photos\\..\\a.png", "/photos/a::file:///etc/passwd",
        ],
    )  # fmt: skip
    def test_what_does_not(self, read, url, server, path):
        with pytest.raises(InputError, match="in no place"):
            read(url + path)
        for other in (
            f"{url}@example.com/photos/a.png",
            f"https{url[4:]}/photos/a.png",
            f"simplecache::{url}/photos/a",
        ):
            with pytest.raises(InputError, match="in no place"):
                read(other)
        assert server.asked == []

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("none", "there is no such file"),
            ("denied", "403"),
            ("broken", "500"),
            ("moved", "the server redirects, which is not followed"),
            ("endless", r"more than 200,000 bytes \(\[images\] max_bytes\)"),
            ("short", "not completed"),
        ],
    )
    def test_what_cannot_be_read(self, read, url, server, path, why):
        with pytest.raises(InputError, match=why) as error:
            read(f"{url}/photos/{path}?token=secret")
        assert "secret" not in str(error.value)
        assert len(server.asked) == 1

    def test_other_stores(self):
        fsspec.filesystem("memory").pipe_file("/bucket/photos/a b.png", b"a picture")
        read = Places(PictureLimits(["memory://bucket/photos"], max_bytes=9)).read
        assert read("memory://bucket/photos/a b.png") == b"a picture"
        with pytest.raises(InputError, match="there is no such file"):
            read("memory://bucket/photos/none.png")
        with pytest.raises(InputError, match="more than 8 bytes"):
            Places(PictureLimits(["memory://bucket"], max_bytes=8)).read("memory://bucket/photos/a b.png")
        with pytest.raises(EncodingError, match="pictures cannot be read from nostore://"):
            Places(PictureLimits(["nostore://x"])).read("nostore://x/a.png")

    def test_in_a_table(self, clip, url, tmp_path, server):
        con = jammi_duck.connect(storage=tmp_path / "st", model=str(clip), images_allow=[f"{url}/photos"])
        con.execute("CREATE TABLE t(id INTEGER, place VARCHAR)")
        con.executemany(
            "INSERT INTO t VALUES (?, ?)", [(1, f"{url}/photos/a.png"), (2, f"{url}/photos/none"), (3, f"{url}/x")]
        )
        found = con.execute("SELECT row_count, failed_count FROM jammi_generate('t', 'place', 'id')").fetchall()
        assert found == [(1, 2)]


class TestOptions:
    def test_folders_are_fixed_when_they_are_read(self, here):  # noqa: F811
        (here / "photos").mkdir()
        (here / "link").symlink_to(here / "photos")
        found = settings.load({"images_allow": ["photos", "link", "~/x", "s3://bucket/p/"], "images_max_bytes": "2 MB"})
        places = found.config.images_allow
        assert places == (
            f"{here}/photos",
            f"{here}/photos",
            os.path.realpath(os.path.expanduser("~/x")),
            "s3://bucket/p/",
        )
        assert found.config.images_max_bytes == 2_000_000

    @pytest.mark.parametrize(
        "wrong", ["photos", [1], ["https://"], ["https://a.com/x?y=1"], ["https://me@a.com/x"], ["file:///x"],
                  ["simplecache::https://a.com"], [""]]
    )  # fmt: skip
    def test_wrong_places(self, wrong):
        with pytest.raises(
            ConfigError, match="images_allow is .*; it must be a list of folders, and of beginnings of URLs"
        ):
            settings.load({"images_allow": wrong})

    @pytest.mark.parametrize(("name", "wrong"), [("pixels", 0), ("pixels", 10**9), ("bytes", "x"), ("bytes", 0)])
    def test_wrong_limits(self, name, wrong):
        with pytest.raises(ConfigError, match=f"images_max_{name} is"):
            settings.load({f"images_max_{name}": wrong})

    def test_a_working_directory_allows_what_is_in_it(self, here, monkeypatch):  # noqa: F811
        (here / "photos").mkdir()
        write(here, "[images]\nallow = ['photos', '.']")
        assert settings.load().config.images_allow == (f"{here}/photos", str(here))
        (here / "link").symlink_to("/etc")
        for other in ("..", "/etc", "link", "photos/../..", "~", "https://example.com/photos", "s3://bucket"):
            write(here, f"[images]\nallow = ['photos', '{other}']")
            with pytest.raises(
                ConfigError, match=r"jammi.toml:2: a file in the working directory may allow folders in it"
            ):
                settings.load()
            assert settings.load({"images_allow": [other]}).config.images_allow
        monkeypatch.setenv("JAMMI_IMAGES__ALLOW", '["/etc"]')
        assert settings.load().config.images_allow == ("/etc",)


CONTENT = [picture(60 + 5 * i, 80 - 3 * i, seed=i) for i in range(6)]


@pytest.fixture
def con(clip, tmp_path):
    """A connection with pictures of all kinds: six good ones, a broken one, and none."""
    (tmp_path / "pictures").mkdir()
    con = jammi_duck.connect(
        storage=tmp_path / "st", model=str(clip), images_allow=[tmp_path / "pictures"], segment_rows=4
    )
    con.execute("CREATE TABLE photos(id INTEGER, picture BLOB)")
    con.executemany("INSERT INTO photos VALUES (?, ?)", list(enumerate([*CONTENT, b"broken", None, b""])))
    yield con
    con.close()


@pytest.fixture
def photos(con):
    con.execute("FROM jammi_generate('photos', 'picture', 'id')").fetchall()
    return con


@pytest.fixture
def seen(monkeypatch):
    """Tells how many pictures were encoded since it was last asked."""
    real, counts = ClipEncoder._encoded, []

    def encoded(self, texts, progress):
        counts.append(len(texts))
        return real(self, texts, progress)

    monkeypatch.setattr(ClipEncoder, "_encoded", encoded)

    def told():
        count = sum(counts)
        counts.clear()
        return count

    return told


def one(con, sql, *given):
    (row,) = con.execute(sql, given).fetchall()
    return row


def like(con, number, k=1, source="photos"):
    """The keys of the rows nearest to a picture of the table."""
    query = f"SELECT id FROM jammi_search('{source}', (SELECT picture FROM photos WHERE id = {number}), {k})"
    return [id for (id,) in con.execute(query).fetchall()]


class TestBlobs:
    def test_generate_and_search(self, con, clip):
        counts = "status, row_count, skipped_count, failed_count, truncated_count, dimensions, model"
        made = one(con, f"SELECT {counts} FROM jammi_generate('photos', 'picture', 'id')")
        assert made == ("ready", 6, 2, 1, 0, 32, str(clip))
        assert [like(con, number) for number in range(6)] == [[number] for number in range(6)]
        found = con.execute("SELECT id, _similarity, _bm25 FROM jammi_search('photos', 'a red bicycle', 10)").fetchall()
        encoder_says = "list_cosine_similarity(embed(picture), embed('a red bicycle', role := 'query'))"
        wanted = con.execute(f"SELECT id, {encoder_says} FROM photos WHERE id < 6 ORDER BY 2 DESC").fetchall()
        assert [id for id, _, _ in found] == [id for id, _ in wanted]
        assert [near for _, near, _ in found] == pytest.approx([near for _, near in wanted], abs=1e-3)
        assert {bm25 for _, _, bm25 in found} == {None}

    def test_the_other_searches(self, photos):
        query = "(SELECT picture FROM photos WHERE id = 4)"
        assert one(photos, f"SELECT _row_id FROM jammi_matches('photos', {query}, 1)") == ("4",)
        assert like(photos, 4, k=1, source="photos") == [4]
        assert one(photos, f"SELECT id FROM jammi_search('photos', {query}, 1, filter := 'id < 4')")[0] < 4
        stages = photos.execute(f"SELECT stage FROM jammi_explain('photos', {query}, 1)").fetchall()
        assert ("encode",) in stages
        assert one(photos, "SELECT id FROM jammi_similar('photos', 4, 1)")[0] != 4
        # DuckDB 1.4 would search for the other pictures, too, which are none, before it leaves them out.
        few = "WITH few AS MATERIALIZED (FROM photos WHERE id < 6)"
        joined = f"{few} SELECT p.id, s.id FROM few p, jammi_search('photos', p.picture, 1) s ORDER BY 1"
        assert photos.execute(joined).fetchall() == [(number, number) for number in range(6)]
        assert one(photos, "SELECT id FROM jammi_search('photos', ?, 1)", CONTENT[2]) == (2,)
        assert photos.execute("SELECT id FROM jammi_search('photos', NULL::BLOB, 1)").fetchall() == []

    def test_from_python(self, photos):
        jammi = jammi_duck.install(photos)
        assert jammi.search("photos", CONTENT[3], 1).project("id").fetchall() == [(3,)]
        assert jammi.search("photos", bytearray(CONTENT[3]), 1).project("id").fetchall() == [(3,)]
        assert jammi.matches("photos", CONTENT[1], 1).project("_row_id").fetchall() == [("1",)]
        assert len(jammi.search("photos", "a duck", 3).fetchall()) == 3

    def test_embed(self, con, clip):
        same = "list_cosine_similarity(embed(picture, ?), embed(picture)) FROM photos WHERE id = 2"
        assert one(con, f"SELECT {same}", f"open-clip:{clip}")[0] == pytest.approx(1, abs=1e-3)
        assert one(con, "SELECT embed(NULL::BLOB) IS NULL, embed(picture) IS NULL FROM photos WHERE id = 8") == (
            True,
            True,
        )
        assert "a picture of 6 bytes could not be embedded: it is no picture" in error_of(
            con, "SELECT embed(picture) FROM photos"
        )
        assert len(one(con, "SELECT embed('a text', role := 'query')")[0]) == 32
        assert "if it is no picture but a text, embed it with role := 'query'" in error_of(
            con, "SELECT embed('a text')"
        )

    def test_infer(self, con):
        told = con.execute("SELECT _row_id, _status, _error FROM jammi_infer('photos', 'picture', 'id')").fetchall()
        assert [row for row in told if row[1] == "ok"] == [(str(number), "ok", None) for number in range(6)]
        assert ("6", "error", "it is no picture in a format that is read: JPEG, PNG, GIF, WEBP, BMP") in told
        assert ("8", "error", "Empty or null text input") in told

    def test_refresh(self, photos, seen):
        assert one(photos, "SELECT current, new, changed, gone FROM jammi_status('photos')") == (6, 1, 0, 0)
        photos.execute("INSERT INTO photos VALUES (10, ?), (11, ?)", [picture(seed=20), CONTENT[0]])
        photos.execute("UPDATE photos SET picture = ? WHERE id = 1", [picture(seed=21)])
        photos.execute("DELETE FROM photos WHERE id IN (0, 6)")
        assert one(photos, "SELECT added, changed, deleted, unchanged FROM jammi_refresh('photos')") == (2, 1, 1, 4)
        # A picture that the table has already is not encoded again.
        assert seen() == 2
        assert (like(photos, 10), like(photos, 1), like(photos, 11)) == ([10], [1], [11])
        assert one(photos, "SELECT new, changed, gone FROM jammi_status('photos')") == (0, 0, 0)
        seen()
        assert one(photos, "SELECT row_count, action FROM jammi_sync('photos', 'picture', 'id')") == (7, "unchanged")
        assert seen() == 0

    def test_reuse_and_resume(self, con, seen, monkeypatch):
        con.execute("DELETE FROM photos WHERE id > 5")
        monkeypatch.setattr(
            "tests.races.generate", lambda con, _: con.execute("FROM jammi_generate('photos', 'picture', 'id')")
        )
        interrupted_build(con)
        assert seen() == 6
        made = one(con, "SELECT row_count FROM jammi_generate('photos', 'picture', 'id', resume := true)")
        assert (made, seen()) == ((6,), 2)
        assert one(con, "SELECT row_count FROM jammi_generate('photos', 'picture', 'id', reuse := true)") == (6,)
        assert seen() == 0

    def test_searches_that_are_current(self, photos):
        query = "SELECT id FROM jammi_search('photos', ?, 1{})"
        new, newer = picture(seed=30), picture(seed=31)
        photos.execute("INSERT INTO photos VALUES (30, ?)", [new])
        assert one(photos, query.format(", fresh := true"), new) == (30,)
        photos.execute("FROM jammi_follow('photos')").fetchall()
        photos.execute("INSERT INTO photos VALUES (31, ?)", [newer])
        assert one(photos, query.format(""), newer) == (31,)

    def test_import(self, photos, clip):
        photos.execute("CREATE TABLE made AS SELECT id, embed(picture) AS v FROM photos WHERE id < 6")
        imported = "jammi_import('photos', 'made', 'id', 'v', model := ?, cols := 'picture')"
        assert one(photos, f"SELECT row_count FROM {imported}", str(clip)) == (6,)
        assert like(photos, 5) == [5]
        photos.execute("DELETE FROM photos WHERE id = 6")
        photos.execute("INSERT INTO photos VALUES (40, ?)", [picture(seed=40)])
        assert one(photos, "SELECT added FROM jammi_refresh('photos')") == (1,)

    def test_vectors_in_a_column(self, photos):
        photos.execute("CREATE TABLE made AS SELECT id, embed(picture) AS v FROM photos WHERE id < 6")
        assert one(photos, "SELECT id FROM jammi_search_column('made', 'v', ?, 1)", CONTENT[2]) == (2,)

    def test_a_picture_has_no_words(self, photos):
        assert "is of pictures, which have no words" in error_of(photos, "FROM jammi_index_words('photos')")
        assert "has no index of words" in error_of(photos, "FROM jammi_search('photos', 'x', 1, mode := 'text')")

    def test_one_column(self, con):
        message = error_of(con, "FROM jammi_generate('photos', ['id', 'picture'], 'id')")
        assert "takes pictures, and id, picture are 2 columns: name the one with the picture" in message
        message = error_of(con, "FROM jammi_infer('photos', ['id', 'picture'], 'id')")
        assert "name the one with the picture" in message

    def test_the_definition_says_so(self, photos, tmp_path):
        (manifest,) = (tmp_path / "st").rglob("*manifest*.json")
        assert '"pictures":true' in manifest.read_text().replace(" ", "")

    def test_reopened(self, clip, tmp_path):
        database = str(tmp_path / "photos.duckdb")
        for fresh in (True, False):
            with jammi_duck.connect(database, storage=tmp_path / "kept", model="fake/none") as con:
                if fresh:
                    con.execute("CREATE TABLE photos AS SELECT 1 AS id, ?::BLOB AS picture", [CONTENT[1]])
                    con.execute("FROM jammi_generate('photos', 'picture', 'id', model := ?)", [f"open-clip:{clip}"])
                con.execute("INSERT INTO photos SELECT max(id) + 1, ? FROM photos", [picture(seed=int(fresh) + 50)])
                assert one(con, "SELECT added FROM jammi_refresh('photos')") == (1,)
                assert like(con, 1) == [1]


class TestPaths:
    @pytest.fixture
    def files(self, con, tmp_path):
        for number, content in enumerate(CONTENT):
            (tmp_path / "pictures" / f"{number}.png").write_bytes(content)
        con.execute(
            "CREATE TABLE files AS SELECT range AS id, ? || range || '.png' AS path FROM range(7)",
            [f"{tmp_path}/pictures/"],
        )
        con.execute("INSERT INTO files VALUES (20, '/etc/passwd'), (21, NULL)")
        return con

    def test_generate_and_search(self, files):
        counts = one(files, "SELECT row_count, skipped_count, failed_count FROM jammi_generate('files', 'path', 'id')")
        assert counts == (6, 1, 2)
        assert [like(files, number, source="files") for number in range(6)] == [[number] for number in range(6)]

    def test_a_file_that_changes_is_not_noticed(self, files, tmp_path, seen):
        files.execute("DELETE FROM files WHERE id > 5")
        files.execute("FROM jammi_generate('files', 'path', 'id')").fetchall()
        (tmp_path / "pictures/3.png").write_bytes(picture(seed=60))
        assert one(files, "SELECT added, changed FROM jammi_refresh('files')") == (0, 0)
        (tmp_path / "pictures/3.png").rename(tmp_path / "pictures/new.png")
        files.execute("UPDATE files SET path = replace(path, '3.png', 'new.png')")
        seen()
        assert one(files, "SELECT added, changed FROM jammi_refresh('files')") == (0, 1)
        assert seen() == 1

    def test_a_query_is_no_path(self, files, tmp_path):
        files.execute("FROM jammi_generate('files', 'path', 'id')").fetchall()
        # It is a text, whatever it looks like.
        assert len(files.execute("FROM jammi_search('files', ?, 2)", [f"{tmp_path}/pictures/1.png"]).fetchall()) == 2

    def test_where_nothing_is_allowed(self, clip, tmp_path):
        con = jammi_duck.connect(storage=tmp_path / "st", model=str(clip))
        con.execute("CREATE TABLE files AS SELECT 1 AS id, '/srv/photos/a.png' AS path")
        message = error_of(con, "FROM jammi_generate('files', 'path', 'id')")
        assert 'pictures are read from no place that is not listed: set [images] allow = ["/srv/photos"]' in message
        assert one(con, "SELECT count(*) FROM jammi_tables() WHERE status = 'ready'") == (0,)


class TestModelsOfTexts:
    def test_a_blob_stays_refused(self, con, tiny_model):
        for statement in (
            "FROM jammi_generate('photos', 'picture', 'id', model := '{}')",
            "FROM jammi_sync('photos', 'picture', 'id', model := '{}')",
            "FROM jammi_infer('photos', 'picture', 'id', model := '{}')",
        ):
            message = error_of(con, statement.format(tiny_model))
            assert "the column 'picture' of 'photos' is a BLOB, which is bytes and no text" in message
        message = error_of(con, f"SELECT embed(picture, '{tiny_model}') FROM photos")
        assert "embed needs a text, and this is a BLOB, which is bytes: write decode(...)" in message

    @pytest.mark.parametrize("vectors", ["true", "false"])
    def test_a_picture_as_a_query(self, con, tiny_model, vectors):
        con.execute("CREATE TABLE docs AS SELECT 1 AS id, 'a duck' AS body")
        model = f", model := '{tiny_model}'" if vectors == "true" else ""
        con.execute(f"FROM jammi_generate('docs', 'body', 'id', vectors := {vectors}{model})").fetchall()
        for statement in (
            "jammi_search('docs', {}, 1)",
            "jammi_matches('docs', {}, 1)",
            "jammi_explain('docs', {}, 1)",
        ):
            message = error_of(con, f"FROM {statement.format('(SELECT picture FROM photos WHERE id = 1)')}")
            assert "the query is a BLOB of" in message
            assert "takes texts only: write decode(...) if it is a text; pictures are searched with a model" in message
        with pytest.raises(InputError, match="the query is a BLOB of"):
            jammi_duck.install(con).search("docs", CONTENT[0], 1).fetchall()

    def test_a_column_of_vectors(self, con, tiny_model):
        con.execute(f"CREATE TABLE made AS SELECT 1 AS id, embed('a duck', '{tiny_model}') AS v")
        message = error_of(con, f"FROM jammi_search_column('made', 'v', encode('x'), 1, model := '{tiny_model}')")
        assert "the query is a BLOB of 1 bytes" in message

    def test_a_text_that_looks_like_one(self, con, tiny_model):
        con.execute("CREATE TABLE docs AS SELECT 1 AS id, 'data:;base64,aGVsbG8=' AS body")
        with pytest.warns(match="longer than the model reads"):
            made = one(con, f"SELECT row_count FROM jammi_generate('docs', 'body', 'id', model := '{tiny_model}')")
        assert made == (1,)
        assert one(con, f"SELECT embed(body, '{tiny_model}') IS NOT NULL FROM docs") == (True,)


class TestFunctionsOfTheUser:
    def test_one_that_takes_bytes(self, con):
        from jammi_duck.embeddings import EmbeddingFunction, register

        @register("picture_sizes")
        class Sizes(EmbeddingFunction):
            def ndims(self):
                return 2

            def compute_source_embeddings(self, values):
                return [[1.0, len(value)] if isinstance(value, bytes) else None for value in values]

            def compute_query_embeddings(self, query):
                return [[1.0, len(query)]]

        assert one(
            con, "SELECT row_count FROM jammi_generate('photos', 'picture', 'id', model := 'picture_sizes')"
        ) == (7,)
        assert one(con, "SELECT id FROM jammi_search('photos', 'broken'::BLOB, 1, model := 'picture_sizes')") == (6,)


@needs_extension
def test_the_stock_shell(folder, clip):  # noqa: F811
    values = ", ".join(f"({number}, from_hex('{CONTENT[number].hex()}'))" for number in (1, 2))
    statements = (
        f"CREATE TABLE photos AS FROM (VALUES {values}) t(id, picture)",
        f"SELECT row_count FROM jammi_generate('photos', 'picture', 'id', model := 'open-clip:{clip}')",
        "SELECT id FROM jammi_search('photos', (SELECT picture FROM photos WHERE id = 2), 1)",
        "SELECT count(*) FROM jammi_search('photos', 'a duck', 5)",
    )
    done = shell("; ".join(statements), "-csv", "-noheader")
    assert (done.stdout.split(), done.stderr) == (["2", "2", "2"], "")


@pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning")
@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning")
def test_the_server(clip, tmp_path):
    adbc = pytest.importorskip("adbc_driver_flightsql.dbapi")
    from tests.serving import config_of, in_process

    file = tmp_path / "my.duckdb"
    with jammi_duck.connect(file, storage=tmp_path / "artifacts", cache_dir=tmp_path / "cache", model=str(clip)) as con:
        con.execute("CREATE TABLE photos(id INTEGER, picture BLOB)")
        con.executemany("INSERT INTO photos VALUES (?, ?)", list(enumerate(CONTENT)))
        con.execute("FROM jammi_generate('photos', 'picture', 'id')").fetchall()
    with in_process(config_of(file, model=str(clip))) as (_, port):
        with adbc.connect(f"grpc://127.0.0.1:{port}") as client, client.cursor() as cursor:
            for query, given in (("?", (CONTENT[3],)), ("(SELECT picture FROM photos WHERE id = 3)", ())):
                cursor.execute(f"SELECT id FROM jammi_search('photos', {query}, 1)", given)
                assert cursor.fetchall() == [(3,)]
            cursor.execute("SELECT len(embed(picture)) FROM photos WHERE id = 1")
            assert cursor.fetchall() == [(32,)]
            cursor.execute("SELECT embed(picture, 'open-clip:ViT-L-14') FROM photos")
            with pytest.raises(Exception, match="this server has no model 'open-clip:ViT-L-14'"):
                cursor.fetchall()
