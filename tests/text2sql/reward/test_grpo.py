"""TRL's GRPOTrainer with the reward, on a tiny model that is made on the spot."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tutelage.core.store import Store
from tutelage.text2sql.data.own import Own
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.prompts.bare import Bare
from tutelage.text2sql.reward import Reward, grpo_reward
from tutelage.text2sql.reward.trainers import rows

BARE = Bare(template="chatml", comments=False, samples=0, max_values=0, max_tokens=256)
pytest.importorskip("trl")
pytest.importorskip("datasets")


def test_a_step_of_grpo(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    database = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE item (name TEXT, price INTEGER)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [(f"item {i}", i) for i in range(9)])
    train = tmp_path / "train.jsonl"
    train.write_text(
        '{"question": "How many items?", "sql": "SELECT count(*) FROM item"}\n'
        '{"question": "What is free of charge?", "sql": "SELECT name FROM item WHERE price > 99"}\n'
    )
    source = Own(database=str(database), store=str(tmp_path / "store"), train=str(train))
    tiny = Tiny(vocabulary=300, hidden_size=32, layers=1, heads=2, context=256)
    folder = tiny.folder(Store(tmp_path / "store"), texts=["SELECT count(*) FROM item"], seed=1)
    seen: list[list[float]] = []
    with Reward(store=tmp_path / "store", dense=True) as reward:
        made = grpo_reward(reward)

        def watched(**columns: object) -> list[float]:
            seen.append(made(**columns))
            return seen[-1]

        data = Dataset.from_list(rows(source, prompt=BARE, reward=reward))
        assert len(data) == 1  # the other gold is empty, so it would pay for finding nothing
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=watched,
            train_dataset=data,
            args=GRPOConfig(
                output_dir=str(tmp_path / "out"),
                max_steps=1,
                per_device_train_batch_size=2,
                num_generations=2,
                max_completion_length=8,
                report_to=[],
                use_cpu=True,
                bf16=False,
                logging_steps=1,
            ),
        )
        trainer.train()
    assert [len(values) for values in seen] == [2] and all(0 <= value <= 1 for value in seen[0])
    assert trainer.state.log_history[0]["rewards/watched/mean"] == pytest.approx(sum(seen[0]) / 2)
