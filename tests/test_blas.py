from __future__ import annotations

import os
import subprocess
import sys

import pytest

from redline import blas

SEEN = f"""
import os
from redline import blas
blas.one_thread()
for_engines = dict(os.environ)
blas.leave_alone(for_engines)
print(os.environ.get({blas.NAME!r}), for_engines.get({blas.NAME!r}))
"""


@pytest.mark.parametrize(("users", "ours", "engines"), [(None, "1", None), ("7", "7", "7"), ("1", "1", "1")])
def test_ours_is_one_and_engines_keep_the_users(users: str | None, ours: str, engines: str | None) -> None:
    env = {name: value for name, value in os.environ.items() if name != blas.NAME}
    if users is not None:
        env[blas.NAME] = users
    done = subprocess.run([sys.executable, "-c", SEEN], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(ours), str(engines)]
