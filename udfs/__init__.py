"""The SQL functions: scalar functions, and the macros over them. The work itself is done in other rooms."""
