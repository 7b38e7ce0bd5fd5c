"""redline's own engine: continuous batching over paged KV, from two CPU cores to a Hopper GPU.

    config        what an engine is started with              request    a request, its sampling, what comes back
    pages         page pool, chained hashes, LRU (no torch)   scheduler  who gets which tokens of a step (no torch)
    step          what the scheduler and a runner say to each other
    loop          the thread that schedules, launches and harvests
    architecture  a checkpoint's config.json, read strictly   weights    safetensors to fused tensors, or seeded random
    model         one definition of the Llama family          batch      the tensors of one step
    kernels/      torch (also the oracle), Triton, FlashInfer, and the measured choice between them
    cpu, gpu      the two runners                              graph      one CUDA graph per batch bucket
    sampler, speculate, grammar                                choosing, guessing and constraining tokens
    tokenizer, chat, params, answering   text to tokens and back, what a user may ask for
    build, engine  from a configuration to a model that answers
    api           `LLM.generate`             serve, http/   the OpenAI-compatible server

torch is imported by the modules that compute, never by `import redline.runtime`.
"""
