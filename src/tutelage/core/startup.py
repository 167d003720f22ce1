"""What a program settles before torch is imported: what is not loaded yet, and how long its threads spin.

Importing Lightning imports all of torchmetrics, and with it transformers, scipy.signal and more, of which a run uses
nothing: half of the seconds before the first training step. Programs call :func:`prepare` first; whoever uses Tutelage
as a library decides about imports and threads alone.
"""

import importlib
import importlib.util
import logging
import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

# How often an OpenMP thread looks for its next task before it sleeps. libgomp's own 300,000 are milliseconds; on cores
# that other processes want, they are taken from the thread that is waited for.
SPINS = "10000"


def prepare() -> None:
    """Defer what is not needed, and set OpenMP's environment; what the user set stays."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # libgomp: torch's wheels for Linux
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # libomp, elsewhere: milliseconds
    defer_torchmetrics()
    defer("wandb")  # timm imports it; logger=wandb uses it


# ---- imports ------------------------------------------------------------------------------------------------------


class _Deferred(ModuleType):
    """A package whose ``__init__`` runs when a name is asked of it that nobody has put there."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        run_init(self)
        return getattr(self, name)


class _DeferredWithItsModules(_Deferred):
    """As `_Deferred`, where the ``__init__`` has to run before any module of the package, too."""


class _BeforeModules(MetaPathFinder):
    """Finds nothing; it is asked first when a module is imported, which is when a package's turn has come."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        package = sys.modules.get(fullname.partition(".")[0])
        if isinstance(package, _DeferredWithItsModules):
            run_init(package)


def run_init(package: ModuleType) -> None:
    """Run a deferred package's own ``__init__``."""
    package.__class__ = ModuleType  # first: the __init__ asks for names that are not there yet
    assert package.__spec__ is not None and package.__spec__.loader is not None
    package.__spec__.loader.exec_module(package)


def defer(name: str) -> None:
    """Import a package when something is first asked of it."""
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is not None:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        sys.modules[name].__class__ = _DeferredWithItsModules
        if not any(isinstance(finder, _BeforeModules) for finder in sys.meta_path):
            sys.meta_path.insert(0, _BeforeModules())


def defer_torchmetrics() -> None:
    """Load the two classes of torchmetrics that Lightning and our scores need; the rest when it is asked for.

    Where a release of torchmetrics has other insides, it is imported whole, as without this.
    """
    name = "torchmetrics"
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is None:
        return
    package = importlib.util.module_from_spec(spec)
    package.__dict__["_logger"] = logging.getLogger(name)
    sys.modules[name] = package
    try:
        # In torchmetrics' own order: utilities come before metric.
        about, _, metric, collections = (
            importlib.import_module(f"{name}.{part}") for part in ("__about__", "utilities", "metric", "collections")
        )
        package.__dict__.update(
            __version__=about.__version__, Metric=metric.Metric, MetricCollection=collections.MetricCollection
        )
        package.__class__ = _Deferred
    except (ImportError, AttributeError):
        for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[loaded]


# ---- cores --------------------------------------------------------------------------------------------------------


def cores() -> int:
    """Count the cores that this process may use: its affinity, and the quota of its cgroup."""
    found = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _cgroup_quota()
    return found if quota is None else max(1, min(found, round(quota)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that a container may use; None where there is no limit."""
    try:
        given, period = (root / "cpu.max").read_text().split()  # version 2
        return None if given == "max" else int(given) / int(period)
    except (OSError, ValueError):
        pass
    try:
        micros = int((root / "cpu" / "cpu.cfs_quota_us").read_text())  # version 1
        return None if micros <= 0 else micros / int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None


def memory(*, root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's share."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup version 2 and 1
        try:
            found = min(found, int((root / name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return found


def loader_processes(asked: int) -> int:
    """Cap the loader processes that each training process starts: together no more than there are cores."""
    return min(asked, max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
