"""Where the command line begins: ready for Ctrl-C before anything large is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; the exit status."""
    try:
        from finegrain.cli.parser import main as run

        return run()
    except KeyboardInterrupt:
        print("finegrain: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
