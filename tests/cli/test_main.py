from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from redline.cli.main import VERBS
from redline.spec.load_file import load_experiment

HEAVY = {"numpy", "pydantic", "torch", "transformers", "altair", "redline.spec.experiment", "sqlite3"}


def redline(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "redline", *arguments], capture_output=True, text=True, timeout=50)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_help_names_every_verb() -> None:
    text = redline("--help").stdout
    assert all(f" {verb} " in text for verb in VERBS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['redline', '--help']\nfrom redline.cli.main import run\n"
    code += "try:\n run()\nexcept SystemExit: pass\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_line_in_the_docs(verb: str) -> None:
    assert "Usage: redline " + verb in redline(verb, "--help").stdout
    docs = "\n".join(page.read_text() for page in [Path("README.md"), *Path("docs").glob("*.md")])
    assert f"redline {verb}" in docs


def test_print_experiment_reads_back(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "transformers,vllm", "--concurrency", "1,10", "--slo-ttft", "200"]
    text = redline("compare", *flags, "--print-experiment").stdout
    (tmp_path / "e.yaml").write_text(text)
    again = redline("compare", "-f", str(tmp_path / "e.yaml"), "--print-experiment").stdout
    assert again == text
    experiment = load_experiment(tmp_path / "e.yaml", {})
    assert experiment.load.concurrency == [1, 10]
    assert experiment.slo.ttft_ms == 200
    assert [spec.label for spec in experiment.engines] == ["transformers-plain", "transformers-continuous", "vllm"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--engines", "transformers"], "--model is missing"),
        (["compare", "--model", "bundled:tiny", "--engines", "transformer"], "transformers"),
        (["compare", "--model", "bundled:tiny", "--engines", "vllm", "--set", "load.drian_s=3"], "drain_s"),
        (["compare", "-f", "no-such-file.yaml"], "no-such-file.yaml"),
        (["bench", "--url", "http://127.0.0.1:9/v1"], "--model is missing"),
    ],
)
def test_wrong_use_says_what_to_do_and_exits_with_two(arguments: list[str], said: str) -> None:
    done = redline(*arguments, code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_verb() -> None:
    assert "No such command" in redline("comprae", code=2).stderr
