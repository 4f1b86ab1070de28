"""`python -m jammi_duck.doors.cli` is `jammi-duck`."""

from jammi_duck.doors.cli import program

program()
