"""Entry point of the command line. It handles Ctrl-C from before the large imports on."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit status."""
    try:
        from finegrain.cli.parser import main as run

        return run()
    except KeyboardInterrupt:
        print("finegrain: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
