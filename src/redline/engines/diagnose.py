"""Why did it die: known lines in an engine's log, what they mean, and what to do.

Only lines that are not INFO, WARNING or DEBUG count: engines complain about missing optional parts and then run well.
Rows are tried in order; more particular ones come first, because a root cause drags general errors behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """`tag` is empty when nothing known matched; `line` is the line that gave it away, or the last error there is."""

    tag: str
    meaning: str
    fix: str
    line: str = ""


@dataclass(frozen=True)
class Symptom:
    """`pattern` is searched in each line; `signals` are deaths that mean the same, when no line says anything."""

    tag: str
    pattern: str
    meaning: str
    fix: str
    signals: tuple[int, ...] = ()

    def diagnosis(self, line: str = "") -> Diagnosis:
        return Diagnosis(self.tag, self.meaning, self.fix, line)


QUIET = re.compile(r"^(?:\([^)]*\) )*\[?(?:INFO|WARNING|DEBUG|W\d{4})\b|^INFO:|^WARNING:")
PREFIX = re.compile(r"^(?:\([^)]*\) )*(?:(?:ERROR|CRITICAL) [\d-]+ [\d:.]+ \[[^\]]*\] )?")
ERROR_LINE = re.compile(r"^[\w.]*(?:Error|Exception): ")
ECHO = re.compile(r"See root cause above|EngineDeadError|WorkerProc initialization failed|stack trace above")

SMALLER = "Lower --max-model-len, --max-num-seqs or --gpu-memory-utilization, quantize, or use more GPUs."
TABLE: tuple[Symptom, ...] = (
    Symptom(
        "port-in-use",
        r"[Aa]ddress already in use|Errno 98\b",
        "Another process took the port.",
        "Choose another port, or 0 for any free one.",
    ),
    Symptom(
        "unknown-flag",
        r"error: unrecognized arguments?:|No such option:|unexpected argument '--|got an unexpected keyword argument '",
        "The engine does not know a flag.",
        "Compare it with the engine's own --help; flags come and go between versions.",
    ),
    Symptom(
        "bad-flag",
        r"error: argument --?[\w/-]+.*: (?:invalid|expected)|error: argument .*: not allowed with",
        "A flag has a value that the engine does not accept.",
        "Correct the value; the engine's --help lists what is possible.",
    ),
    Symptom(
        "gpu-busy",
        r"Free memory on device.*is less than desired GPU memory utilization",
        "Other processes hold memory of this GPU.",
        "End them (nvidia-smi shows them), choose another GPU, or lower --gpu-memory-utilization.",
    ),
    Symptom(
        "kv-cache-too-small",
        r"No available memory for the cache blocks"
        r"|(?:larger|greater) than the (?:available|maximum number of).*KV cache",
        "The weights fit, but what memory is left holds too little KV cache.",
        "Lower --max-model-len, raise --gpu-memory-utilization (CPU build: VLLM_CPU_KVCACHE_SPACE), or quantize.",
    ),
    Symptom(
        "host-out-of-memory",
        r"oom-kill|Out of memory: Killed|Cannot allocate memory|^MemoryError|DefaultCPUAllocator: can't allocate"
        r"|Available memory on node .* is less than|Failed core proc\(s\): \{[^}]*: -9",
        "The machine's main memory ran out, or the kernel killed the process that took the most.",
        "Use a smaller model or KV cache (CPU build: VLLM_CPU_KVCACHE_SPACE), or raise the container's memory limit.",
        signals=(9,),
    ),
    Symptom(
        "out-of-memory",
        r"CUDA out of memory|OutOfMemoryError|Cuda failure '?out of memory|not enough GPU memory"
        r"|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory",
        "The GPU's memory ran out.",
        SMALLER,
    ),
    Symptom(
        "driver-too-old",
        r"NVIDIA driver on your system is too old|driver version is insufficient|CUDA_ERROR_COMPAT_NOT_SUPPORTED"
        r"|unsupported display driver / cuda driver combination",
        "The engine was built for a newer CUDA than the NVIDIA driver supports.",
        "Update the driver, or install a build for the CUDA version that nvidia-smi shows.",
    ),
    Symptom(
        "no-cuda",
        r"No CUDA GPUs are available|Found no NVIDIA driver|libcuda\.so\.1: cannot open|Failed to infer device type"
        r"|Torch not compiled with CUDA|no CUDA-capable device|lib(?:cudart|torch_cuda)\.so[.\d]*: cannot open",
        "This build of the engine needs an NVIDIA GPU with its driver, and finds none.",
        "Check nvidia-smi and CUDA_VISIBLE_DEVICES; in a container pass the GPUs in; without a GPU use a CPU build.",
    ),
    Symptom(
        "gpu-too-old",
        r"no kernel image is available|Bfloat16 is only supported on GPUs"
        r"|[Mm]inimum capability: \d+\. Current capability",
        "This GPU's generation is not served by the engine's build or by the number format that was asked for.",
        "Use another dtype or quantization, or a build of the engine for this GPU.",
    ),
    Symptom(
        "too-few-gpus",
        r"World size \(\d+\) is larger than the number of available GPUs|invalid device ordinal"
        r"|Not enough allowed NUMA nodes",
        "More parallel workers were asked for than this machine has devices.",
        "Lower --tensor-parallel-size (and pipeline, data parallel size).",
    ),
    Symptom(
        "unsupported-architecture",
        r"architectures? .* (?:is|are) not supported|does not recognize this architecture|Unrecognized model in"
        r"|Unrecognized configuration class",
        "This version of the engine does not know the model's architecture.",
        "Update the engine (and its transformers), or check `architectures` in the model's config.json.",
    ),
    Symptom(
        "gated-model",
        r"GatedRepoError|Cannot access gated repo|trying to access a gated repo",
        "The model's owner gives access on request, and this machine is not logged in with an account that has it.",
        "Ask for access on the model's page and set HF_TOKEN in the engine's env.",
    ),
    Symptom(
        "missing-tokenizer",
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer|no tokenizer (?:file|config)"
        r"|Tokenizer class .* does not",
        "The model has no tokenizer that could be loaded.",
        "Put tokenizer.json and tokenizer_config.json beside the weights, or name one with `tokenizer`.",
    ),
    Symptom(
        "missing-weights",
        r"Cannot find any model weights|no file named .*(?:safetensors|pytorch_model)|Error while deserializing header"
        r"|SafetensorError|incomplete metadata, file not fully covered",
        "The model's weights are missing or damaged.",
        "Download them again; a *.safetensors of a few hundred bytes is a Git LFS pointer.",
    ),
    Symptom(
        "missing-model",
        r"Invalid repository ID or local directory|LocalEntryNotFoundError|RepositoryNotFoundError|HFValidationError"
        r"|is not a local folder and is not a valid model identifier|couldn't connect to|OfflineModeIsEnabled"
        r"|Can't load the configuration of|does not appear to have a file named config",
        "The model was not found: no such folder, or a hub id that is neither in the cache nor reachable.",
        "Check the id or path; with no network give a local folder.",
    ),
    Symptom(
        "remote-code",
        r"trust_remote_code=True|--trust-remote-code",
        "The model brings its own Python code, and the engine does not run that unasked.",
        "Read that code; if you trust it, set the flag trust-remote-code: true.",
    ),
    Symptom(
        "context-too-long",
        r"User-specified max_model_len \(\d+\) is greater than the derived",
        "--max-model-len is longer than the model was made for.",
        "Lower it to what config.json says (max_position_embeddings).",
    ),
    Symptom(
        "wrong-build",
        r"undefined symbol|version `GLIBC(?:XX)?_[\d.]+' not found|incompatible function arguments.*torch",
        "The engine's compiled part does not fit the torch or the C library it finds.",
        "Reinstall the engine in a fresh virtual environment, so that it brings the torch it was built for.",
    ),
    Symptom(
        "missing-compiler",
        r"Failed to find C compiler|nvcc: not found|file or directory: '(?:nvcc|ninja)'|Could not find nvcc"
        r"|Python\.h: No such file|Ninja build failed|cannot find -lcuda|InvalidCxxCompiler",
        "The engine compiles kernels at its start and lacks a compiler, CUDA's nvcc, ninja or Python's headers.",
        "Install them (build-essential, python3-dev, the CUDA toolkit), or try --enforce-eager.",
    ),
    Symptom(
        "missing-module",
        r"ModuleNotFoundError: No module named|^\S*python\S*: No module|^ImportError: (?:cannot import|No module)",
        "A Python package is missing from the engine's environment, or has the wrong version.",
        "Install it there, and check that `python` names the environment that you mean.",
    ),
    Symptom(
        "wrong-python",
        r"^SyntaxError|requires Python|Python version .* (?:not supported|is required)|unsupported Python",
        "The engine does not run on this version of Python.",
        "Name another interpreter with `python`.",
    ),
    Symptom(
        "shared-memory",
        r"/dev/shm.*(?:No space left|too small)|shared memory segment .*No space|Bus error",
        "Shared memory (/dev/shm) is too small.",
        "Enlarge it; docker run needs --shm-size or --ipc=host.",
        signals=(7,),
    ),
    Symptom(
        "disk-full",
        r"No space left on device|Disk quota exceeded",
        "A disk is full: downloads, compile caches and logs need room.",
        "Free some space, or move HF_HOME and the compile cache.",
    ),
    Symptom(
        "too-many-files",
        r"Too many open files",
        "The limit on open files is too low.",
        "Raise it: ulimit -n 65536.",
    ),
    Symptom(
        "illegal-instruction",
        r"Illegal instruction|requires? (?:AVX|AMX)|(?:AVX-?(?:2|512)|AMX)\b.*(?:not supported|is required)",
        "The processor lacks instructions that the engine was compiled for (AVX2, AVX-512, AMX).",
        "Use another build of the engine, or another machine; a virtual machine may hide instructions from its guests.",
        signals=(4,),
    ),
    Symptom(
        "no-cpu-kernel",
        r"Cannot inspect kernel parameters|Could not run '[^']+' with arguments from the 'CPU' backend"
        r"|_C::\w+\(\) expected at most 0 argument",
        "The engine's CPU build has no kernel for this model or feature.",
        "Use another quantization, or leave speculation off on a CPU.",
    ),
    Symptom(
        "permission",
        r"PermissionError|Permission denied",
        "The engine may not read or write a file.",
        "Correct the permissions of what the log names.",
    ),
    Symptom(
        "crash",
        r"Segmentation fault|core dumped|terminate called after|Fatal Python error",
        "The engine crashed in compiled code.",
        "The log's last lines may name the kernel; try --enforce-eager or another attention backend.",
        signals=(11, 6, 8),
    ),
    Symptom(
        "bad-configuration",
        r"^Value error,|^Assertion failed,",
        "The engine refused this combination of model and flags.",
        "Its message says why.",
    ),
)
_COMPILED = tuple((symptom, re.compile(symptom.pattern)) for symptom in TABLE)


def diagnose(log: str, exit_status: int | None) -> Diagnosis:
    """What the log, else the exit status (negative: the signal; 128 + n: a shell's word for it), says about a death."""
    lines = [PREFIX.sub("", line).strip() for line in log.splitlines() if not QUIET.match(line)]
    lines = [line for line in lines if not line.startswith(("raise ", "File "))]  # a traceback's quotes of the source
    for symptom, pattern in _COMPILED:
        for line in lines:
            if found := pattern.search(line):
                return symptom.diagnosis(_shortened(line, found.start()))
    errors = [line for line in lines if ERROR_LINE.match(line) and not ECHO.search(line)]
    number = -exit_status if exit_status and exit_status < 0 else (exit_status or 0) - 128
    for symptom in TABLE:
        if number in symptom.signals:
            return symptom.diagnosis(errors[-1][:300] if errors else "")
    return Diagnosis("", "", "", errors[-1][:300] if errors else "")


def _shortened(line: str, at: int) -> str:
    """At most 300 characters around what matched: argument parsers and validators print lines of kilobytes."""
    begin = max(0, at - 100) if len(line) > 300 else 0
    return line[begin : begin + 300]
