"""Entry points: Python connections, the command line, and the worker of the stock shell."""
