"""A small real language model behind an OpenAI-compatible endpoint, so that the examples need no account and no key.

SmolLM2-135M-Instruct runs under llama.cpp's own server. It answers `/v1/chat/completions` (also constrained to a JSON
schema by `response_format`), `/v1/models` and `/health`. At 135 million parameters it drafts a sentence or two from a
context it is given; it does not classify, and it does not do native tool calls.

    python chat.py --model SmolLM2-135M-Instruct.Q4_1.gguf --port 8081
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import xllamacpp

MODEL_NAME = "smollm2-135m-instruct"
CONTEXT_TOKENS = 8192  # of all answers in progress together
PROMPT_CACHE_MIB = 64  # llama.cpp would keep up to 8 GiB of prompts that it has seen


def serve(model: Path, *, host: str, port: int, parallel: int, threads: int) -> xllamacpp.Server:
    """Start llama.cpp's server in threads of its own; it answers once the weights are mapped, after about a second."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {MODEL_NAME}
    parameters.hostnames = [host]
    parameters.port = port
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = parallel
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.cpuparams.n_threads = threads
    parameters.use_jinja = True
    parameters.warmup = False
    parameters.endpoint_metrics = True
    return xllamacpp.Server(parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description="SmolLM2-135M-Instruct behind an OpenAI-compatible endpoint")
    parser.add_argument("--model", type=Path, default=os.environ.get("CHAT_MODEL"), help="the GGUF file ($CHAT_MODEL)")
    parser.add_argument("--host", default=os.environ.get("SERVER_HOST", "127.0.0.1"), help="address ($SERVER_HOST)")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--parallel", type=int, default=2, help="answers in progress at once; they share the context")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    options = parser.parse_args()
    if options.model is None or not options.model.is_file():
        parser.error(f"no model file at {options.model}; give --model or $CHAT_MODEL")

    # Python installs no handler for SIGTERM, and the first process of a container ignores a signal it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    server = serve(
        options.model, host=options.host, port=options.port, parallel=options.parallel, threads=options.threads
    )
    print(f"{MODEL_NAME} listens on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
