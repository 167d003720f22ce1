"""From a database to checked pairs: catalog → facts → graph → walks → candidates → filter → files.

Walks are taken in blocks: one by one, or several where a synthesizer asks a server for many at once. A block's walks
begin together, and each level is checked in order before the next one is proposed; a finished block is one line of
``progress.jsonl``. What a block proposes and accepts is a function of the settings and of the blocks before it, so a
killed exploration goes on at its first unfinished block, and ends with the same files, byte for byte (offline; an
API's answers are the same where its replies are in the cache).
"""

import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from tutelage.core.build import build
from tutelage.core.errors import ConfigError, DataError, RunError, UserError
from tutelage.core.randomness import generator
from tutelage.core.store import Store, content_hash, file_hash, write_atomically
from tutelage.text2sql.database.address import DatabaseUrl, parse_database
from tutelage.text2sql.database.catalog import Catalog, read_catalog
from tutelage.text2sql.database.check import check_database
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.database.flights import flights_database
from tutelage.text2sql.database.schema import Dialect
from tutelage.text2sql.database.snapshot import snapshot
from tutelage.text2sql.explore.config import ExploreSettings
from tutelage.text2sql.explore.facts.evidence import evidence_for
from tutelage.text2sql.explore.facts.gather import gather_facts
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.filter import (
    Accepted,
    Guard,
    Rejection,
    Seen,
    check,
    check_wording,
    fitted_query,
)
from tutelage.text2sql.explore.graph import Graph, build_graph
from tutelage.text2sql.explore.knowledge import Knowledge, mine, read_fitting
from tutelage.text2sql.explore.native import NativeRunner
from tutelage.text2sql.explore.outcome import Outcome, Rejected
from tutelage.text2sql.explore.outputs import write_outputs
from tutelage.text2sql.explore.pair import Candidate, Pair, Walk
from tutelage.text2sql.explore.runner import Runner
from tutelage.text2sql.explore.samplers.base import Sampler
from tutelage.text2sql.explore.seeds import Seed, read_seeds
from tutelage.text2sql.explore.synthesizers.base import Synthesizer
from tutelage.text2sql.explore.verify.agreement import enough
from tutelage.text2sql.explore.verify.judge import Verifier
from tutelage.text2sql.explore.verify.perturb import write_copies

_VERSION = 6  # of what the same settings give: a change makes explorations of old stand beside new ones
_AT_ONCE = 32  # candidates that a model is asked about together, unless a level is full before
_HOPELESS = 100  # candidates without one that a model agrees with, after which it is not asked on
_SAY_EVERY = 1.0  # seconds between two lines of progress, at least

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A database that is ready to be explored.

    Attributes:
        path: The SQLite file that candidates are checked on: the database, or a copy of it.
        catalog: Of that file.
        fingerprint: A hash of what it depends on.
        original: The database itself, in whose own dialect each pair has to run, where the file is a copy.
        is_whole: Whether the file holds all rows.
    """

    path: Path
    catalog: Catalog
    fingerprint: str
    original: DatabaseUrl | None
    is_whole: bool

    @property
    def dialect(self) -> Dialect:
        """The database's own."""
        return "sqlite" if self.original is None else self.original.dialect


def explore(settings: ExploreSettings, *, store: Store, out: Path | None = None, say: Say = print) -> Path:
    """Explore a database, or find that it was explored.

    Args:
        settings: What the result is a function of.
        store: Where it is kept, and where the embedded database is.
        out: A folder for the result instead.
        say: Told how far it is.

    Returns:
        The folder: ``facts.jsonl``, ``pairs.jsonl``, ``pairs.parquet``, ``rejected.parquet``, ``knowledge.jsonl``, the
        graph, ``report.html`` and ``manifest.json``.

    Raises:
        ConfigError, DataError: The settings or the database cannot work.
    """
    source = open_source(settings, store, say=say)
    edited = Facts.read(Path(settings.facts)) if settings.facts else None
    seeds = read_seeds(Path(settings.seeds)) if settings.seeds else ()
    guarded = tuple(seed for path in settings.guard for seed in read_seeds(Path(path)))
    inputs = _inputs(settings, source)

    def make(folder: Path) -> dict[str, Any]:
        exploration = Exploration(
            settings, source=source, edited=edited, seeds=seeds, guarded=guarded, folder=folder, say=say
        )
        return exploration.run()

    if out is None:
        return store.make("explorations", inputs, make)
    return _make_in(out, inputs, make)


def open_source(settings: ExploreSettings, store: Store, *, say: Say) -> Source:
    """Open the database of the settings, and refuse one that has nothing to ask about."""
    options = settings.catalog
    descriptions = Path(options.descriptions) if options.descriptions else None
    database = parse_database(settings.database) if settings.database is not None else flights_database(store)
    say(f"reads {database}")  # counting values reads every row
    check_database(database)
    catalog = read_catalog(database, db_id=settings.db_id, descriptions=descriptions, infer_keys=options.infer_keys)
    if not any(table.num_rows for table in catalog.tables):
        raise DataError(
            "database", f"no table of {catalog.database} has a row", "give a database with data: questions are about it"
        )
    if isinstance(database, Path):
        path = database
        log = path.with_name(path.name + "-wal")  # the last changes may stand there
        fingerprint = file_hash(path) + (file_hash(log) if log.exists() and log.stat().st_size else "")
        return Source(path, catalog, fingerprint, None, is_whole=True)
    copy = snapshot(database, catalog, store=store, max_rows=options.max_rows)
    fingerprint = content_hash({"catalog": repr(catalog)})
    return Source(copy.path, copy.catalog, fingerprint, database, is_whole=copy.is_whole)


def _inputs(settings: ExploreSettings, source: Source) -> dict[str, Any]:
    """Name what the result depends on: files by their content, not by where they lie."""
    inputs: dict[str, Any] = {
        **asdict(settings),
        "version": _VERSION,
        "database": source.fingerprint,
        "db_id": source.catalog.db_id,
        "descriptions": content_hash({"catalog": repr([table.columns for table in source.catalog.tables])}),
        "seeds": file_hash(Path(settings.seeds)) if settings.seeds else None,
        "guard": [file_hash(Path(path)) for path in settings.guard],
        "facts": file_hash(Path(settings.facts)) if settings.facts else None,
        "documents": [file_hash(Path(path)) for path in settings.documents],
        "prompts": _prompts_hash(settings),
    }
    del inputs["catalog"]["descriptions"]
    del inputs["limits"]["workers"]
    return inputs


def _prompts_hash(settings: ExploreSettings) -> str | None:
    """Hash the templates that a model is asked with, which a user may edit; None where none is asked."""
    if str(settings.synthesizer["_target_"]).rsplit(".", 1)[-1] == "Offline":
        return None
    files = sorted((Path(__file__).parent / "synthesizers" / "prompts").glob("*.jinja"))
    return content_hash({file.name: file.read_text(encoding="utf-8") for file in files})


def _make_in(out: Path, inputs: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]) -> Path:
    """Do as the store does, in a folder of the user's."""
    mark = out / "inputs.json"
    if out.exists() and not mark.exists() and any(out.iterdir()):
        raise ConfigError("out", f"{out} holds something else", "give a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_name(f".{out.name}.lock")):
        text = json.dumps(inputs, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        before = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else inputs
        if {**before, "walks": 0} != {**json.loads(text), "walks": 0} or before["walks"] > inputs["walks"]:
            raise ConfigError(
                "out", f"{out} holds an exploration with other settings, see {mark}", "give a new or empty folder"
            )
        if before["walks"] < inputs["walks"]:
            (out / "manifest.json").unlink(missing_ok=True)  # more walks go on where the last ones ended
        write_atomically(mark, text)
        if not (out / "manifest.json").exists():
            manifest = {"kind": "explorations", "inputs": inputs, **make(out)}
            write_atomically(out / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return out


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A candidate in its place: the ``number``-th of its walk at its level."""

    candidate: Candidate
    walk: Walk
    parent: Pair | None
    number: int

    def name(self, db_id: str) -> str:
        """The id of the pair that it may become."""
        own = "m" if self.parent is None and self.candidate.level > 1 else ""  # begun with several operators at once
        return f"{db_id}/{self.walk.id}.{self.candidate.level}.{own}{self.number}"


class _Asker:
    """Asks a synthesizer for many walks or pairs; answers come in the order of the questions."""

    def __init__(self, synthesizer: Synthesizer, threads: ThreadPoolExecutor | None) -> None:
        self._synthesizer = synthesizer
        self._map = map if threads is None else threads.map

    def begin(self, walks: Sequence[Walk]) -> Iterator[tuple[Walk, list[Candidate] | str]]:
        """Yield each walk with its candidates, or with the fault that kept it from having any."""
        return zip(walks, self._map(lambda walk: _attempt(self._synthesizer.begin, walk), walks), strict=True)

    def extend(self, tasks: Sequence[tuple[Pair, Walk]]) -> Iterator[tuple[tuple[Pair, Walk], list[Candidate] | str]]:
        """Yield each pair and walk likewise."""
        return zip(tasks, self._map(lambda task: _attempt(self._synthesizer.extend, *task), tasks), strict=True)


def _attempt(propose: Callable[..., list[Candidate]], *of: Pair | Walk) -> list[Candidate] | str:
    """Keep a fault to its walk: one odd cell must not end an exploration. What a user can change is passed on."""
    try:
        return propose(*of)
    except UserError:
        raise
    except Exception as error:
        return _fault(error)


def _fault(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


class Exploration:
    """One exploration in its folder: what was accepted so far, and how it goes on."""

    def __init__(
        self,
        settings: ExploreSettings,
        *,
        source: Source,
        edited: Facts | None,
        seeds: Sequence[Seed],
        guarded: Sequence[Seed],
        folder: Path,
        say: Say,
    ) -> None:
        self._settings = settings
        self._source = source
        self._edited, self._seeds = edited, seeds
        self._catalog, self._facts = source.catalog, Facts()
        self._folder = folder
        self._say = say
        readings, self._seed_counts = read_fitting(source.catalog, seeds)
        if self._seed_counts:
            say(f"seeds: {', '.join(f'{count} {reason}' for reason, count in self._seed_counts.items())}")
        self._graph: Graph = build_graph(source.catalog, readings=readings, smoothing=settings.smoothing)
        self._knowledge: Knowledge = mine(source.catalog, seeds=seeds, readings=readings)
        self._sampler: Sampler = build(settings.sampler, where="sampler", graph=self._graph, seed=settings.seed)
        self._guard = Guard.of((seed.question, seed.sql) for seed in guarded)
        self._seen = Seen()
        self._verifier: Verifier | None = None
        self._native: NativeRunner | None = None
        self._levels: dict[int, list[Pair]] = {level: [] for level in range(1, settings.max_level + 1)}
        self._outcome = Outcome(pairs=[], rejected=[], num_walks=0)

    def run(self) -> dict[str, Any]:
        """Go on to the end, and write the final files.

        Returns:
            What the manifest says beside the inputs: why it ended, counts, and rejects by reason.
        """
        progress = self._folder / "progress.jsonl"
        for block in _read_progress(progress):
            self._replay(block)
        if self._outcome.num_walks:
            self._say(f"goes on at walk {self._outcome.num_walks}: {self._so_far()}")
        limits = self._settings.limits
        with (
            TemporaryDirectory(prefix="tutelage-copies-") as copies,
            Executor(
                workers=limits.workers,
                limits=Limits(seconds=limits.seconds, rows=limits.rows, memory_mb=limits.memory_mb),
            ) as executor,
        ):
            runner = Runner(executor, self._source.path)
            if (original := self._source.original) is not None:
                self._native = NativeRunner(
                    self._source.catalog, original, is_whole=self._source.is_whole, run_on=runner.run_on
                )
            self._learn_facts(runner)
            self._verifier = self._make_verifier(runner, Path(copies))
            self._synthesizer: Synthesizer = build(
                self._settings.synthesizer,
                where="synthesizer",
                catalog=self._catalog,
                facts=self._facts,
                knowledge=self._knowledge,
                execute=runner.run,
                seed=self._settings.seed,
            )
            try:
                self._learn_more()
                self._walk(runner, progress)
            except RunError:
                # A budget is spent, a server is gone: what was found can be used, and the rest may still come.
                self._write()
                self._say(f"{self._folder} holds what was found: {self._so_far()}")
                raise
            finally:
                self._synthesizer.close()
            told = self._synthesizer.summary()
        # progress.jsonl stays: more walks go on from there.
        summary = {"ended": self._ended(), "seeds": self._seed_counts, **self._write()}
        if told:
            summary["synthesizer"] = dict(told)
            self._say(", ".join(f"{name}: {value}" for name, value in told.items()))
        return summary

    def _make_verifier(self, runner: Runner, folder: Path) -> Verifier | None:
        settings = self._settings
        if not settings.verify.mutants and not settings.verify.agree:
            return None
        path = self._source.path
        copies = write_copies(path, self._catalog, folder, copies=settings.verify.copies, seed=settings.seed)
        return Verifier(
            self._catalog,
            copies=copies,
            database=path,
            run_all=runner.run_all,
            mutants=settings.verify.mutants,
        )

    def _learn_facts(self, runner: Runner) -> None:
        """Gather what can be known of the database, and write it where a person can correct it."""
        path = self._folder / "facts.jsonl"
        before = Facts.read(path) if path.exists() else Facts()  # it may have been edited since
        self._facts = gather_facts(
            self._source.catalog,
            execute=runner.run,
            seeds=self._seeds,
            documents=[Path(document) for document in self._settings.documents],
            edited=before.merged(self._edited or ()),
        )
        self._facts.write(path)
        self._catalog = self._facts.described(self._source.catalog)
        self._say(f"{path} holds {len(self._facts)} facts")

    def _learn_more(self) -> None:
        """Let a model say what the database means; a person's word and what is surer stay."""
        if self._ended() is None and (facts := self._synthesizer.learn(self._sampler.walks(range(_AT_ONCE)))):
            self._facts = self._facts.merged(facts)
            self._facts.write(self._folder / "facts.jsonl")
            self._catalog = self._facts.described(self._source.catalog)
            self._say(f"a model proposes {len(facts)} facts")

    def _walk(self, runner: Runner, progress: Path) -> None:
        """Take block after block, a line of progress each."""
        synthesizer = self._synthesizer
        with progress.open("a", encoding="utf-8") as file, ThreadPoolExecutor(synthesizer.concurrency) as threads:
            ask = _Asker(synthesizer, threads if synthesizer.concurrency > 1 else None)
            said = 0.0
            while self._ended() is None:
                block = self._block(ask, runner, synthesizer.walks_at_once)
                file.write(json.dumps(block, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
                self._check_hope()
                if time.monotonic() - said >= _SAY_EVERY:
                    self._say(f"walk {self._outcome.num_walks} of {self._settings.walks}: {self._so_far()}")
                    said = time.monotonic()
        self._say(f"ended after {self._outcome.num_walks} walks: {self._ended()}")

    def _write(self) -> dict[str, Any]:
        return write_outputs(
            self._folder,
            outcome=self._outcome,
            catalog=self._catalog,
            graph=self._graph,
            facts=self._facts,
            knowledge=self._knowledge,
            dialect=self._source.dialect,
        )

    def _ended(self) -> str | None:
        """Why there are no more walks; None while there are. Decided between blocks, by what these gave."""
        fruitful = max((pair.walk + 1 for pair in self._outcome.pairs), default=0)
        patience, idle = self._settings.patience, self._outcome.num_walks - fruitful
        if all(map(self._full, self._levels)):
            return "all levels are full"
        if patience is not None and idle >= patience:
            return f"the last {idle} walks gave no pair"
        return "all walks are taken" if self._outcome.num_walks >= self._settings.walks else None

    def _full(self, level: int) -> bool:
        limit = self._settings.per_level
        return limit is not None and len(self._levels.get(level, ())) >= limit

    def _so_far(self) -> str:
        counts = ", ".join(f"level {level}: {len(pairs)}" for level, pairs in self._levels.items() if pairs)
        return f"{len(self._outcome.pairs)} pairs ({counts or 'none yet'}), {len(self._outcome.rejected)} rejected"

    def _block(self, ask: "_Asker", runner: Runner, size: int) -> dict[str, Any]:
        """Take the next block of walks through all levels; return its line of progress."""
        first = self._outcome.num_walks
        ids = range(first, min(first + size, self._settings.walks))
        num_pairs, num_rejected = len(self._outcome.pairs), len(self._outcome.rejected)
        notes: list[dict[str, Any]] = []
        walks = self._sampler.walks(ids)
        self._synthesizer.prepare(walks)
        proposals: list[_Proposal] = []
        for walk, candidates in ask.begin([] if self._full(1) else walks):
            if isinstance(candidates, str):
                self._reject_walk(walk, 1, None, candidates)
            else:
                proposals += [_Proposal(candidate, walk, None, number) for number, candidate in enumerate(candidates)]
        for level in self._levels:
            fresh: dict[int, list[Pair]] = {walk.id: [] for walk in walks}
            for proposal, pair in self._judge_all(proposals, runner, notes):
                if pair.level == level:
                    fresh[proposal.walk.id].append(pair)
            if all(self._full(deeper) for deeper in self._levels if deeper > level):
                break
            # Where the next level is full, the one after it is still reached by revisits.
            proposals = [] if self._full(level + 1) else self._extend(ask, walks, level, fresh)
        self._outcome.num_walks = ids.stop
        return {
            "walks": ids.stop,
            "pairs": [pair.to_json() for pair in self._outcome.pairs[num_pairs:]],
            "notes": notes,
            "rejected": [asdict(rejected) for rejected in self._outcome.rejected[num_rejected:]],
        }

    def _extend(
        self,
        ask: "_Asker",
        walks: Sequence[Walk],
        level: int,
        fresh: Mapping[int, list[Pair]],
    ) -> list[_Proposal]:
        """Propose the next level from each walk's new pairs and, where they are few, from pairs of old."""
        tasks: list[tuple[Pair, Walk]] = []
        for walk in walks:
            own = fresh[walk.id][: self._settings.breadth]
            tasks += [(pair, walk) for pair in own]
            tasks += self._revisits(walk, level, self._settings.breadth - len(own), {pair.id for pair in own})
        numbers = dict.fromkeys((walk.id for walk in walks), 0)
        proposals = []
        for (parent, walk), candidates in ask.extend(tasks):
            if isinstance(candidates, str):
                self._reject_walk(walk, level + 1, parent, candidates)
                continue
            for candidate in candidates:
                proposals.append(_Proposal(candidate, walk, parent, numbers[walk.id]))
                numbers[walk.id] += 1
        return proposals

    def _revisits(self, walk: Walk, level: int, count: int, taken: set[str]) -> list[tuple[Pair, Walk]]:
        """Draw accepted pairs of a level to be extended once more, along their own columns under this walk's id.

        A small database soon has all the simple pairs that it can have: what it still has to give lies deeper.
        """
        known = self._levels[level]
        if count <= 0 or not known:
            return []
        random = generator(self._settings.seed, "revisit", walk.id, level)
        drawn = [known[place] for place in random.permutation(len(known))[: count + len(taken)].tolist()]
        chosen = [pair for pair in drawn if pair.id not in taken][:count]
        origins = self._sampler.walks([pair.walk for pair in chosen])
        return [(pair, replace(origin, id=walk.id)) for pair, origin in zip(chosen, origins, strict=True)]

    def _judge_all(
        self, proposals: Sequence[_Proposal], runner: Runner, notes: list[dict[str, Any]]
    ) -> Iterator[tuple[_Proposal, Pair]]:
        """Check candidates in their order; yield those that are kept, with their pairs."""
        with runner.ahead(proposal.candidate.sql for proposal in proposals):
            for start in range(0, len(proposals), _AT_ONCE):
                good = []
                for proposal in proposals[start : start + _AT_ONCE]:
                    if not self._full(proposal.candidate.level):
                        accepted = self._check(proposal, runner)
                        if accepted is not None and not self._synthesizer.verifies:
                            yield proposal, self._accept(proposal, accepted, notes, solved=None)
                        elif accepted is not None:
                            good.append((proposal, accepted))
                if good:
                    yield from self._verify(good, notes)

    def _check(self, proposal: _Proposal, runner: Runner) -> Accepted | None:
        """Check a candidate by itself; keep why it is none, or return what is known of it."""
        candidate = proposal.candidate
        if candidate.level > self._settings.max_level:
            self._reject(proposal, Rejection("too_large", f"level {candidate.level} of {self._settings.max_level}"))
            return None
        verdict: Accepted | Rejection
        try:
            verdict = check(
                candidate,
                parent=proposal.parent,
                catalog=self._catalog,
                execute=runner.run,
                guard=self._guard,
                seen=self._seen,
                verify=self._verifier,
                mention=not (self._synthesizer.verifies and self._settings.verify.agree),
                native=self._native,
            )
        except UserError:
            raise
        except Exception as error:  # a reply may hold anything, and is paid for: it must not end this run or the next
            verdict = Rejection("error", _fault(error))
        if isinstance(verdict, Accepted):
            return verdict
        self._reject(proposal, verdict)
        return None

    def _verify(
        self, good: Sequence[tuple[_Proposal, Accepted]], notes: list[dict[str, Any]]
    ) -> Iterator[tuple[_Proposal, Pair]]:
        """Let a model say the questions of candidates whose SQL is good, and answer them; keep those it agrees with."""
        spoken = self._synthesizer.spoken([self._with_evidence(proposal.candidate) for proposal, _ in good])
        asked: list[tuple[_Proposal, Accepted]] = []
        for (proposal, accepted), question in zip(good, spoken, strict=True):
            candidate = proposal.candidate
            self._seen.forget(candidate.sql, candidate.question, accepted)
            if question is None:
                self._reject(proposal, Rejection("no_question", "the reply holds no question"))
                continue
            worded = replace(proposal, candidate=self._with_evidence(replace(candidate, question=question)))
            doubt = check_wording(question, candidate.sql, catalog=self._catalog, guard=self._guard, seen=self._seen)
            if doubt is not None:
                self._reject(worded, doubt)
                continue
            self._seen.note(candidate.sql, question, accepted)
            asked.append((worded, accepted))
        answers = self._synthesizer.answers([proposal.candidate for proposal, _ in asked])
        for (proposal, accepted), of_one in zip(asked, answers, strict=True):
            candidate = proposal.candidate
            solved: float | None = None
            if self._verifier is not None:
                found = self._verifier.agreement(fitted_query(candidate.sql, self._catalog), of_one)
                solved = round(found.agreed / max(1, found.asked), 4)
                doubt = enough(found, agree=self._settings.verify.agree)
                if doubt is not None or self._full(candidate.level):
                    self._seen.forget(candidate.sql, candidate.question, accepted)
                    if doubt is not None:
                        self._reject(proposal, doubt)
                    continue
            yield proposal, self._accept(proposal, accepted, notes, solved=solved)

    def _with_evidence(self, candidate: Candidate) -> Candidate:
        evidence = candidate.evidence or evidence_for(candidate, self._catalog, self._facts)
        return replace(candidate, evidence=evidence)

    def _accept(
        self,
        proposal: _Proposal,
        accepted: Accepted,
        notes: list[dict[str, Any]],
        *,
        solved: float | None,
    ) -> Pair:
        candidate, walk, parent = self._with_evidence(proposal.candidate), proposal.walk, proposal.parent
        pair = Pair(
            id=proposal.name(self._source.catalog.db_id),
            db_id=self._source.catalog.db_id,
            level=candidate.level,
            question=candidate.question,
            sql=candidate.sql,
            operators=candidate.operators,
            sampler=walk.sampler,
            parent=parent.id if parent else None,
            walk=walk.id,
            columns=accepted.columns,
            tables=accepted.tables,
            state=candidate.state,
            evidence=candidate.evidence,
            solved=solved,
            native_sql=self._native.native(candidate.sql) if self._native is not None else "",
        )
        self._keep(pair)
        notes.append(asdict(accepted))
        return pair

    def _reject(self, proposal: _Proposal, why: Rejection) -> None:
        candidate, parent = proposal.candidate, proposal.parent
        self._outcome.rejected.append(
            Rejected(
                id=proposal.name(self._source.catalog.db_id),
                walk=proposal.walk.id,
                level=candidate.level,
                parent=parent.id if parent else None,
                question=candidate.question,
                sql=candidate.sql,
                operators=candidate.operators,
                reason=why.reason,
                detail=why.detail,
            )
        )

    def _check_hope(self) -> None:
        """Stop where a model agrees with nothing.

        Raises:
            RunError: With the reasons.
        """
        turned_away = [item for item in self._outcome.rejected if item.reason in ("disagreed", "no_question")]
        if self._outcome.pairs or len(turned_away) < _HOPELESS:
            return
        reasons = Counter(item.reason for item in turned_away)
        last = turned_away[-1]
        raise RunError(
            "verify.agree",
            f"of {len(turned_away)} candidates not one is agreed with "
            f"({', '.join(f'{count} {reason}' for reason, count in reasons.most_common())}); the last: "
            f"{last.question!r}, {last.detail}",
            "take a larger model, a smaller verify.agree, or synthesizer=offline",
        )

    def _reject_walk(self, walk: Walk, level: int, parent: Pair | None, fault: str) -> None:
        """Count a walk that gave no candidate because of a fault."""
        name = f"{self._source.catalog.db_id}/{walk.id}.{level}"
        of = parent.id if parent else None
        self._outcome.rejected.append(Rejected(name, walk.id, level, of, "", "", (), "error", fault))

    def _keep(self, pair: Pair) -> None:
        self._outcome.pairs.append(pair)
        self._levels[pair.level].append(pair)

    def _replay(self, block: Mapping[str, Any]) -> None:
        """Take over a block that was finished before."""
        for record, note in zip(block["pairs"], block["notes"], strict=True):
            pair = Pair.from_json(record)
            self._keep(pair)
            self._seen.note(pair.sql, pair.question, Accepted.from_json(note))
        self._outcome.rejected += [Rejected.from_json(record) for record in block["rejected"]]
        self._outcome.num_walks = block["walks"]


def _read_progress(path: Path) -> Iterable[dict[str, Any]]:
    """Read the finished blocks; half a line of a killed run is cut off."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]
