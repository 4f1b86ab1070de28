"""The SQL: scalar functions and the macros over them. Shapes, names and NULL rules only; the work is elsewhere."""
