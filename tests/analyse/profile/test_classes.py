from __future__ import annotations

import pytest

from redline.analyse.profile.classes import backend_of, class_of, short_name

NAMES = {
    "matrix product": [
        "nvjet_tst_128x64_64x8_1x2_h_bz_TNN",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64",
        "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<A>>(P)",
        "void gemv2T_kernel_val<int, int, __nv_bfloat16>(P)",
        "void cublasLt::splitKreduce_kernel<32, 16, int>(P)",
        "void marlin::Marlin<__nv_bfloat16, 256>(P)",
        "gemv_kernel",
        "skinny_kernel",
        "aten::addmm",
        "aten::linear",
        "mkldnn::_linear_pointwise",
        "_C::onednn_mm",
        "fused_moe_kernel",
    ],
    "attention": [
        "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64>>(P)",
        "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<A>>>(P)",
        "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>(P)",
        "void flashinfer::BatchDecodeWithPagedKVCacheKernel<A>(P)",
        "kernel_unified_attention_2d",
        "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(P)",
        "attention_kernel",
        "decode_attention_kernel",
        "join_splits_kernel",
        "rope_append_kernel",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_softmax",
        "_C::cpu_attention_with_kv_cache",
    ],
    "norm and elementwise": [
        "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>(P)",
        "void flashinfer::norm::RMSNormKernel<8, __nv_bfloat16>(P)",
        "void vllm::act_and_mul_kernel<c10::BFloat16>(P)",
        "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>(P)",
        "rms_norm_kernel",
        "silu_mul_kernel",
        "aten::mul",
        "aten::embedding",
        "void at::native::index_elementwise_kernel<128, 4>(P)",
    ],
    "sampling": [
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>(P)",
        "aten::log_softmax",
        "void flashinfer::sampling::TopKTopPSamplingFromProbKernel<A>(P)",
        "aten::argmax",
        "aten::sort",
        "_gumbel_sample_kernel",
        "filter_kernel",
        "choose_kernel",
    ],
    "communication": [
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(P)",
        "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>(P)",
        "c10d::allreduce_",
    ],
    "copy": [
        "Memcpy DtoH (Device -> Pinned)",
        "Memset (Device)",
        "aten::copy_",
        "void at::native::elementwise_kernel<128, 4, at::native::direct_copy_kernel_cuda>(P)",
    ],
    "quantisation": [
        "void vllm::dynamic_per_token_scaled_fp8_quant_kernel<c10::BFloat16>(P)",
        "quantize_rows_kernel",
        "per_token_group_quant_8bit_kernel",
    ],
    "other": ["something_nobody_knows"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_the_class_of_a_name(kind: str, name: str) -> None:
    assert class_of(name) == kind


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("FlashAttention 3", "void cutlass::device_kernel<flash::FlashAttnFwdSm90<A>>(P)"),
        ("FlashAttention 2", "void flash::flash_fwd_splitkv_kernel<A>(P)"),
        ("FlashInfer", "void flashinfer::BatchDecodeWithPagedKVCacheKernel<A>(P)"),
        ("Triton", "kernel_unified_attention_2d"),
        ("redline Triton", "attention_kernel"),
        ("vLLM CPU attention", "_C::cpu_attention_with_kv_cache"),
        ("torch SDPA, flash on CPU", "aten::_scaled_dot_product_flash_attention_for_cpu"),
        ("", "nvjet_tst_128x64"),
    ],
)
def test_the_backend_of_a_name(backend: str, name: str) -> None:
    assert backend_of(name) == backend


def test_short_names() -> None:
    assert short_name("void flash::flash_fwd_splitkv_kernel<A<1>>(P)") == "flash::flash_fwd_splitkv_kernel"
    assert short_name("void cutlass::device_kernel<flash::Fwd<A>>(P)") == "cutlass::device_kernel<flash::Fwd>"
    assert len(short_name("x" * 500)) == 72
    assert short_name("execute_context_0(0)_generation_4(4)") == "execute_context_0(0)_generation_4(4)"
