"""An adapter for `stub_server.py`: what a plug-in author would write, and what the launch tests drive."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from redline.engines.endpoint import Dialect
from redline.engines.engine import Progress, Start
from redline.engines.flags import Flag, FlagTable
from redline.engines.launch import LaunchedServer, Plan, engine_env, interpreter, launch
from redline.engines.ready import Phase
from redline.errors import ModelNotFound, Skipped
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec

SCRIPT = Path(__file__).with_name("stub_server.py")
FLAGS = FlagTable(
    [
        Flag("boot-s", type="float"),
        Flag("fault", kind="value", choices=()),
        Flag("key"),
        Flag("lenient", kind="switch"),
        Flag("seed", type="int"),
    ]
)
DIALECT = Dialect(ignore_eos=True, min_tokens=True, token_id_prompts=True, tokenize=True, continuous_usage=True)


class StubEngine:
    kind = "stub"

    def available(self, spec: EngineSpec) -> Skipped | None:
        interpreter(spec.python)
        return None

    def version(self, spec: EngineSpec) -> str:
        return "1.2.3"

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        return FLAGS.names()

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        FLAGS.check(spec.flags, "stub")
        if "/" in model.id and not Path(model.id).is_dir():
            raise ModelNotFound(f"there is no folder {model.id}")

    def start(self, start: Start, progress: Progress) -> LaunchedServer:
        self.check(start.spec, start.model)
        python = interpreter(start.spec.python)
        flags = FLAGS.arguments({"seed": start.seed, **start.spec.flags})
        plan = Plan(
            engine=self.kind,
            version="1.2.3",
            model=start.model.served_name,
            argv=lambda port: [
                python, str(SCRIPT), "--host", start.spec.host, "--port", str(port),
                "--model", start.model.served_name, *flags,
            ],
            env=engine_env(start.spec, python),
            phases=(Phase("weights", "loading weights", re.compile("Loading weights")),),
            dialect=DIALECT,
            flags=lambda ready, log: {"owned-by": str(ready.model["owned_by"])},
            added={"--seed": str(start.seed)},
        )  # fmt: skip
        return launch(plan, start, progress)


def start_of(folder: Path, flags: dict[str, object] | None = None, **fields: object) -> Start:
    spec = EngineSpec.model_validate({"kind": "stub", "python": sys.executable, "flags": flags or {}, **fields})
    return Start(spec, ModelSpec(id="m"), folder, seed=5)
