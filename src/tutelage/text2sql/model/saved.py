"""What a run leaves of its model, and how it is loaded to answer again."""

from dataclasses import replace
from pathlib import Path

from peft import PeftModel
from transformers import AutoTokenizer

from tutelage.text2sql.model.adapters import Adapter
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained

MODEL = "model"  # of a run's folder: what transformers or peft loads
MERGED = "merged"  # the same with the adapter's updates added to the weights


def load_trained(spec: Pretrained, folder: Path, *, adapter: Adapter) -> LanguageModel:
    """Load what a run saved.

    Args:
        spec: The model that was trained.
        folder: An adapter on top of ``spec``, or a whole model.
        adapter: What was trained: its frozen weights are loaded as they were in training.
    """
    saved = replace(spec, path=str(folder), revision=None)
    if (folder / "adapter_config.json").is_file():
        network = spec.network(quantization=adapter.quantization)
        return LanguageModel(PeftModel.from_pretrained(network, str(folder)), spec.tokenizer())
    return LanguageModel(saved.network(), saved.tokenizer())


def load_untrained(spec: Pretrained, *, adapter: Adapter) -> LanguageModel:
    """Load a model without any training; quantised, if the adapter that it is compared with is trained on that."""
    return LanguageModel(spec.network(quantization=adapter.quantization), spec.tokenizer())


def merge(spec: Pretrained, *, adapter_folder: Path, into: Path) -> None:
    """Write a model with a trained adapter's updates added to its weights, as a Hugging Face folder.

    The weights are loaded anew and unquantised, so this also merges what was trained on a 4-bit model.
    """
    merged = PeftModel.from_pretrained(spec.network(), str(adapter_folder)).merge_and_unload()
    merged.save_pretrained(str(into))
    AutoTokenizer.from_pretrained(str(adapter_folder)).save_pretrained(str(into))
