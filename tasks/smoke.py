"""Does a stored model answer as it did in training? Asked in a process of its own, which is started early: it mostly imports."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from windvane.tasks.errors import Corrupted, WindvaneError

# Loading a model and answering twenty rows takes seconds; a process that needs minutes hangs.
TIMEOUT = 300


class Tester:
    """A fresh process that has imported what a model needs and waits to be told which. It ends when this one does."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-P", "-m", "windvane.tasks.smoke"]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True)

    def test(self, folder: Path, manifest_sha256: str) -> None:
        """Have the process load the model and compare its answers. Raises WindvaneError with what was wrong."""
        try:
            _, said = self._process.communicate(json.dumps([str(folder), manifest_sha256]), timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.close()
            said = f"no answer within {TIMEOUT} seconds"
        if self._process.returncode != 0:
            raise WindvaneError(f"the stored model failed its smoke test and is not promoted: {said.strip()[-500:]}")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


def check(folder: Path, manifest_sha256: str) -> None:
    """Load the stored model here and compare its predictions on the stored sample with those made in training."""
    import numpy as np
    import pandas as pd

    from windvane.tasks.artifacts import SAMPLE, load, verify

    sample = pd.read_parquet(io.BytesIO(verify(folder, manifest_sha256, [SAMPLE])[SAMPLE]))
    expected = sample.pop("_prediction").to_numpy()
    answered = np.asarray(load(folder, manifest_sha256).predict(sample))
    same = (
        np.allclose(answered, expected, rtol=1e-9) if expected.dtype.kind == "f" else bool((answered == expected).all())
    )
    if not same:
        raise Corrupted(f"{folder}: answers differently than in training. Teach again with `windvane train`")


def main() -> int:
    """Import first, then read from standard input which model to try."""
    if hasattr(os, "nice"):
        # These imports take seconds of a core that the search's fits would miss; there is time until a model is built.
        os.nice(15)
    import pandas as pd  # noqa: F401
    import skops.io  # noqa: F401

    import windvane.tasks.features  # noqa: F401

    told = sys.stdin.read()
    if not told:
        return 0  # whoever started this process needs it no more
    try:
        check(Path(json.loads(told)[0]), json.loads(told)[1])
    except WindvaneError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
