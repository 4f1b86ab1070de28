"""A model from the hub: a server on loopback plays it, and notes what it was asked for."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"

CARD = """---
license: mit
---
# Tiny
A small model for tests.
"""

FETCH = """
from jammi_duck.encoder.loaded import LoadedEncoders
encoder = LoadedEncoders(4, 1).get("acme/tiny")
print(encoder.description.name, encoder.description.revision, encoder.encode(["duck"]).shape)
"""


@pytest.fixture
def hub(tiny_model):
    """The address of a hub that has `acme/tiny`, with a pickle and some code beside the model, and what it served."""
    files = {str(path.relative_to(tiny_model)): path.read_bytes() for path in tiny_model.rglob("*") if path.is_file()}
    files |= {"pytorch_model.bin": b"a pickle", "modeling.py": b"raise RuntimeError", "README.md": CARD.encode()}
    served = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.split("?")[0]
            prefix = f"/acme/tiny/resolve/{COMMIT}/"
            if path.startswith("/api/models/acme/tiny/tree/"):
                listing = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                self.answer(json.dumps(listing).encode())
            elif path.startswith("/api/models/acme/tiny"):
                siblings = [{"rfilename": name} for name in files]
                self.answer(json.dumps({"id": "acme/tiny", "sha": COMMIT, "siblings": siblings}).encode())
            elif path.startswith(prefix) and path.removeprefix(prefix) in files:
                served.append(path.removeprefix(prefix))
                self.answer(files[path.removeprefix(prefix)])
            else:
                self.send_error(404)

        def answer(self, content):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(hub, home, *command, **more):
    settings = {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        **more,
    }
    command = command or ("-c", FETCH)
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
    )


def test_only_what_a_model_needs_is_fetched_and_then_kept(hub, tmp_path):
    address, served = hub
    done = fetch(address, tmp_path)
    assert done.stdout == f"acme/tiny {COMMIT} (1, 32)\n", done.stderr
    needed = {"model.safetensors", "tokenizer.json", "config.json", "modules.json", "1_Pooling/config.json"}
    assert needed | {"README.md"} <= set(served)
    assert not {"pytorch_model.bin", "modeling.py"} & set(served)
    served.clear()
    again = fetch(address, tmp_path, HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout, again.stderr
    assert served == []


def test_offline_asks_nobody(hub, tmp_path):
    address, served = hub
    done = fetch(address, tmp_path, HF_HUB_OFFLINE="1")
    assert "no model 'acme/tiny'" in done.stderr
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert served == []


class TestPull:
    CLI = ("-m", "jammi_duck.doors.cli", "models")

    def test_fetches_once_and_then_it_is_here(self, hub, tmp_path):
        address, served = hub
        done = fetch(address, tmp_path, *self.CLI, "pull", "acme/tiny")
        path = tmp_path / "hub" / "models--acme--tiny" / "snapshots" / COMMIT
        assert (done.returncode, done.stdout) == (0, f"acme/tiny is fetched: {path}\n"), done.stderr
        served.clear()
        again = fetch(address, tmp_path, *self.CLI, "pull", "acme/tiny")
        assert (again.returncode, again.stdout) == (0, f"acme/tiny is here already: {path}\n")
        assert served == []
        described = fetch(address, tmp_path, *self.CLI, "desc", "acme/tiny").stdout
        for part in (
            "│ Tiny │",
            "A small model for tests.",
            "licence          mit",
            "https://huggingface.co/acme/tiny",
        ):
            assert part in described
        assert "acme/tiny\tTiny\n" in fetch(address, tmp_path, *self.CLI, "list", HF_HUB_OFFLINE="1").stdout

    def test_a_fetch_that_was_cut_short_is_taken_up_again(self, hub, tmp_path):
        address, _ = hub
        fetch(address, tmp_path, *self.CLI, "pull", "acme/tiny")
        weights = tmp_path / "hub" / "models--acme--tiny" / "snapshots" / COMMIT / "model.safetensors"
        weights.unlink()
        assert "acme/tiny" not in fetch(address, tmp_path, *self.CLI, "list").stdout
        assert "is fetched" in fetch(address, tmp_path, *self.CLI, "pull", "acme/tiny").stdout
        assert weights.exists()

    def test_what_the_hub_does_not_have(self, hub, tmp_path):
        done = fetch(hub[0], tmp_path, *self.CLI, "pull", "acme/none")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("jammi-duck: no model 'acme/none'")
        assert "Traceback" not in done.stderr
