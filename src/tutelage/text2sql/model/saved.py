"""What a run leaves of its model, and how it is loaded to answer again."""

import re
from dataclasses import replace
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from tutelage.core.results import read_json
from tutelage.text2sql.model.adapters import Adapter
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained
from tutelage.text2sql.model.tiny import Tiny

MODEL = "model"  # of a run's folder: what transformers or peft loads
ADAPTER = "adapter_config.json"  # of a saved model: only where an adapter was trained
MERGED = "merged"  # the same with the adapter's updates added to the weights


def base_of(spec: Pretrained | Tiny, saved: Path) -> Pretrained:
    """Name the model that a saved adapter belongs to; a model that was saved whole needs none."""
    if isinstance(spec, Pretrained):
        return spec
    config = saved / ADAPTER
    return Pretrained(read_json(config)["base_model_name_or_path"] if config.is_file() else str(saved))


def load_trained(spec: Pretrained, folder: Path, *, adapter: Adapter) -> LanguageModel:
    """Load what a run saved.

    Args:
        spec: The model that was trained.
        folder: An adapter on top of ``spec``, or a whole model.
        adapter: What was trained: its frozen weights are loaded as they were in training.
    """
    saved = replace(spec, path=str(folder), revision=None)
    if (folder / ADAPTER).is_file():
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
    merged_network(spec, adapter_folder=adapter_folder).save_pretrained(str(into))
    AutoTokenizer.from_pretrained(str(adapter_folder)).save_pretrained(str(into))


def merged_network(spec: Pretrained, *, adapter_folder: Path) -> PreTrainedModel:
    """Load a model and add a trained adapter's updates to its weights.

    Where the adapter is on the output layer or on the embeddings, and both share one tensor, each gets a tensor of its
    own first: the update belongs to one of them.
    """
    network = spec.network()
    targets = read_json(adapter_folder / ADAPTER)["target_modules"]
    if network.config.get_text_config().tie_word_embeddings and _names_embeddings(network, targets):
        _untie(network)
    merged = PeftModel.from_pretrained(network, str(adapter_folder)).merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged


def _names_embeddings(network: PreTrainedModel, targets: str | list[str]) -> bool:
    """Whether an adapter's targets, as peft saved them, name the embeddings or the output layer."""
    shared = [network.get_input_embeddings(), network.get_output_embeddings()]  # type: ignore[no-untyped-call]
    names = [name for name, module in network.named_modules() if any(module is one for one in shared)]
    if isinstance(targets, str):
        return any(re.fullmatch(targets, name) for name in names)
    return any(name == target or name.endswith(f".{target}") for name in names for target in targets)


def _untie(network: PreTrainedModel) -> None:
    head = network.get_output_embeddings()  # type: ignore[no-untyped-call]
    assert isinstance(head, nn.Linear)
    head.weight = nn.Parameter(head.weight.detach().clone())
    network.config.get_text_config().tie_word_embeddings = False
    network.config.tie_word_embeddings = False
