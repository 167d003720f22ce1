"""The text-to-SQL task: a language model learns a database, and is scored by what its queries give."""

import atexit
import gc
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedTokenizerBase

from tutelage.core import overrides, precision, run, run_folder
from tutelage.core.build import build, locate, split
from tutelage.core.config import Config
from tutelage.core.distributed import gather
from tutelage.core.errors import ConfigError
from tutelage.core.evaluate import fit_to_machine, task_class
from tutelage.core.optim import Optim
from tutelage.core.randomness import seed_of
from tutelage.core.results import MANIFEST, METRICS, environment, read_json, write_json
from tutelage.core.startup import cores
from tutelage.core.task import Closing, Metrics, Task
from tutelage.text2sql.data.corpus import WHICH, Choice, Corpus, assemble, explore_all
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.explored import example_of
from tutelage.text2sql.data.methods import Method, Rejection, thin
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.data.scorecard import Scorecard
from tutelage.text2sql.database.executor import Executor
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.inference.answer import PREDICTIONS, Answer, Answerer, Inference, write_predictions
from tutelage.text2sql.inference.api_engine import ApiEngine, Served, counting_tokenizer
from tutelage.text2sql.inference.generate import Decoding, Engine, Request, TransformersEngine
from tutelage.text2sql.inference.session import LoadedRun
from tutelage.text2sql.inference.vllm import VllmEngine
from tutelage.text2sql.model import sharding
from tutelage.text2sql.model.adapters import Adapter, Full, Lora
from tutelage.text2sql.model.language_model import DTYPES, LanguageModel, Pretrained, load
from tutelage.text2sql.model.saved import MERGED, MODEL, base_of, load_trained, load_untrained, merge
from tutelage.text2sql.model.support import check_support
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.prompts import Prompt, answer_text
from tutelage.text2sql.prompts.bare import Bare
from tutelage.text2sql.prompts.chat import check_template, end_token
from tutelage.text2sql.results import comparison, report
from tutelage.text2sql.results.benchmark_command import (
    is_benchmark,
    is_scorecard,
    score_command,
    scorecard_command,
    write_scorecard,
)
from tutelage.text2sql.results.items import ITEMS, Item, read_examples, read_items, write_items
from tutelage.text2sql.results.prediction_scores import score_own
from tutelage.text2sql.results.scorecard import Card, split_predictions
from tutelage.text2sql.results.scoring import LIMITS, Accuracy, ExecutionScorer, accuracy
from tutelage.text2sql.training import rejection, seed_only
from tutelage.text2sql.training.datamodule import SHARING_FILE, Loading, Text2SqlDataModule
from tutelage.text2sql.training.encoder import Encoder
from tutelage.text2sql.training.module import OutOfMemory, Text2SqlModule
from tutelage.text2sql.training.throughput import Throughput

MOST_WORKERS = 8  # of the sandbox: each holds a connection to every database


class Text2SqlTask(Task):
    """Supervised fine-tuning of a language model on questions about databases."""

    monitor = "val/ex"
    mode = "max"
    headline = ("test/ex", "test/ex_held_out", "base/test/ex", "sft/test/ex", "time/train_s")
    shared: ClassVar[Mapping[str, Callable[..., Any]]] = {"data": Loading}
    rescoring = frozenset({"data", "inference", "prompt"})

    def __init__(self, *, cfg: DictConfig, folder: Path, out: Path) -> None:
        super().__init__(cfg=cfg, folder=folder, out=out)
        self.rescored = False  # whether a finished run is scored again, with these settings or with others
        self.loading, source_node = split(cfg.data, Loading, where="data")
        self.source: Questions = build(source_node, where="data")
        self.model_spec: Pretrained | Tiny = build(cfg.model, where="model")
        self.adapter: Adapter = build(cfg.adapter, where="adapter")
        self.method: Method = build(cfg.method, where="method")
        self.prompt: Prompt = build(cfg.prompt, where="prompt")
        self.inference: Inference = build(cfg.inference, where="inference")
        settings = OmegaConf.to_container(cfg.explore, resolve=True)
        assert isinstance(settings, dict)
        self.choice, self.explore_settings = split({str(k): v for k, v in settings.items()}, Choice, where="explore")

    def check(self) -> None:
        self.adapter.check()
        self._check_trainer()
        self._say_what_is_shared()
        explore_settings(self.explore_settings)
        if isinstance(self.method, Rejection) and isinstance(self.model_spec, Tiny):
            raise ConfigError(
                "method",
                "rejection learns from a model's own answers, and the tiny model begins with random weights",
                "choose a model that knows SQL, such as model=qwen2_5_coder_0_5b",
            )
        if self.inference.engine == "vllm":
            self._check_vllm()
        if isinstance(self.inference, Served):
            raise ConfigError(
                "inference",
                "api asks a server, which does not have what is trained here",
                "train with another, export the model, serve it, and score it: evaluate.py run=… inference=api",
            )
        if self.method.explores and self.source.explored is None:
            self.choice.of(self.source)
        if not self.method.explores:
            _ = self.corpus  # says what questions are missing
        if isinstance(self.model_spec, Tiny):
            context = self.model_spec.context
        else:
            config = self.model_spec.config()
            check_support(config, path=self.model_spec.path, longest=self.loading.max_length)
            context = config.get_text_config().max_position_embeddings
            check_template(self.model_spec.tokenizer(), self.prompt.template)
        if self.loading.max_length > context:
            raise ConfigError(
                "data.max_length",
                f"{self.loading.max_length} tokens, but the model attends to {context} at most",
                f"give {context} or less",
            )

    def _say_what_is_shared(self) -> None:
        """Warn where settings keep prompts from sharing, or make sharing differ from samples one by one."""
        if self.loading.prefix == "none" or not self.loading.packing:
            return
        if self.prompt.values == "inline":
            warnings.warn(
                "prompt.values=inline writes what matches a question into the schema, so prompts about a "
                "database differ early and share little: data.prefix=shared saves next to nothing "
                "(use prompt.values=after)",
                stacklevel=2,
            )
        if isinstance(self.adapter, Lora) and self.adapter.dropout:
            warnings.warn(
                f"adapter.dropout={self.adapter.dropout}: questions that share a prefix also share what is dropped in "
                "it, so gradients are noisier than with data.prefix=none, not biased",
                stacklevel=2,
            )

    def _check_trainer(self) -> None:
        options = self.cfg.trainer
        name = precision.resolve(options.precision, accelerator=options.accelerator)
        if name in ("bf16-true", "16-true"):
            raise ConfigError(
                "trainer.precision",
                f"{name} keeps what is trained in 16 bits, where most updates round to nothing",
                "set trainer.precision=bf16-mixed: weights in fp32, arithmetic in bf16",
            )
        if options.compile:
            raise ConfigError(
                "trainer.compile",
                "text2sql does not compile its model: rows of samples of any length would compile anew each step",
                "set it to false",
            )
        if self._spread and self.adapter.quantization is not None:
            raise ConfigError(
                "adapter",
                "weights in 4 bits cannot be spread over devices",
                "use trainer=gpus, which holds the quantised model on each, or adapter=lora with trainer=fsdp",
            )
        if options.ema_decay is not None:
            raise ConfigError(
                "trainer.ema_decay",
                "checkpoints of a language model hold the trained weights only, so averages could not be restored",
                "set it to null",
            )

    def _check_vllm(self) -> None:
        if self.cfg.trainer.devices > 1 or self.cfg.report.base is True:
            raise ConfigError(
                "inference.engine",
                "vllm holds one model on one device: it cannot be used with several processes, or score other models",
                "set inference.engine=transformers, or trainer.devices=1 and report.base=false",
            )
        if isinstance(self.model_spec, Pretrained) and self.model_spec.source()[1] and not self.adapter.trains_all:
            raise ConfigError(
                "inference.engine",
                "vllm cannot load an adapter onto a GGUF file",
                "set inference.engine=transformers, or give the model's Hugging Face folder",
            )

    def prepare(self) -> None:
        if isinstance(self.model_spec, Pretrained):
            self.model_spec.fetch()  # exploring takes long, and would be for nothing
        self._check_prompts()
        if self.cfg.report.base is True and self.method.explores and self.source.split("train"):
            seed_only.train_seed_only(self.cfg, store=self.store, fingerprint=self.source.fingerprint)

    def check_scoring(self) -> None:
        self.adapter.check()
        if self.inference.engine == "vllm":
            self._check_vllm()
        if not (self.folder / MODEL).is_dir():
            raise ConfigError(
                "run", f"{self.folder} holds no model", f"train it again: python train.py run={self.folder}"
            )

    def prepare_scoring(self) -> None:
        self.cfg.report.base = False  # the models it is compared with were scored at the run's end
        self.rescored = True
        if isinstance(self.inference, Served) and self.cfg.trainer.devices > 1:
            raise ConfigError("trainer.devices", "one process asks the server", "set inference.concurrency instead")
        self.pretrained = base_of(self.model_spec, self.folder / MODEL)
        # Explored questions that were held out stand in the run's own items.csv: nothing is explored again.
        held_out = [
            example
            for example in read_examples(self.folder / ITEMS)
            if example.source == "explored" and example.db_id in self.source.databases
        ]
        tested = self._test_questions()
        _check_any([*tested, *held_out])
        notes = {**read_json(self.folder / MANIFEST)["corpus"], "test": len(tested), "held_out": len(held_out)}
        self.corpus = Corpus(stages=[], val=[], test=tested, held_out=held_out, notes=notes)
        self._check_prompts()

    def _test_questions(self) -> list[Example]:
        with_sql = [example for example in self.source.split("test") if example.sql is not None]
        return thin(with_sql, self.loading.test_size, "test", seed=0)

    def scoring_module(self, datamodule: LightningDataModule, *, checkpoint: Path) -> LightningModule:
        """Load what the run saved, which is its best checkpoint; the weights that it started from are not needed."""
        if isinstance(self.inference, Served):
            return LightningModule()  # a server has the weights
        saved = self.folder / MODEL
        model = load_trained(self.pretrained, saved, adapter=self.adapter)
        return Text2SqlModule(model, optim=build(self.cfg.optim, where="optim"), validation=lambda model, indices: [])

    def _check_prompts(self) -> None:
        """Find prompts that do not fit before training, and not after it."""
        tokenizer = self.pretrained.tokenizer()
        self.answerer.check(tokenizer, [*self.corpus.test, *self.corpus.held_out], context=self._context)

    @cached_property
    def _context(self) -> int:
        """The most tokens that the model can attend to."""
        context: int = self.pretrained.config().get_text_config().max_position_embeddings
        return context

    # ---- inputs: each is made once, and found in the store by every other process -------------------------------

    @cached_property
    def corpus(self) -> Corpus:
        explored: list[Example] = []
        explored_in = WHICH[self.choice.split]
        if self.method.explores:
            if self.source.explored is not None:
                explored = [example_of(pair) for pair in read_pairs(self.source.explored)]
                explored_in = f"what {self.source.explored.name} holds"
            else:
                explored = explore_all(
                    self.source,
                    self.choice.of(self.source),
                    settings=self.explore_settings,
                    seed=self.cfg.seed,
                    store=self.store,
                )
        corpus = assemble(
            self.source,
            self.method,
            explored=explored,
            explored_in=explored_in,
            test_size=self.loading.test_size,
            seed=self.cfg.seed,
        )
        return corpus if not isinstance(self.method, Rejection) else self._with_own_answers(corpus, self.method)

    def _with_own_answers(self, corpus: Corpus, method: Rejection) -> Corpus:
        """Add the model's own right answers, sampled now or found in the store."""
        tokenizer = self.pretrained.tokenizer()
        room = min(self._context - self.inference.max_new_tokens, self.loading.max_length)
        questions = [example for stage in corpus.stages for example in stage]
        # What is too long is trained on with its gold, if at all; notes count it.
        asked = [e for e in questions if len(self.answerer.encode(tokenizer, e).prompt_ids) <= room]
        fingerprint = self.source.fingerprint
        found = rejection.sampled(
            self.store,
            rejection.sample_key(self.cfg, asked, fingerprint=fingerprint),
            asked,
            sampler=lambda: self._sampler(method),
            source=self.source,
            workers=max(1, min(MOST_WORKERS, cores())),
        )
        return rejection.with_own_answers(corpus, method, found)

    def _sampler(self, method: Rejection) -> rejection.Sampler:
        """Load the model that this round asks."""
        before = rejection.previous_round(self.cfg, store=self.store, fingerprint=self.source.fingerprint)
        if before is None:
            model = load_untrained(self.pretrained, adapter=Full())
        else:
            model = load_trained(self.pretrained, before / MODEL, adapter=self.adapter)
        trainer = run.make_trainer(self, callbacks=[], loggers=[])
        model = model.eval().to(trainer.strategy.root_device)
        end = end_token(model.tokenizer, self.prompt.template)
        engine = TransformersEngine(model, end_token=end, seed=seed_of(self.cfg.seed, "rejection", method.rounds))
        decoding = Decoding(
            "sample",
            method.samples,
            method.temperature,
            method.top_p,
            self.inference.max_new_tokens,
            self.inference.batch_size,
        )

        def ask(examples: Sequence[Example]) -> list[list[str]]:
            encoded = [self.answerer.encode(model.tokenizer, example) for example in examples]
            requests = [
                Request(example.id, prompt.prompt_ids, tuple(prompt.messages))
                for example, prompt in zip(examples, encoded, strict=True)
            ]
            with trainer.precision_plugin.forward_context():
                return engine.generate(requests, decoding)

        return ask

    @cached_property
    def pretrained(self) -> Pretrained:
        if isinstance(self.model_spec, Pretrained):
            return self.model_spec
        trained = [example for stage in self.corpus.stages for example in stage]
        # A schema is written once a database, or it would drown the questions.
        of_database = {example.db_id: example for example in reversed(trained)}
        texts = [
            message["content"]
            for db_id, example in of_database.items()
            for message in self.prompt.messages(example, self.source.catalog(db_id), matches={})
        ]
        for example in trained:
            assert example.sql is not None
            texts += [example.question, answer_text(example.sql)]
        folder = self.model_spec.folder(self.store, texts=texts, seed=self.cfg.seed)
        return Pretrained(str(folder))

    @cached_property
    def executor(self) -> Executor:
        # Processes of one machine share its cores.
        return Executor(workers=max(1, min(MOST_WORKERS, cores() // self.cfg.trainer.devices)), limits=LIMITS)

    @cached_property
    def answerer(self) -> Answerer:
        return Answerer(
            self.source, prompt=self.prompt, inference=self.inference, executor=self.executor, store=self.store
        )

    @cached_property
    def scorer(self) -> ExecutionScorer:
        return ExecutionScorer(self.source.databases, executor=self.executor)

    # ---- training -----------------------------------------------------------------------------------------------

    def datamodule(self) -> Text2SqlDataModule:
        return Text2SqlDataModule(
            train=self.corpus.stages,
            val=self.corpus.val,
            encode=self._encoder(),
            loading=self.loading,
            val_batch_size=self.inference.batch_size,
            seed=self.cfg.seed,
            folder=self.folder,
        )

    def module(self, datamodule: LightningDataModule) -> Text2SqlModule:
        assert isinstance(datamodule, Text2SqlDataModule)
        optim: Optim = build(self.cfg.optim, where="optim")
        asking = self.answerer.changed(inference=self.inference.greedy())

        def validation(model: LanguageModel, indices: list[int]) -> list[bool]:
            examples = [datamodule.val[index] for index in indices]
            answers = asking.answer(self.engine(model), model.tokenizer, examples)
            return [bool(item.right) for item in self.scorer.score(examples, [answer.sql for answer in answers])]

        if self._spread:
            empty = load(self.pretrained, adapter=self.adapter, seed=self.cfg.seed, empty=True)
            return Text2SqlModule(empty, optim=optim, validation=validation, weights=self.language_model)
        return Text2SqlModule(self.language_model(), optim=optim, validation=validation)

    def keeps_untrained(self) -> bool:
        chosen = self.cfg.report.get("keep_untrained")
        return isinstance(self.model_spec, Pretrained) if chosen is None else bool(chosen)

    @property
    def _scores_base(self) -> bool:
        """Whether the closing table has a row for the model as it was before training."""
        if self.cfg.report.base is not None:
            return bool(self.cfg.report.base)
        return isinstance(self.model_spec, Pretrained) and self.inference.engine == "transformers"

    def callbacks(self) -> list[Callback]:
        return [Throughput(every_n_steps=self.cfg.trainer.log_every_n_steps), OutOfMemory()]

    def language_model(self) -> LanguageModel:
        """Load the model as it starts into training."""
        return load(self.pretrained, adapter=self.adapter, seed=self.cfg.seed)

    def engine(self, model: LanguageModel) -> TransformersEngine:
        """Let a model answer."""
        end = end_token(model.tokenizer, self.prompt.template)
        return TransformersEngine(model, end_token=end, seed=self.cfg.seed)

    def load(self, module: LightningModule, checkpoint: Path) -> None:
        assert isinstance(module, Text2SqlModule)
        if module.model.sharded:
            sharding.load_whole(
                module, torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
            )
        else:
            super().load(module, checkpoint)

    # ---- scores -------------------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, module: LightningModule, datamodule: LightningDataModule) -> Metrics:
        if isinstance(self.inference, Served):
            return self._answer_and_keep(trainer, self.pretrained.tokenizer(), self._served(), context=self._context)
        assert isinstance(module, Text2SqlModule)
        model, own = module.model, not self.rescored  # what is scored again was saved
        dtype = DTYPES[self.pretrained.dtype]
        if model.sharded:
            state = sharding.gather_trained(model)
            if trainer.is_global_zero and own:
                model.save_gathered(self.folder / MODEL, state, dtype=dtype)
            del state
        else:
            model.to(trainer.strategy.root_device)
            if self.adapter.trains_all:
                model.to(dtype)  # what is saved is what is scored
            if trainer.is_global_zero and own:
                model.save(self.folder / MODEL)
        engine = self._test_engine(model, saved=self.folder / MODEL)
        metrics = self._answer_and_keep(trainer, model.tokenizer, engine, context=self._context)
        if trainer.is_global_zero and self.cfg.report.merge and model.adapted and own:
            merge(self.pretrained, adapter_folder=self.folder / MODEL, into=self.folder / MERGED)
        if self._scores_base:
            model.cpu()
            metrics |= self._score_other(trainer, "base", lambda: load_untrained(self.pretrained, adapter=self.adapter))
            if self.cfg.report.base is True and self.method.explores and self.source.split("train"):
                metrics |= self._score_other(trainer, "sft", self._seed_only)
        return metrics

    def _score_other(self, trainer: Trainer, role: str, loaded: Callable[[], LanguageModel]) -> Metrics:
        """Score a model that this run is compared with; it is gone from the device when this returns."""
        device = trainer.strategy.root_device
        if self._spread:
            adapter = Full() if role == "base" else self.adapter
            model = load(self.pretrained, adapter=adapter, seed=self.cfg.seed, empty=True)
            strategy = trainer.strategy
            assert isinstance(strategy, ModelParallelStrategy)
            sharding.spread(
                model, strategy.device_mesh, compute_dtype=DTYPES[self.pretrained.dtype], weights=loaded, device=device
            )
        else:
            model = loaded().to(device)
        scored, _, _ = self._test(trainer, model.tokenizer, self.engine(model), context=self._context)
        del model
        free_memory()
        return {f"{role}/{name}": value for name, value in scored.items()}

    def describe(self) -> dict[str, Any]:
        asked = self.inference
        model = f"{asked.model} at {asked.base_url}" if isinstance(asked, Served) else self.pretrained.path
        return {
            "data": {"fingerprint": self.source.fingerprint, **self.source.notes},
            "corpus": self.corpus.notes,
            "model": model,
            "sharing": read_json(sharing) if (sharing := self.folder / SHARING_FILE).is_file() else {},
        }

    @classmethod
    def score(cls, cfg: DictConfig, *, folder: Path) -> Metrics:
        """Score a file of predictions; without one, a model as it is, untrained."""
        if cfg.predictions is None:
            return cls.score_untrained(cfg, folder=Path(cfg.out or folder))
        if is_scorecard(cfg):
            return as_card_metrics(scorecard_command(cfg, folder=folder))
        if not is_benchmark(cfg):
            return cls._score_own(cfg, folder=Path(cfg.out or folder))
        scores = score_command(cfg, folder=folder)
        first = scores.systems[0]
        return {f"{cfg.mode}/{name}": scores.score(first, name, cfg.mode).value for name in scores.metrics}

    @classmethod
    def _score_own(cls, cfg: DictConfig, *, folder: Path) -> Metrics:
        """Score predictions on questions without a published scorer, on the databases themselves."""
        files = [cfg.predictions] if isinstance(cfg.predictions, str) else list(cfg.predictions)
        if len(files) != 1:
            raise ConfigError(
                "predictions", f"{len(files)} files", "give one file; two are compared on benchmarks only"
            )
        task = run.make_task(cfg, folder=folder, out=folder)
        assert isinstance(task, cls)
        tested = task._test_questions()
        _check_any(tested)
        with task.executor:
            return score_own(Path(str(files[0])), tested, scorer=task.scorer, out=folder)

    @classmethod
    def score_untrained(cls, cfg: DictConfig, *, folder: Path) -> Metrics:
        """Let a model of the hub, or of a folder, answer the test questions as it is (zero-shot).

        Leaves a folder like a run's, without checkpoints, so that runs can be compared with it.

        Raises:
            ConfigError, DataError: No model, no test questions, or a prompt that shows no schema or does not fit.
        """
        task = run.make_task(cfg, folder=folder, out=folder)
        assert isinstance(task, cls)
        served = isinstance(task.inference, Served)
        if isinstance(task.model_spec, Tiny) and not served:
            raise ConfigError(
                "predictions",
                "nothing to score",
                "give a file (predictions=a.sql, or two to compare: a.sql,b.sql), a run (run=…), or a model that knows "
                "SQL: model=qwen2_5_coder_0_5b, model=smollm2_135m model.path=<folder>, or one behind a server: "
                "inference=api",
            )
        if isinstance(task.prompt, Bare):
            raise ConfigError(
                "prompt", "bare shows no schema, and an untrained model has not learned it", "use prompt=ddl"
            )
        tested = task._test_questions()
        _check_any(tested)
        notes = {"seeds": 0, "explored_pairs": 0, "explored_in": "nothing was explored", "test": len(tested)}
        task.corpus = Corpus(stages=[], val=[], test=tested, held_out=[], notes=notes)
        # Where only a server has the model, prompts are measured by a count of our own.
        unknown = isinstance(task.model_spec, Tiny)
        tokenizer = counting_tokenizer() if unknown else task.pretrained.tokenizer()
        context = None if unknown else task._context
        task.answerer.check(tokenizer, tested, context=context)
        seed_everything(cfg.seed, workers=True, verbose=False)
        trainer = run.make_trainer(task, callbacks=[], loggers=[])
        folder.mkdir(parents=True, exist_ok=True)
        if served:
            engine: Engine = task._served()
        else:
            model = load_untrained(task.pretrained, adapter=Full()).eval().to(trainer.strategy.root_device)
            engine = task._test_engine(model, saved=Path(task.pretrained.path))
        metrics = task._answer_and_keep(trainer, tokenizer, engine, context=context)
        run_folder.save_config(OmegaConf.masked_copy(cfg, list(Config.__dataclass_fields__)), folder)
        write_json(folder / MANIFEST, {**environment(run.ROOT), "trained": False, **task.describe()})
        write_json(folder / METRICS, metrics)
        task.report(metrics)
        return metrics

    @classmethod
    def compare(cls, folder: Path, other: Path) -> None:
        comparison.compare(folder, other)

    def report(self, metrics: Metrics) -> None:
        report.write(self.out, cfg=self.cfg, metrics=metrics, notes=self.describe())
        report.print_closing_table(self.out, cfg=self.cfg, metrics=metrics, notes=self.describe())
        if isinstance(self.source, Scorecard):
            predictions, absent = split_predictions(self.out / PREDICTIONS, self.out)
            write_scorecard(
                self.out,
                name=self.folder.name if self.rescored else Path(self.describe()["model"]).name,
                folders=self.source.folders,
                variants=self.source.variants,
                defog_server=self.source.defog_server,
                predictions=predictions,
                absent=absent | self.source.absent,
                store=self.store.root,
                limits=None,
                workers=max(1, min(MOST_WORKERS, cores())),
            )

    def closing(self, metrics: Metrics) -> Closing:
        shown = ("question", "gold", "sql", "status")
        examples = report.examples(read_items(self.out / ITEMS))
        return Closing(
            {
                "results": report.summary(metrics, trained=True),
                "examples": (shown, [[row[name] for name in shown] for row in examples]),
            }
        )

    def _test_engine(self, model: LanguageModel, *, saved: Path) -> Engine:
        """What answers the test: the model at hand, or vLLM with what was saved of it."""
        if self.inference.engine == "transformers":
            return self.engine(model)
        end = end_token(model.tokenizer, self.prompt.template)
        context = self.pretrained.config().get_text_config().max_position_embeddings
        model.cpu()  # vLLM wants the whole device
        free_memory()
        return VllmEngine(saved, base=self.pretrained, end_token=end, seed=self.cfg.seed, context=context)

    def _served(self) -> ApiEngine:
        """A server that answers the test; answers are kept beside the scores, and not asked for twice."""
        assert isinstance(self.inference, Served)
        return ApiEngine(self.inference, folder=self.out, seed=self.cfg.seed)

    def _answer_and_keep(
        self, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, engine: Engine, *, context: int | None
    ) -> Metrics:
        """Answer and score the test, and write predictions and items."""
        metrics, answers, items = self._test(trainer, tokenizer, engine, context=context)
        if trainer.is_global_zero:
            write_predictions(self.out / PREDICTIONS, answers)
            write_items(self.out / ITEMS, items)
            _warn_of_unanswered(answers)
        return metrics

    def _test(
        self, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, engine: Engine, *, context: int | None
    ) -> tuple[Metrics, list[Answer], list[Item]]:
        """Answer and score the test questions and the held-out explored ones; each rank takes its share."""
        metrics: Metrics = {}
        all_answers: list[Answer] = []
        all_items: list[Item] = []
        for name, examples in (("ex", self.corpus.test), ("ex_held_out", self.corpus.held_out)):
            if not examples:
                continue
            mine = examples[trainer.global_rank :: trainer.world_size]
            with trainer.precision_plugin.forward_context():  # as in validation
                answers = self.answerer.answer(engine, tokenizer, mine, context=context)
            items = self.scorer.score(mine, [answer.sql for answer in answers])
            answers, items = gather(answers, trainer.world_size), gather(items, trainer.world_size)
            metrics |= as_metrics(f"test/{name}", accuracy(items))
            metrics[f"test/{name}_schema_filtered"] = sum(bool(answer.dropped) for answer in answers)
            if unanswered := sum(bool(answer.unanswered) for answer in answers):
                metrics[f"test/{name}_unanswered"] = unanswered
            doubtful = set(self.source.notes.get("doubtful_databases", ()))
            if name == "ex" and doubtful:
                sound = [item for item in items if item.example.db_id not in doubtful]
                metrics |= as_metrics("test/ex_without_doubtful", accuracy(sound))
            all_answers, all_items = all_answers + answers, all_items + items
        return metrics, all_answers, all_items

    def _seed_only(self) -> LanguageModel:
        folder = seed_only.train_seed_only(self.cfg, store=self.store, fingerprint=self.source.fingerprint)
        return load_trained(self.pretrained, folder / MODEL, adapter=self.adapter)

    @property
    def _spread(self) -> bool:
        """Whether the strategy spreads the weights over devices."""
        strategy = self.cfg.trainer.strategy
        if not OmegaConf.is_config(strategy):
            return False
        kind = locate(strategy, where="trainer.strategy")
        return isinstance(kind, type) and issubclass(kind, ModelParallelStrategy)

    def _encoder(self) -> Encoder:
        """Write examples as tokens; once each, where the prompt does not change from view to view."""
        tokenizer = self.pretrained.tokenizer()
        steady = not (self.prompt.shuffle_tables or self.prompt.drop_tables)
        return Encoder(self.answerer, tokenizer, steady=steady, longest=self.loading.max_length)


def _warn_of_unanswered(answers: Sequence[Answer]) -> None:
    """Count the questions that a server gave no answer to, by its reason."""
    reasons = Counter(answer.unanswered for answer in answers if answer.unanswered)
    if reasons:
        told = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
        warnings.warn(
            f"{reasons.total()} of {len(answers)} questions have no answer and count as wrong ({told}). "
            f"{PREDICTIONS} names them; the same command with the same out= asks for these alone",
            stacklevel=2,
        )


def _check_any(examples: Sequence[Example]) -> None:
    if not examples:
        raise ConfigError("data", "no test questions with SQL to score on", "give some (data=own: data.test=…)")


def as_card_metrics(card: Card) -> Metrics:
    """Each set's first metric."""
    found: Metrics = {}
    for key, scores in card.scores.items():
        metric = scores.metrics[0]
        found[f"{key}/{metric}"] = scores.score(scores.systems[0], metric, scores.mode).value
    return found


def free_memory() -> None:
    """Give back what the allocator keeps of models that are gone; others on the device cannot use it."""
    gc.collect()
    torch.cuda.empty_cache()


def as_metrics(name: str, found: Accuracy) -> Metrics:
    """Name an accuracy's parts."""
    parts = {"": found.percent, "_low": found.low, "_high": found.high, "_count": found.count}
    return {f"{name}{part}": value for part, value in parts.items()}


def load_run(
    folder: Path | None,
    *,
    device: str,
    changes: Sequence[str] = (),
    database: str | None = None,
    trusted: Collection[str] = (),
) -> LoadedRun:
    """Open a finished run's folder, to ask its model; or a server, which may be asked without a run.

    Args:
        folder: The run's; None asks a server.
        device: Where the model goes.
        changes: Overrides of ``inference`` and ``prompt``.
        database: What is asked where there is no run.
        trusted: Packages, beside this one, whose classes the run's config may name.

    Raises:
        ConfigError: No run, one that is not finished, or one of another task.
    """
    if folder is None:
        return _load_server(changes, database=database)
    cfg = run_folder.load_config(folder, trusted=trusted)
    if task_class(cfg) is not Text2SqlTask:
        raise ConfigError("run", f"{folder} is a run of another task", "give a run of task=text2sql")
    fit_to_machine(cfg)
    cfg = overrides.apply(cfg, changes, changeable={"inference", "prompt"}, kept={})
    saved = folder / MODEL
    if not saved.is_dir():
        raise ConfigError("run", f"{folder} holds no model yet", f"finish it with: python train.py run={folder}")
    served = str(cfg.inference.engine) == "api"
    if not served and cfg.get("adapter") is not None:
        quantised = build(cfg.adapter, where="adapter").quantization
        if quantised and device == "cpu":
            saved = folder / MERGED
            if not saved.is_dir():
                raise ConfigError(
                    "run",
                    f"{folder} trained an adapter on a model in 4 bits, which needs a CUDA device",
                    "ask on a machine that has one, or train with report.merge=true, which also writes a model that "
                    "any machine loads",
                )
            cfg.adapter = {"_target_": "tutelage.text2sql.model.adapters.Full"}
    task = run.make_task(cfg, folder=folder, out=folder)
    assert isinstance(task, Text2SqlTask)
    base = base_of(task.model_spec, saved)
    context: int = base.config().get_text_config().max_position_embeddings
    if isinstance(task.inference, Served):
        return LoadedRun(None, base.tokenizer(), context, _session_engine(task.inference, task.cfg.seed), task.answerer)
    model = load_trained(base, saved, adapter=task.adapter).eval()
    # A quantised model is on its device from the start, and stays there.
    model = model if task.adapter.quantization else model.to(device)
    return LoadedRun(model, model.tokenizer, context, task.engine(model), task.answerer)


def _load_server(changes: Sequence[str], *, database: str | None) -> LoadedRun:
    prompt = [] if any(change.startswith("prompt=") for change in changes) else ["prompt=ddl"]
    composed = overrides.compose_config(
        ["task=text2sql", "data=own", f"data.database='{database}'", "run=asked", *prompt, *changes]
    )
    task = run.make_task(composed, folder=Path("asked"), out=Path("asked"))
    assert isinstance(task, Text2SqlTask) and isinstance(task.inference, Served)
    return LoadedRun(None, counting_tokenizer(), None, _session_engine(task.inference, composed.seed), task.answerer)


def _session_engine(inference: Served, seed: int) -> ApiEngine:
    """A server for a session; its answers are kept as long as the process."""
    folder = tempfile.TemporaryDirectory(prefix="tutelage-")
    atexit.register(folder.cleanup)
    return ApiEngine(inference, folder=Path(folder.name), seed=seed)
