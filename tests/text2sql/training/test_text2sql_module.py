"""The module wires: the loss's weight, what a checkpoint holds, resume, and processes that add up to one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from tutelage.core.batches import PADDING
from tutelage.core.callbacks import StepSeed
from tutelage.core.errors import RunError
from tutelage.core.optim import Optim
from tutelage.core.store import Store
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.model.adapters import Adapter, Full, Lora
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained, load
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.prompts import View
from tutelage.text2sql.training.datamodule import Loading, Text2SqlDataModule, ValBatch
from tutelage.text2sql.training.module import OutOfMemory, Text2SqlModule
from tutelage.text2sql.training.packing import IGNORED, Sample, pack

LORA = Lora(rank=4, alpha=8, dropout=0.1)  # dropout: resuming must restore the random numbers, too


def encode(examples: Sequence[Example], view: View | None) -> list[Sample]:
    numbers = [int(example.id) for example in examples]
    return [
        Sample([3 + (i * 7 + k) % 250 for k in range(4 + i % 9)], [3 + (i * 11 + k) % 250 for k in range(1 + i % 6)])
        for i in numbers
    ]


SCHEMA = [3 + k % 97 for k in range(70)]


def encode_after_schema(examples: Sequence[Example], view: View | None) -> list[Sample]:
    """The same after a schema that all share."""
    return [Sample([*SCHEMA, *sample.prompt_ids], sample.answer_ids) for sample in encode(examples, view)]


def right_if_even(model: LanguageModel, indices: list[int]) -> list[bool]:
    return [index % 2 == 0 for index in indices]


def tiny_folder(at: Path) -> Path:
    spec = Tiny(vocabulary=300, hidden_size=32, layers=2, heads=2, context=128)
    return spec.folder(Store(at), texts=["SELECT name FROM airlines"], seed=1)


def datamodule(
    folder: Path,
    *,
    packing: bool = True,
    batch_size: int = 4,
    micro_batch_tokens: int | None = None,
    shared: bool = False,
) -> Text2SqlDataModule:
    examples = [Example(str(i), "db", "", "SELECT 1") for i in range(48)]
    return Text2SqlDataModule(
        train=[examples],
        val=examples,
        encode=encode_after_schema if shared else encode,
        loading=Loading(
            max_length=128 if shared else 24,
            batch_size=batch_size,
            micro_batch_tokens=micro_batch_tokens,
            packing=packing,
            val_size=7,
            branches=4,
        ),
        val_batch_size=4,
        seed=1,
        folder=folder,
    )


def module(model_folder: Path, adapter: Adapter, *, empty: bool = False) -> Text2SqlModule:
    optim = Optim(name="adamw", lr=1e-2, weight_decay=0.0, schedule="cosine", warmup=0.1)
    spec = Pretrained(str(model_folder))
    return Text2SqlModule(
        load(spec, adapter=adapter, seed=1, empty=empty),
        optim=optim,
        validation=right_if_even,
        weights=partial(load, spec, adapter=adapter, seed=1) if empty else None,
    )


def fit(
    at: Path,
    adapter: Adapter,
    *,
    max_steps: int = 8,
    resume: Path | None = None,
    batch_size: int = 4,
    micro_batch_tokens: int | None = None,
    shared: bool = False,
    callbacks: Sequence[Callback] = (),
    wired: Text2SqlModule | None = None,
    **options: Any,
) -> tuple[Trainer, Text2SqlModule]:
    wired = wired or module(tiny_folder(at / "store"), adapter)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        callbacks=[StepSeed(1), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        **options,
    )
    data = datamodule(at, batch_size=batch_size, micro_batch_tokens=micro_batch_tokens, shared=shared)
    trainer.fit(wired, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer, wired


def trained(module: Text2SqlModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


class StopAt(Callback):
    """Ends a run at a step as a kill would: the schedule, which looks ahead, was made for the whole run."""

    def __init__(self, step: int, checkpoint: Path) -> None:
        self.step, self.checkpoint = step, checkpoint

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt


@pytest.mark.parametrize("adapter", [Full(), LORA], ids=["full", "lora"])
@pytest.mark.parametrize(("stop", "shared"), [(3, False), (11, False), (3, True)])
def test_resumed_equals_uninterrupted_bit_for_bit(adapter: Adapter, stop: int, shared: bool, tmp_path: Path) -> None:
    _, whole = fit(tmp_path, adapter, max_steps=16, shared=shared)
    checkpoint = tmp_path / "last.ckpt"
    with pytest.raises(SystemExit):
        fit(tmp_path, adapter, max_steps=16, shared=shared, callbacks=[StopAt(stop, checkpoint)])
    trainer, resumed = fit(tmp_path, adapter, max_steps=16, shared=shared, resume=checkpoint)
    assert trainer.global_step == 16
    torch.testing.assert_close(trained(resumed), trained(whole), rtol=0, atol=0)


@pytest.mark.parametrize("adapter", [Full(), LORA], ids=["full", "lora"])
@pytest.mark.parametrize("shared", [False, True])
def test_accumulated_batches_equal_one_large_batch(adapter: Adapter, shared: bool, tmp_path: Path) -> None:
    """Batches of different token counts: each token weighs the same, however they are cut."""
    if isinstance(adapter, Lora):
        adapter = Lora(rank=4, alpha=8)  # dropout would draw otherwise for other shapes
    one, cut = (
        trained(
            fit(tmp_path, adapter, max_steps=3, batch_size=size, shared=shared, accumulate_grad_batches=4 // size)[1]
        )
        for size in (4, 1)
    )
    # Adam divides by the gradient itself, so the last bits of a small one move a weight by a visible part of 1e-2.
    torch.testing.assert_close(cut, one, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4, alpha=8)], ids=["full", "lora"])
def test_a_step_in_several_passes_is_the_same_step(adapter: Adapter, tmp_path: Path) -> None:
    """Batches of 4 rows of 24 tokens: all at once, two at a time, one at a time."""
    losses: list[list[float]] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step > len(losses[-1]):
                losses[-1].append(float(trainer.callback_metrics["train/loss"]))

    ends = []
    for budget in (None, 48, 24):
        losses.append([])
        trainer, wired = fit(tmp_path, adapter, max_steps=4, micro_batch_tokens=budget, callbacks=[Losses()])
        ends.append(trained(wired))
        assert trainer.global_step == len(losses[-1]) == 4
    for end, curve in zip(ends[1:], losses[1:], strict=True):
        torch.testing.assert_close(end, ends[0], rtol=1e-3, atol=1e-5)
        assert curve == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_full_fine_tuning_moves_every_weight(dtype: Any, tmp_path: Path) -> None:
    """With weights in bf16, 60 steps at a fine-tuning rate changed 16 % of them, and the loss fell a fifth as far."""
    folder = tiny_folder(tmp_path / "store")
    before = load(Pretrained(str(folder)), adapter=Full(), seed=1).eval()
    questions = pack(encode(datamodule(tmp_path).val, None), answers_in_step=1)
    falls = []
    for name, precision in (("float32", "32-true"), (dtype, "bf16-mixed")):
        model = load(Pretrained(str(folder), dtype=name), adapter=Full(), seed=1)
        optim = Optim(name="adamw", lr=1e-5, weight_decay=0.0, schedule="constant", warmup=0.0)
        wired = Text2SqlModule(model, optim=optim, validation=right_if_even)
        fit(tmp_path, Full(), max_steps=40, wired=wired, precision=precision)
        with torch.no_grad():
            falls.append(float(before(questions) - model.eval()(questions)))
        moved = [
            float((new != old).float().mean())
            for new, old in zip(model.parameters(), before.parameters(), strict=True)
            if old.ndim > 1
        ]
        assert min(moved[1:]) > 0.99  # the first are embeddings, of which the data names but some
    assert falls[0] > 0
    assert falls[1] == pytest.approx(falls[0], rel=0.1)


def test_checkpoint_holds_the_adapter_only(tmp_path: Path) -> None:
    trainer, wired = fit(tmp_path, LORA)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert state.keys() == trained(wired).keys()
    assert all("lora_" in name for name in state)


def test_full_checkpoint_brings_every_weight_back(tmp_path: Path) -> None:
    trainer, wired = fit(tmp_path, Full())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    fresh = module(tiny_folder(tmp_path / "store"), Full())
    fresh.on_load_checkpoint(content)
    fresh.load_state_dict(content["state_dict"], strict=False)
    torch.testing.assert_close(fresh.state_dict(), wired.state_dict(), rtol=0, atol=0)


def test_checkpoint_of_another_adapter_is_refused(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, LORA)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    with pytest.raises(RunError, match="Give the model and adapter"):
        module(tiny_folder(tmp_path / "store"), Full()).on_load_checkpoint(content)


def test_validation_counts_each_question_once(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, Full())
    assert trainer.callback_metrics["val/ex"].item() == pytest.approx(100 * 4 / 7)  # 0, 2, 4, 6 of 7


def test_validation_loss_is_the_mean_over_answer_tokens(tmp_path: Path) -> None:
    trainer, wired = fit(tmp_path, Full(), max_steps=1)
    trainer.validate(wired, datamodule=datamodule(tmp_path), verbose=False)
    with torch.no_grad():
        batch = pack(encode(datamodule(tmp_path).val, None), answers_in_step=1)
        expected = float(wired.model.eval()(batch)) / int((batch.target_BT != IGNORED).sum())
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-4)


def test_filler_is_answered_and_not_counted(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def validation(model: LanguageModel, indices: list[int]) -> list[bool]:
        asked.append(indices)
        return [True] * len(indices)

    wired = module(tiny_folder(tmp_path / "store"), Full())
    wired.validation = validation
    wired.validation_step(ValBatch([3, PADDING], []), 0)
    assert asked == [[3, 0]]
    assert (wired.correct, wired.asked) == (1, 1)


def test_training_learns(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "store")
    before = module(folder, Full()).model
    _, after = fit(tmp_path, Full(), max_steps=250)
    data = datamodule(tmp_path)
    batches = list(data.train_dataloader())
    with torch.no_grad():
        losses = [
            sum(float(model(batch)) for batch in batches) / sum(int((b.target_BT != -100).sum()) for b in batches)
            for model in (before.eval(), after.model.eval())
        ]
    assert losses[0] == pytest.approx(5.6, abs=0.3)  # ln(300) = 5.70: it knows nothing
    assert losses[1] < 0.5


def test_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    class TooMuch(Callback):
        def on_before_backward(self, trainer: Trainer, pl_module: Any, loss: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    with pytest.raises(RunError, match=r"Lower data\.micro_batch_tokens"):
        fit(tmp_path, Full(), callbacks=[TooMuch(), OutOfMemory()])
