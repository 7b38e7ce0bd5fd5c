"""An OpenAI-compatible server in front of Hugging Face transformers: the baseline, made fair.

    python path/to/hf_server --model DIR [--batching plain|static|continuous] …

It runs in any interpreter that has torch, transformers, starlette and uvicorn, and imports nothing of redline. The
generation is transformers' own: `generate()` for plain and static, its continuous batching for continuous.

    flags        the command line; redline checks an experiment against it without starting anything
    load         checkpoint (or random weights), tokenizer, attention implementation
    ask          one request body, checked: what cannot be honoured is refused, never ignored
    job          what the event loop hands to the thread that generates, and what comes back
    generate     plain and static batching       continuous    continuous batching
    sampling     temperature, top-k, top-p, seeds, log-probabilities, per row
    text         tokens to text, one at a time; stop strings
    answer       one choice of one response      reply         its JSON and its server-sent events
    exchange     a request and its client        body          what came in, bounded
    routes, app  what it answers                 life, serve   start-up, readiness, and the end
"""
