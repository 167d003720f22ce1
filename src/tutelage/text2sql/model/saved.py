"""What a run saves of its model, loaded again."""

from dataclasses import replace
from pathlib import Path

from tutelage.text2sql.model.adapters import Full
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained

MODEL = "model"  # of a run's folder: what transformers or peft loads


def load_trained(spec: Pretrained, folder: Path) -> LanguageModel:
    """Load what a run saved: an adapter on its model, or a whole model."""
    from peft import PeftModel

    tokenizer = Pretrained(str(folder)).tokenizer() if (folder / "config.json").is_file() else spec.tokenizer()
    if (folder / "adapter_config.json").is_file():
        return LanguageModel(PeftModel.from_pretrained(spec.network(Full()), str(folder)), tokenizer)
    return LanguageModel(replace(spec, path=str(folder)).network(Full()), tokenizer)
