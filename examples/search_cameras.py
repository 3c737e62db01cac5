"""Search crops of several cameras: filter by camera and time, and show each person once.

The folder has one subfolder for each camera. The time of a crop is that of its file.

    python examples/search_cameras.py model.plan crops/ "man with a backpack" --camera gate-3
"""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import finegrain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("query")
    parser.add_argument("--camera", help="search this camera only")
    parser.add_argument("--hours", type=float, default=24, help="search the last hours (24)")
    parser.add_argument("--keep-days", type=float, default=30, help="delete crops after (30)")
    arguments = parser.parse_args()

    with finegrain.Searcher(arguments.plan) as searcher:
        for camera in sorted(path for path in arguments.folder.iterdir() if path.is_dir()):
            crops = sorted(path for path in camera.rglob("*") if path.is_file())
            columns = [{"camera": camera.name, "time": modified(path)} for path in crops]
            keep = timedelta(days=arguments.keep_days)
            print(camera.name, searcher.add(crops, metadata=columns, expire_after=keep))

        since = datetime.now(UTC) - timedelta(hours=arguments.hours)
        where = f"time >= '{since:%Y-%m-%dT%H:%M}'"
        if arguments.camera:
            where += f" and camera = '{arguments.camera}'"
        # Neighbouring frames of one person are nearly equal; distinct keeps the best of them.
        print(searcher.query(arguments.query, k=10, where=where, distinct=0.98))


def modified(path: Path) -> str:
    """The time at which a file was changed, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()


if __name__ == "__main__":
    main()
