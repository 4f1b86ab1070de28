"""A played endpoint as a process: `python -m tests.endpoint --delay 0.05 --at-once 8`.

The first line that it prints is its URL; `GET /played` there has its sums. It ends with its standard input.
"""

import argparse
import sys

from tests.endpoint.server import KEY, Endpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="by default, a free one")
    parser.add_argument("--delay", type=float, default=0, help="seconds that each answer takes")
    parser.add_argument("--at-once", type=int, help="requests at once; further ones get 429")
    parser.add_argument("--dimensions", type=int, help="of vectors, where a request does not say")
    parser.add_argument("--key", default=KEY)
    options = parser.parse_args()
    endpoint = Endpoint(
        port=options.port, delay=options.delay, most_at_once=options.at_once, dimensions=options.dimensions,
        key=options.key, keeps=False,
    )  # fmt: skip
    with endpoint:
        print(endpoint.url(), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
