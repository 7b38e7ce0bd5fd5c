"""redline's own engine: continuous batching over paged KV, from two CPU cores to a Hopper GPU.

What is said:      config, request (its sampling, what comes back), step (between scheduler and runner), batch (the
                   tensors of one forward pass)
Who runs when:     pages (pool, chained hashes, LRU), waiting, roster (rows, pages, preemption), scheduler, itl (chunk
                   sizes for a target), stats, loop (the engine's thread); none of them imports torch
The model:         architecture (config.json, read strictly), shapes, checkpoint, weights, random_weights, quant_config,
                   quant, linear (dense, int8, fp8, 4 bits), rope, model (one definition of the Llama family)
Computing it:      kernels/ (torch, which is the oracle, Triton, FlashInfer, and the measured choice), cpu_limits,
                   assemble, cpu (the runner of CPUs), gpu_setup, layout, state, graph, gpu (the runner of GPUs)
Choosing a token:  draws (counter-based), edits, penalties, filters, ranking, sampler, choose_tokens, grammar
Guessing ahead:    ngram, draft, controller (what pays), speculate
The front:         tokenizer, chat, params, answering, inbox, build, engine, api (`LLM`), serve, http/

torch is imported by the modules that compute, never by `import redline.runtime`.
"""
