"""What a kernel or an operator does, read from its name.

Kernels of vLLM, of torch, of FlashInfer, of cuBLAS and CUTLASS, of Triton and of redline's runtime; operators of torch
on a CPU. The first pattern that matches wins, so the order is the rule: a FlashAttention kernel built with CUTLASS is
attention, a matrix product that takes its weights apart (`marlin`, `w8a8`) is a matrix product. A name cannot say what
a softmax is for: it counts as attention, which is right for eager attention; the products of eager attention are matrix
products.
"""

from __future__ import annotations

import re
from functools import lru_cache

CLASSES = (
    "matrix product",
    "attention",
    "norm and elementwise",
    "quantisation",
    "sampling",
    "other",
    "communication",
    "copy",
)
"""In the order in which an instant is given away when several run at once: computing hides communication and copies,
and what is hidden costs nothing."""

_RULES: tuple[tuple[str, str], ...] = (
    (
        "communication",
        r"nccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|cross_device_reduce|nvshmem|multimem|sendrecv"
        r"|c10d::|_allreduce|broadcast_kernel|deep_ep::|quick_?reduce",
    ),
    (  # which experts a token goes to: neither attention's softmax nor the sampler's top-k
        "norm and elementwise",
        r"topkGating|moe::moe(?:Softmax|TopK)|grouped_topk|group_idx_and_topk|topk_with_k2|count_and_sort_expert"
        r"|moe_align|moe_sum|moe::dev::routing|routingIndices|^_topk_forward",
    ),
    (
        "attention",
        r"flash(?!_?infer)|fmha|attention|attn|attend|\bmha|_mha|xqa|paged|splitkv|split_kv|mla_|reshape_and_cache"
        r"|concat_and_cache|append_paged|kv_cache|rope_append|join_splits|decode_attention|BatchDecode|BatchPrefill"
        r"|sdpa|(?<!log_)(?<!Log)softmax(?!.*log_?softmax)|merge_state|VariableLengthMerge|PersistentVariableLength"
        r"|single_query|^_fwd_(?:grouped_)?kernel|^reduce_segments",
    ),
    (
        "sampling",
        r"sampl|argmax|arg_?min_?max|top_?k|top_?p|multinomial|gumbel|penalt|radixsort|radix_?sort|\bsort|_sort"
        r"|gatherTopK|log_?softmax|exponential|logits|bitmask|filter_kernel|choose_kernel|part_kernel|rejection|cumsum"
        r"|DeviceScan|DeviceSegmented|min_p|random",
    ),
    (
        "matrix product",
        r"gemm|gemv|cutlass|cublas|nvjet|wgmma|splitk|split_k|matmul|machete|marlin|scaled_mm|skinny_kernel"
        r"|aten::(?:add)?mm\b|aten::b?addbmm|aten::baddbmm|aten::bmm|aten::linear|aten::_weight_int|aten::_int_mm"
        r"|mkldnn|onednn|packed_linear|grouped_mm|fused_moe|moe_wna|tinygemm|sgl_kernel.*linear|_C::.*linear"
        r"|dynamic_4bit|weight_packed|triton_tem_fused\w*mm|triton_mm|^bmm_|lora_(?:shrink|expand)|^Cijk_",
    ),
    ("quantisation", r"quant|to_fp8|to_fp4|fp8_cast|per_token_group|scaled_fp8"),
    (
        "copy",
        r"^mem(?:cpy|set)|memcpy|memset|direct_copy|copy_kernel|aten::copy_|aten::_to_copy|aten::to\b|aten::clone"
        r"|aten::contiguous|CatArrayBatched|aten::cat\b|aten::_?pin_memory|aten::item|_local_scalar_dense|aten::stack"
        r"|prepare_kernel|swap_blocks|copy_blocks",
    ),
    (
        "norm and elementwise",
        r"norm|silu|gelu|relu|swiglu|act_and_mul|rotary|rope|elementwise|vectorized|reduce_kernel|triton_|fused|index"
        r"|gather|scatter|embedding|arange|fill|where|residual|aten::(?:mul|add|sub|div|pow|mean|rsqrt|neg|cos|sin|exp"
        r"|sum|sigmoid|tanh|maximum|minimum|masked|cumsum|max|min|eq|ne|lt|gt|le|ge|bitwise|logical|any|all|zero)"
        r"|Compare|bernoulli|compute_slot|input_batch",
    ),
)
_COMPILED = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _RULES)

_BACKENDS: tuple[tuple[str, str], ...] = (
    ("FlashAttention 4", r"FlashAttentionForwardSm|flash_attn\W?cute"),
    ("FlashAttention 3", r"FlashAttnFwdSm90|flash_attn_3|FlashAttnFwdCombine|prepare_varlen_num_blocks|hopper.*flash"),
    (
        "FlashInfer",
        r"flashinfer|BatchDecodeWith|BatchPrefillWith|BatchPrefill|PersistentVariableLength|kernel_mha|^fmhaSm1",
    ),
    ("FlashMLA", r"flash_?mla|splitkv_mla|fwd_mla_combine"),
    ("CUTLASS MLA", r"FmhaMla"),
    ("FlashAttention 2", r"flash_fwd|flash::"),
    ("Triton", r"kernel_unified_attention|^_fwd_kernel|^_fwd_grouped_kernel|^reduce_segments|kernel_paged_attention"),
    ("redline Triton", r"^attention_kernel|^decode_attention_kernel|^join_splits_kernel"),
    ("cuDNN", r"cudnn.*(?:sdpa|attention|fort_native)"),
    ("CUTLASS memory-efficient", r"fmha_cutlass|mem_eff"),
    ("FlexAttention", r"flex_attention"),
    ("vLLM CPU attention", r"cpu_attention|cpu_attn"),
    ("torch SDPA, flash on CPU", r"flash_attention_for_cpu"),
    ("torch SDPA, plain maths", r"_scaled_dot_product_attention_math"),
    ("redline compiled pass", r"redline::compiled_pass"),
)
_COMPILED_BACKENDS = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _BACKENDS)


@lru_cache(maxsize=65536)
def class_of(name: str) -> str:
    """The class of a kernel or operator; `other` where the name says nothing."""
    return next((found for found, pattern in _COMPILED if pattern.search(name)), "other")


@lru_cache(maxsize=65536)
def backend_of(name: str) -> str:
    """The attention backend that a kernel or operator belongs to; '' where it is none's: a backend's library may bring
    norms and sampling too."""
    if class_of(name) not in ("attention", "other"):
        return ""
    return next((found for found, pattern in _COMPILED_BACKENDS if pattern.search(name)), "")


def short_name(name: str, most: int = 72) -> str:
    """A kernel's name without its template arguments and parameters."""
    if name.startswith("execute_"):  # a step's annotation: what is in its brackets is the point
        return name[:most]
    text = re.sub(r"^void ", "", name)
    base = re.split(r"[<(]", text, maxsplit=1)[0]
    inner = re.search(r"<([A-Za-z_:0-9]+)", text)
    if base.rsplit("::", 1)[-1] in ("Kernel", "Kernel2", "device_kernel", "kernel", "elementwise_kernel") and inner:
        base = f"{base}<{inner[1]}>"
    base = base.replace("at::native::", "").strip() or text
    return base if len(base) <= most else base[: most - 1] + "…"
