"""`python -m jammi_duck.cli` is `jammi-duck`."""

from jammi_duck.cli import program

program()
