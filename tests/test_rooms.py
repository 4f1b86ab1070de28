"""The rooms of the package: what they may import, and that what they import is declared."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def modules(*rooms):
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


class WithoutTypes(ast.NodeTransformer):
    """What runs: not what is imported for type checkers only, such as the types of DataFrames."""

    def visit_If(self, node):
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imported(path):
    """The names of the packages that a module imports, wherever it does."""
    for node in ast.walk(WithoutTypes().visit(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


def declared(requirements):
    return {re.match(r"[\w-]+", each).group().lower().replace("_", "-") for each in requirements}


def test_every_import_is_a_declared_dependency():
    extras = PROJECT["optional-dependencies"]
    named = (each for name in extras if name not in ("test", "dev") for each in extras[name])
    allowed = declared([*PROJECT["dependencies"], *named])
    distributions = packages_distributions()
    missing = {
        (path.name, name)
        for path in modules("jammi_duck", "udfs", "storage")
        for name in imported(path)
        if name != "jammi_duck" and name not in sys.stdlib_module_names
        if not {each.lower().replace("_", "-") for each in distributions.get(name, [name])} & allowed
    }
    assert missing == set()


def test_every_room_says_what_it_is_for():
    rooms = [path for path in (ROOT / room for room in ("jammi_duck", "udfs", "storage")) if path.is_dir()]
    for path in (each for room in rooms for each in room.rglob("__init__.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_sql_is_made_of_templates_that_are_constants():
    makers = [path for path in modules("jammi_duck", "udfs", "storage") if "from jammi_duck.sql" in path.read_text()]
    assert len(makers) > 20
    for path in makers:
        for call in (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)):
            if getattr(call.func, "id", None) in ("sql", "template", "joined"):
                text = call.args[0]
                assert isinstance(text, ast.Constant), f"{path}:{call.lineno}: a template that is no constant"
