"""Does a stored model answer as it did in training? Run in a process of its own: `python -m tasks.smoke FOLDER SHA256`."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from tasks.errors import Corrupted, WindvaneError

# Loading scikit-learn and answering twenty rows takes seconds; a process that needs minutes hangs.
TIMEOUT = 300


def test(folder: Path, manifest_sha256: str) -> None:
    """Load the model in a fresh process and compare its answers; raises WindvaneError with what was wrong."""
    command = [sys.executable, "-m", "tasks.smoke", str(folder), manifest_sha256]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise WindvaneError(f"the stored model failed its smoke test and is not promoted: {done.stderr.strip()[-500:]}")


def check(folder: Path, manifest_sha256: str) -> None:
    """Load the stored model here and compare its predictions on the stored sample with those made in training."""
    import numpy as np
    import pandas as pd

    from tasks.artifacts import SAMPLE, load, verify

    sample = pd.read_parquet(io.BytesIO(verify(folder, manifest_sha256)[SAMPLE]))
    expected = sample.pop("_prediction").to_numpy()
    answered = np.asarray(load(folder, manifest_sha256).predict(sample))
    same = (
        np.allclose(answered, expected, rtol=1e-9) if expected.dtype.kind == "f" else bool((answered == expected).all())
    )
    if not same:
        raise Corrupted(f"{folder}: answers differently than in training. Teach again with `windvane train`")


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]), sys.argv[2])
    except WindvaneError as e:
        sys.exit(str(e))
