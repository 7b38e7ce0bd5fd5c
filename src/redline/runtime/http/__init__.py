"""The OpenAI-compatible server of redline's own engine. Its wire layer is that of `redline.engines.hf_server`.

ask        what a body asks for, beyond what the transformers server understands
service    admission, submitting, draining, and what is counted
stream     a request on its way, written at a measured pace
pace       when a stream is written
watchdog   whether the engine moves         metrics    Prometheus text, in vLLM's names
guard      API key                          profile    traces of torch.profiler
app        routes
"""
