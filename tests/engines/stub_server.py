"""A small OpenAI-compatible server for tests, in the standard library alone; misbehaves on request.

    python stub_server.py --port N [--model m] [--boot-s S] [--fault NAME]...

Faults at the start: die, oom, hang, garbage, ignore-term, die-later, fork-daemons, flood. In answers: health-only,
wrong-answer, one-piece, bad-usage, short, breaks-on-garbage, no-seed, dies-on-hang-up.
The text is made from the prompt and the seed: equal seeds, equal text. A token is a word of four characters.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLEEPER = "import signal, sys, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(600)"


class BadRequest(Exception):
    pass


def tokens_of(prompt: Any) -> int:
    return len(prompt) if isinstance(prompt, list) else max(1, len(str(prompt)) // 4)


def words(seed: object, count: int) -> list[str]:
    return [hashlib.sha256(f"{seed}/{i}".encode()).hexdigest()[:3] + " " for i in range(count)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = "m"
    faults: frozenset[str] = frozenset()
    strict = True
    key = ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, body: object, status: int = 200) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def authorised(self) -> bool:
        if self.key and self.headers.get("Authorization") != f"Bearer {self.key}":
            self.reply({"error": {"message": "wrong API key"}}, 401)
            return False
        return True

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply({})
        elif self.path == "/v1/models":
            if self.authorised():
                self.reply({"data": [{"id": self.model, "owned_by": "stub", "max_model_len": 4096}]})
        elif self.path == "/metrics":
            self.reply("# TYPE stub:requests_total counter\nstub:requests_total 1\n")
        elif self.path == "/version":
            self.reply({"version": "1.2.3", "engine": "stub"})
        else:
            self.reply({"error": "no such page"}, 404)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.authorised():
            return
        try:
            self.answer(json.loads(data))
        except (BadRequest, ValueError) as error:
            status = 500 if "breaks-on-garbage" in self.faults else 400
            self.reply({"error": {"message": str(error), "type": "BadRequestError"}}, status)

    def answer(self, ask: Any) -> None:
        if not isinstance(ask, dict):
            raise BadRequest("the body is no object")
        if self.path == "/tokenize":
            count = tokens_of(ask.get("prompt", ""))
            return self.reply({"tokens": list(range(count)), "count": count, "max_model_len": 4096})
        chat = self.path == "/v1/chat/completions"
        if not chat and self.path != "/v1/completions":
            return self.reply({"error": "no such page"}, 404)
        if "health-only" in self.faults:
            return self.reply({"error": {"message": "EngineCore encountered an issue"}}, 500)
        if "wrong-answer" in self.faults:
            return self.reply("<html>this is no JSON</html>")
        return self.complete(ask, chat)

    def complete(self, ask: dict[str, Any], chat: bool) -> None:
        if ask.get("model") != self.model:
            return self.reply({"error": {"message": f"The model `{ask.get('model')}` does not exist."}}, 404)
        if self.strict:
            for name, kind in (("ignore_eos", bool), ("min_tokens", int), ("max_tokens", int), ("stream", bool)):
                if name in ask and not isinstance(ask[name], kind):
                    raise BadRequest(f"{name} must be {kind.__name__}")
        prompt = ask.get("messages") if chat else ask.get("prompt")
        if not prompt:
            raise BadRequest("no prompt")
        # Like a model that would stop early: exact only when told to ignore the end of sequence.
        limit = ask.get("max_tokens", 16)
        count = limit if (ask.get("ignore_eos") and "short" not in self.faults) or limit < 4 else limit - 2
        chance = os.urandom(4).hex()
        seed = chance if "no-seed" in self.faults else ask.get("seed", chance)
        random = seed if ask.get("temperature", 1) else 0
        text = words(f"{prompt}/{random}", count)
        usage = {"prompt_tokens": tokens_of(prompt), "completion_tokens": count}
        usage["total_tokens"] = sum(usage.values()) + (1 if "bad-usage" in self.faults else 0)
        if ask.get("stream"):
            return self.stream(text, usage, ask.get("stream_options") or {}, chat)
        body = {"message": {"role": "assistant", "content": "".join(text)}} if chat else {"text": "".join(text)}
        return self.reply({"model": self.model, "choices": [{"index": 0, **body}], "usage": usage})

    def stream(self, text: list[str], usage: dict[str, int], options: dict[str, Any], chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if "one-piece" in self.faults:
            text = ["".join(text)]
        try:
            for index, word in enumerate(text):
                choice = {"index": 0, **({"delta": {"content": word}} if chat else {"text": word})}
                event: dict[str, Any] = {"choices": [choice]}
                if options.get("continuous_usage_stats"):
                    event["usage"] = {**usage, "completion_tokens": index + 1}
                self.event(event)
                time.sleep(0.002)
            if options.get("include_usage"):
                self.event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            if "dies-on-hang-up" in self.faults:
                os._exit(1)

    def event(self, body: object) -> None:
        self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def fork_daemons() -> None:
    """A child in a session of its own, and a daemon by double fork; both deaf to SIGTERM."""
    subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", SLEEPER])
        os._exit(0)
    os.wait()


def misbehave(faults: frozenset[str]) -> None:
    if "oom" in faults:
        print("(EngineCore pid=7) ERROR 11-23 19:13:15 [core.py:944] torch.OutOfMemoryError: CUDA out of memory. Tried")
        sys.exit(1)
    if "die" in faults:
        print("\x1b[31mRuntimeError: it was not to be\x1b[0m", file=sys.stderr)
        sys.exit(3)
    if "garbage" in faults:
        sys.stdout.buffer.write(bytes(range(256)) * 200 + b"\n")
        sys.stdout.flush()
    if "flood" in faults:
        for line in range(50_000):
            print(f"line {line} " + "x" * 60)
    if "ignore-term" in faults:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "hang" in faults:
        time.sleep(600)
    if "fork-daemons" in faults:
        fork_daemons()
    if "die-later" in faults:
        threading.Timer(1.0, lambda: os._exit(9)).start()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="m")
    parser.add_argument("--boot-s", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", default="")
    parser.add_argument("--lenient", action="store_true", help="ignore fields of a wrong type, as some servers do")
    parser.add_argument("--fault", action="append", default=[])
    args = parser.parse_args()
    Handler.model, Handler.faults, Handler.key = args.model, frozenset(args.fault), args.key
    Handler.strict = not args.lenient
    print("stub: booting", flush=True)
    misbehave(Handler.faults)
    time.sleep(args.boot_s / 2)
    print("\x1b[32mstub: Loading weights\x1b[0m", flush=True)
    time.sleep(args.boot_s / 2)
    Server((args.host, args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
