from __future__ import annotations

from pathlib import Path

import pytest

from redline.store.scrub import CUT, Scrubber, secret_name

SECRET = "Zx81-correct-horse"


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "hf-token", "OPENAI_API_KEY", "api-key", "apiKey", "dbPassword", "Authorization", "auth-token"),
        *(
            "AWS_SECRET_ACCESS_KEY",
            "client_secret",
            "X-Api-Key",
            "cookie",
            "WANDB_KEY",
            "github.token",
            "ssl-passphrase",
        ),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("max-num-batched-tokens", "prompt_tokens", "tokenizer", "tokenizer-mode", "token_source", "eos_token"),
        *("image_token_id", "ms_per_output_token", "tokens_per_s", "api_key_env", "KeyError", "SSH_AUTH_SOCK", "key"),
        *("keyboard", "monkey", "ssl-key-file", "max_tokens", "first_token_ns", "tokens", "bos_token", "pad-token-id"),
    ],
)
def test_names_that_only_look_like_it(name: str) -> None:
    assert not secret_name(name)


@pytest.mark.parametrize(
    "argv",
    [
        ["redline", "bench", "--api-key", SECRET, "--concurrency", "1,10"],
        ["redline", "bench", f"--api-key={SECRET}", "--concurrency", "1,10"],
        ["redline", "bench", "--env", f"HF_TOKEN={SECRET}", "--concurrency", "1,10"],
        ["redline", "bench", f"--env=HF_TOKEN={SECRET}", "--concurrency", "1,10"],
        ["redline", "bench", f"--url=http://me:{SECRET}@host:8000/v1", "--concurrency", "1,10"],
        ["redline", "bench", "--url", f"http://host/v1?api_key={SECRET}&x=1", "--concurrency", "1,10"],
        ["redline", "bench", "--header", f"Authorization: Bearer {SECRET}", "--concurrency", "1,10"],
    ],
)
def test_a_command_line_keeps_everything_but_the_secret(argv: list[str]) -> None:
    clean = Scrubber({}).argv(argv)
    assert SECRET not in " ".join(clean)
    assert CUT in " ".join(clean)
    assert clean[:2] == argv[:2]
    assert clean[-2:] == argv[-2:]


def test_harmless_command_lines_stay_as_they_are() -> None:
    argv = [
        "redline",
        "compare",
        "--flag",
        "max-num-batched-tokens=2048",
        "--tokenizer",
        "some/where",
        "--output-tokens",
        "64",
    ]
    argv += ["--url", "http://127.0.0.1:8000/v1", "--api-key-env", "OPENAI_API_KEY"]
    assert Scrubber({}).argv(argv) == argv


def test_nested_data_and_the_same_value_again_in_free_text() -> None:
    scrub = Scrubber({})
    clean = scrub.value(
        {
            "engines": [
                {"env": {"HF_TOKEN": SECRET, "OMP_NUM_THREADS": "2"}, "flags": {"api-key": [SECRET], "port": 80}}
            ],
            "api_key_env": "MY_KEY",
            "eos_token": "</s>",
            "ms_per_output_token": 3.5,
            "password": 12345678,
            "hf_token": None,
            "token": "",
        }
    )
    assert clean == {
        "engines": [{"env": {"HF_TOKEN": CUT, "OMP_NUM_THREADS": "2"}, "flags": {"api-key": [CUT], "port": 80}}],
        "api_key_env": "MY_KEY",
        "eos_token": "</s>",
        "ms_per_output_token": 3.5,
        "password": CUT,
        "hf_token": None,
        "token": "",
    }
    assert scrub.text(f"401 for key {SECRET}, try again") == f"401 for key {CUT}, try again"


@pytest.mark.parametrize(
    "text",
    [
        "hf_abcdEFGHijklMNOPqrst",
        "curl -H 'Authorization: Bearer abcdef123456'",
        "X-Api-Key: abcdef123456",
        "sk-proj-abcdef1234567890abcd",
        "http://user:abcdef123456@host/x",
        "Namespace(api_key=['abcdef123456'], port=1)",
        "--hf-token abcdef123456 --port 1",
        "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeKKF2QT4",
    ],
)
def test_what_looks_like_a_secret_is_cut(text: str) -> None:
    clean = Scrubber({}).text(text)
    assert CUT in clean
    for part in ("abcdef123456", "abcdEFGHij", "abcdef1234567890", "SflKxw"):
        assert part not in clean


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'hidden_size'",
        "ValueError: token: 5 is out of range",
        "Unexpected token: '}' at line 1",
        "http://127.0.0.1:8000/v1 answered 500 with 128 tokens: max_tokens=64, eos_token=</s>",
        "api_key=None",
        "mail me@example.org about https://example.org/a",
    ],
)
def test_ordinary_messages_stay_as_they_are(text: str) -> None:
    assert Scrubber({}).text(text) == text


def test_credentials_of_the_environment_are_cut_out_of_files(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"\xff loading\nusing token " + SECRET.encode() + b"\nmode default\n")
    scrub = Scrubber({"HF_TOKEN": SECRET, "DB_PASSWORD": "default", "HOME": "/home/me"})
    assert scrub.file(log)
    assert log.read_bytes() == b"\xff loading\nusing token ***\nmode default\n"
    assert not scrub.file(log)
