# ruff: noqa: E501 - real log lines are long
"""One real line of a real death for every row of the table."""

from __future__ import annotations

import pytest

from redline.engines.diagnose import TABLE, diagnose

CORE = "(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] "
API = "(APIServer pid=12520)   "
WORKER = "(Worker pid=12451) ERROR 11-23 19:13:15 [multiproc_executor.py:944] "

LINES = [
    ("port-in-use", "OSError: [Errno 98] Address already in use"),
    (
        "port-in-use",
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
    ),
    ("unknown-flag", "api_server.py: error: unrecognized arguments: --max-num-sequences"),
    ("bad-flag", "api_server.py: error: argument --max-num-seqs: invalid int value: 'abc'"),
    ("bad-flag", "api_server.py: error: argument --dtype: invalid choice: 'bf16' (choose from 'auto', 'half')"),
    (
        "gpu-busy",
        CORE + "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory utilization"
        " (0.9, 3.6 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    ),
    (
        "gpu-busy",
        WORKER
        + "ValueError: Free memory on device cuda:0 (111.99/139.8 GiB) on startup is less than desired GPU memory"
        " utilization (0.95, 132.81 GiB).",
    ),
    (
        "kv-cache-too-small",
        "ERROR 11-18 18:07:28 engine.py:366] ValueError: No available memory for the cache blocks. Try increasing"
        " `gpu_memory_utilization` when initializing the engine.",
    ),
    (
        "kv-cache-too-small",
        CORE + "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is"
        " needed, which is larger than the available KV cache memory (8.91 GiB). Based on the available memory, the"
        " estimated maximum model length is 72944.",
    ),
    (
        "kv-cache-too-small",
        "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in"
        " KV cache (21984). Try increasing `gpu_memory_utilization` or decreasing `max_model_len`",
    ),
    (
        "host-out-of-memory",
        "(EngineCore pid=13300) RuntimeError: Worker failed with error 'Available memory on node 0 (7.19/9.21 GiB) on kv"
        " cache allocation is less than requested memory for kv (900.0 GiB).",
    ),
    (
        "host-out-of-memory",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
        "{'EngineCore_DP0': -9}",
    ),
    (
        "host-out-of-memory",
        "[Thu Aug 27 00:39:44 2026] Out of memory: Killed process 3742074 (lmcache) total-vm:81306880kB, anon-rss:1058kB",
    ),
    (
        "host-out-of-memory",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        " to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)",
    ),
    (
        "out-of-memory",
        "(EngineCore_DP0 pid=556790) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 80.00 MiB. GPU 0 has a"
        " total capacity of 139.72 GiB of which 60.69 MiB is free.",
    ),
    (
        "out-of-memory",
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try lowering"
        " `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
    ),
    ("out-of-memory", "Cuda failure 'out of memory'"),
    (
        "driver-too-old",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver",
    ),
    ("driver-too-old", "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version"),
    ("no-cuda", "RuntimeError: No CUDA GPUs are available"),
    ("no-cuda", "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    ("no-cuda", "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory"),
    ("no-cuda", "AssertionError: Torch not compiled with CUDA enabled"),
    (
        "no-cuda",
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`",
    ),
    (
        "gpu-too-old",
        "ERROR 07-28 15:07:22 [core.py:632] RuntimeError: CUDA error: no kernel image is available for execution on the"
        " device",
    ),
    (
        "gpu-too-old",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has"
        " compute capability 7.5.",
    ),
    (
        "too-few-gpus",
        API + "Value error, World size (4) is larger than the number of available GPUs (1) in this node.",
    ),
    (
        "too-few-gpus",
        "(EngineCore pid=13244) AssertionError: Not enough allowed NUMA nodes to bind threads of 4 local CPUWorkers.",
    ),
    (
        "unsupported-architecture",
        API + "Value error, Model architectures ['NopeForCausalLM'] are not supported for now. Supported architectures:"
        " dict_keys(['AfmoeForCausalLM', 'ApertusForCausalLM'])",
    ),
    (
        "unsupported-architecture",
        "ValueError: The checkpoint you are trying to load has model type `nope` but Transformers does not recognize this"
        " architecture. This could be because of an issue with the checkpoint",
    ),
    (
        "gated-model",
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-66f4b037)",
    ),
    ("gated-model", "OSError: You are trying to access a gated repo."),
    ("missing-tokenizer", "(APIServer pid=12684) ValueError: Couldn't instantiate the backend tokenizer from one of: "),
    (
        "missing-weights",
        WORKER + "RuntimeError: Cannot find any model weights with `f/noweights`",
    ),
    ("missing-weights", "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge"),
    ("missing-model", API + "Value error, Invalid repository ID or local directory specified: 'f/noconfig'."),
    (
        "missing-model",
        "(APIServer pid=13062) huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot"
        " folder for the specified revision on the local disk and outgoing traffic has been disabled.",
    ),
    (
        "missing-model",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached"
        " files.",
    ),
    (
        "remote-code",
        "ValueError: The repository contains custom code which must be executed to correctly load the model. You can"
        " inspect it. Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
    ),
    (
        "context-too-long",
        API + "Value error, User-specified max_model_len (100000) is greater than the derived max_model_len"
        " (max_position_embeddings=2048.0 or model_max_length=None in model's config.json).",
    ),
    ("wrong-build", "ImportError: /w/vllm/_C.abi3.so: undefined symbol: _ZN5torch3jit17parseSchemaOrNameERKSsb"),
    ("wrong-build", "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by x.so)"),
    ("missing-compiler", "RuntimeError: Failed to find C compiler. Please specify via CC environment variable."),
    ("missing-compiler", "/tmp/tmpx/cuda_utils.c:6:10: fatal error: Python.h: No such file or directory"),
    ("missing-compiler", "/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found"),
    ("missing-compiler", "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'"),
    ("missing-module", "ModuleNotFoundError: No module named 'vllm'"),
    ("missing-module", "/usr/bin/python3: No module named vllm.entrypoints"),
    ("missing-module", "ImportError: cannot import name 'GenerationMixin' from 'transformers.generation'"),
    ("wrong-python", "SyntaxError: invalid syntax"),
    (
        "shared-memory",
        "misc/shmutils.cc:129 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Ewjreo (size 33030528),"
        " error: No space left on device (28)",
    ),
    ("disk-full", "OSError: [Errno 28] No space left on device: '/root/.cache/vllm'"),
    ("too-many-files", "OSError: [Errno 24] Too many open files"),
    ("illegal-instruction", "Fatal Python error: Illegal instruction"),
    (
        "no-cpu-kernel",
        WORKER
        + "RuntimeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s).",
    ),
    ("no-cpu-kernel", "(EngineCore pid=1) RuntimeError: Cannot inspect kernel parameters"),
    ("permission", "PermissionError: [Errno 13] Permission denied: '/models/config.json'"),
    ("crash", "Fatal Python error: Segmentation fault"),
    (
        "bad-configuration",
        API + "Value error, Unterminated string starting at: line 1 column 984 (char 983) [type=value_error]",
    ),
]


@pytest.mark.parametrize(("tag", "line"), LINES)
def test_real_lines(tag: str, line: str) -> None:
    noise = "(APIServer pid=1) INFO 11-23 19:09:29 [api_utils.py:286] non-default args: {'port': 1}\n"
    after = "\nRuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
    found = diagnose(f"{noise}{line}{after}", 1)
    assert found.tag == tag
    assert found.line[:40] in line
    assert len(found.line) <= 300
    assert found.meaning
    assert found.fix


def test_every_row_has_a_real_line() -> None:
    assert {symptom.tag for symptom in TABLE} == {tag for tag, _ in LINES}


@pytest.mark.parametrize(
    ("status", "tag"),
    [(-9, "host-out-of-memory"), (137, "host-out-of-memory"), (-4, "illegal-instruction"), (132, "illegal-instruction"),
     (-11, "crash"), (-6, "crash"), (-7, "shared-memory"), (1, ""), (0, ""), (None, ""), (-15, "")],
)  # fmt: skip
def test_exit_status_speaks_when_the_log_is_silent(status: int | None, tag: str) -> None:
    assert diagnose("loading\n", status).tag == tag


def test_the_log_is_believed_before_the_exit_status() -> None:
    assert diagnose("torch.OutOfMemoryError: CUDA out of memory.", -9).tag == "out-of-memory"


HARMLESS = """\
WARNING 11-23 19:09:59 [indexer_topk.py:29] Failed to import the DeepSelect extension: No module named 'vllm._deepselect_C'
(APIServer pid=10923) WARNING 11-23 19:09:29 [system_utils.py:299] Found ulimit of 20000 and failed to automatically \
increase with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many \
open files`. Consider increasing with ulimit -n
INFO:     127.0.0.1:1 - "POST /v1/completions HTTP/1.1" 500 CUDA out of memory
(Worker pid=11367) INFO 11-23 19:10:42 [cpu_model_runner.py:130] Starting to load model; address already in use is fine
[W1123 19:10:42.668326781 utils.cpp:68] Warning: No space left on device
"""


def test_what_a_healthy_engine_prints_is_no_diagnosis() -> None:
    assert diagnose(HARMLESS, None).tag == ""


def test_an_unknown_death_shows_its_last_real_error() -> None:
    log = (
        'Traceback (most recent call last):\n    raise ValueError(f"Load format `{load_format}` is not supported")\n'
        f"{WORKER}ValueError: Load format `zzz` is not supported\n"
        "(APIServer pid=12276) RuntimeError: Engine core initialization failed. See root cause above."
    )
    found = diagnose(log, 1)
    assert (found.tag, found.line) == ("", "ValueError: Load format `zzz` is not supported")
