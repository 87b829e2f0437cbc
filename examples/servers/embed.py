"""A small real embedding model behind an OpenAI-compatible endpoint: all-MiniLM-L6-v2, its forward pass in numpy.

Texts of similar meaning get vectors that point the same way. The examples route messages by it (which described
choice is nearest?) and retrieve from memory by it. A text of a sentence takes about 10 ms; no PyTorch is needed.

    python embed.py --model FOLDER --port 8082      FOLDER holds config.json, model.safetensors and tokenizer.json
"""

from __future__ import annotations

import argparse
import base64
import json
import os
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from safetensors.numpy import load_file
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tokenizers import Tokenizer

MODEL_NAME = "all-minilm-l6-v2"
MAX_TOKENS = 256  # what the model was trained on; the rest of a longer text is left out
MAX_TEXTS = 256  # in one request

Array = NDArray[np.float32]


class Embedder:
    """A BERT encoder of six layers: tokens in, the mean of the last layer out, scaled to length one."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon: float = config["layer_norm_eps"]
        stored = load_file(folder / "model.safetensors")
        self._weights = {name: array.astype(np.float32) for name, array in stored.items() if array.dtype.kind == "f"}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self.dimensions: int = config["hidden_size"]

    def __call__(self, text: str) -> tuple[Array, int]:
        """Return the unit vector of `text` and the number of tokens it took."""
        ids = np.array(self._tokenizer.encode(text).ids)
        x = self._word_vectors(ids)
        for number in range(self._layers):
            layer = f"encoder.layer.{number}."
            attended = self._linear(self._attention(x, layer), layer + "attention.output.dense")
            x = self._normalise(x + attended, layer + "attention.output.LayerNorm")
            hidden = _gelu(self._linear(x, layer + "intermediate.dense"))
            x = self._normalise(x + self._linear(hidden, layer + "output.dense"), layer + "output.LayerNorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean), len(ids)

    def _word_vectors(self, ids: NDArray[np.int64]) -> Array:
        weights = self._weights
        words = weights["embeddings.word_embeddings.weight"][ids]
        positions = weights["embeddings.position_embeddings.weight"][: len(ids)]
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        return self._normalise(words + positions + kind, "embeddings.LayerNorm")

    def _attention(self, x: Array, layer: str) -> Array:
        query, key, value = (
            self._linear(x, f"{layer}attention.self.{name}").reshape(len(x), self._heads, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return (scores @ value).transpose(1, 0, 2).reshape(len(x), -1)

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]

    def _normalise(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self._epsilon)
        return scaled * self._weights[name + ".weight"] + self._weights[name + ".bias"]


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + _erf(x / sqrt(2)))


def _erf(x: Array) -> Array:
    """The error function (Abramowitz and Stegun 7.1.26, off by less than 1.5e-7); numpy has none."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.sign(x) * (1 - series * np.exp(-(x**2)))


def create_app(embed: Embedder) -> Starlette:
    """Build the endpoint around a loaded model."""

    async def embeddings(request: Request) -> JSONResponse:
        body = await _json_object(request)
        texts = [body["input"]] if isinstance(body.get("input"), str) else body.get("input")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            return _refuse("input must be a string or a list of strings")
        if len(texts) > MAX_TEXTS:
            return _refuse(f"at most {MAX_TEXTS} texts in one request")
        if body.get("dimensions", embed.dimensions) != embed.dimensions:
            return _refuse(f"the model has {embed.dimensions} dimensions")
        vectors = await run_in_threadpool(lambda: [embed(text) for text in texts])  # /health answers meanwhile
        encode = _as_base64 if body.get("encoding_format") == "base64" else _as_list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, (vector, _) in enumerate(vectors)
        ]
        tokens = sum(count for _, count in vectors)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": MODEL_NAME, "data": data, "usage": usage})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"]), Route("/health", health)])


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _refuse(message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status_code=400)


def _as_list(vector: Array) -> list[float]:
    return vector.tolist()


def _as_base64(vector: Array) -> str:
    """The OpenAI client asks for this form unless told otherwise: little-endian 32-bit floats."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description="all-MiniLM-L6-v2 behind an OpenAI-compatible endpoint")
    parser.add_argument("--model", type=Path, default=os.environ.get("EMBED_MODEL"), help="its folder ($EMBED_MODEL)")
    parser.add_argument("--host", default=os.environ.get("SERVER_HOST", "127.0.0.1"), help="address ($SERVER_HOST)")
    parser.add_argument("--port", type=int, default=8082)
    options = parser.parse_args()
    if options.model is None or not (options.model / "model.safetensors").is_file():
        parser.error(f"no model.safetensors in {options.model}; give --model or $EMBED_MODEL")
    uvicorn.run(create_app(Embedder(options.model)), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
