"""Compare two export profiles of one run: size, time of a query, and agreement.

python examples/compare_exports.py runs/demo export/onnx_fp32.py export/cpu_int8.py
"""

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

import finegrain
from finegrain.encoder import Encoder
from finegrain.exporters import load_profile
from finegrain.plan import Plan

TEXTS = ["woman in red coat", "man with a black backpack", "a person in blue jeans and sneakers"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("profiles", type=Path, nargs=2)
    arguments = parser.parse_args()

    with TemporaryDirectory() as folder:
        vectors = []
        for profile in arguments.profiles:
            out = Path(folder) / f"{profile.stem}.plan"
            finegrain.export(arguments.run, load_profile(profile), out)
            encoder = Encoder.from_plan(Plan(out))
            vectors.append(encoder.encode_texts(TEXTS))
            milliseconds = 1000 * median(timed(encoder) for _ in range(20))
            size = out.stat().st_size / 1e6
            print(f"{profile.stem:16} {size:7.1f} MB   {milliseconds:6.2f} ms a text")
    cosines = np.sum(vectors[0] * vectors[1], axis=1)
    print(f"least cosine between their embeddings of {len(TEXTS)} texts: {cosines.min():.5f}")


def timed(encoder: Encoder) -> float:
    """Seconds that one text takes."""
    start = perf_counter()
    encoder.encode_texts(TEXTS[:1])
    return perf_counter() - start


if __name__ == "__main__":
    main()
