"""Answers by vLLM: for many questions to a saved model on a GPU. An extra: ``pip install -e '.[vllm]'``."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import seed_of
from tutelage.text2sql.inference.generate import Decoding, Request

if TYPE_CHECKING:
    from tutelage.text2sql.model.language_model import Pretrained

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py, MaxLoRARanks


def check_vllm() -> None:
    """Refuse where vLLM is not installed; imports nothing, so it is asked before the long part.

    Raises:
        ConfigError: It is not there.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "inference.engine",
            "vllm is not installed",
            "pip install -e '.[vllm]' into an environment of its own (it pins a torch), or set "
            "inference.engine=transformers",
        )


class VllmEngine:
    """A saved model, held by vLLM. Sampling is a function of (seed, request), as vLLM seeds each request."""

    def __init__(self, saved: Path, *, base: "Pretrained", end_token: int, seed: int, context: int) -> None:
        """Load the model onto the GPU.

        Args:
            saved: What a run saved: a Hugging Face folder, or a peft folder (LoRA) on top of ``base``.
            base: The model that an adapter belongs to; not looked at where the model was saved whole.
            end_token: What ends an answer.
            seed: Seed for sampling.
            context: The longest prompt and answer together.

        Raises:
            ConfigError: vLLM is not installed, or cannot hold an adapter of this rank.
        """
        check_vllm()
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        adapter = saved / "adapter_config.json"
        settings: dict[str, Any] = {"model": str(saved)}
        self._adapter = None
        if adapter.is_file():
            # vLLM lays out its memory for adapters before it sees one.
            rank = max_lora_rank(json.loads(adapter.read_text(encoding="utf-8"))["r"])
            settings = {
                "model": base.path,
                "revision": base.revision,
                "dtype": base.dtype,
                "tokenizer": str(saved),
                "enable_lora": True,
                "max_lora_rank": rank,
            }
            self._adapter = LoRARequest("tutelage", 1, str(saved))
        # The model's own generation settings stay out, as with transformers.
        self._model = LLM(max_model_len=context, generation_config="vllm", **settings)
        self.end_token, self.seed = end_token, seed

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        """Answer all requests; vLLM batches them itself, so ``decoding.batch_size`` does not count."""
        from vllm import SamplingParams
        from vllm.sampling_params import BeamSearchParams

        prompts = [{"prompt_token_ids": request.prompt_ids} for request in requests]
        if decoding.kind == "beam":
            beams = BeamSearchParams(beam_width=decoding.candidates, max_tokens=decoding.max_new_tokens)
            found = self._model.beam_search(prompts, beams, lora_request=self._adapter)
            tokenizer = self._model.get_tokenizer()
            return [
                [
                    tokenizer.decode(_answer(sequence.tokens[len(request.prompt_ids) :], self.end_token))
                    for sequence in output.sequences
                ]
                for request, output in zip(requests, found, strict=True)
            ]
        sampled = decoding.kind == "sample"
        parameters = [
            SamplingParams(
                n=decoding.candidates,
                temperature=decoding.temperature if sampled else 0.0,
                top_p=decoding.top_p if sampled else 1.0,
                max_tokens=decoding.max_new_tokens,
                stop_token_ids=[self.end_token],
                seed=seed_of(self.seed, request.id) % 2**31,
            )
            for request in requests
        ]
        outputs = self._model.generate(prompts, parameters, lora_request=self._adapter, use_tqdm=False)
        return [[completion.text for completion in output.outputs] for output in outputs]


def max_lora_rank(rank: int) -> int:
    """Round an adapter's rank up to one that vLLM allows.

    Raises:
        ConfigError: It allows none so large.
    """
    allowed = [limit for limit in LORA_RANKS if limit >= rank]
    if not allowed:
        raise ConfigError(
            "inference.engine",
            f"vllm holds adapters up to rank {LORA_RANKS[-1]}, and this one has {rank}",
            "set inference.engine=transformers, or lower adapter.rank",
        )
    return allowed[0]


def _answer(ids: Sequence[int], end_token: int) -> list[int]:
    ids = list(ids)
    return ids[: ids.index(end_token)] if end_token in ids else ids
