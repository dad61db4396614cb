"""Training runs on the machines of a cluster: started early, and kept as if this machine had trained them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tunepoint.arms.contract import KeepsTrainingRuns
from tunepoint.data.examples import Example
from tunepoint.errors import ModelError
from tunepoint.models.spreading import WorkerLost
from tunepoint.task.task import Task

RunFiles = Mapping[str, bytes]
"""Path below the folder of runs -> content."""
Start = Callable[[KeepsTrainingRuns, "TrainingOrder"], tuple["Future[RunFiles]", Callable[[], None]]]
"""Starts a run of an arm elsewhere; returns its files, and what cancels it."""
MOST_MODULES = 500
"""That go along with a task whose own scorer is used."""
POLL_SECONDS = 1.0
"""Between two looks at the spending cap while a run is awaited."""


@dataclass(frozen=True)
class TrainingOrder:
    """All that another machine needs to train a run, besides the arm, which many runs share."""

    task: Task
    train: Sequence[Example]
    seed: tuple[int, ...]
    """Of the run's random numbers."""
    modules: Mapping[str, bytes]
    """Name -> text of the modules beside the task, where one of them scores answers."""
    threads: int
    """That compute it: sums of floating-point numbers depend on how they are divided."""

    def carry_out(self, arm: KeepsTrainingRuns) -> RunFiles:
        """Train the run of an arm; return its files."""
        from tunepoint.arms.causal.hardware import use_threads

        use_threads(self.threads)
        with TemporaryDirectory() as keep, TemporaryDirectory() as beside:
            task = self.task
            if self.modules:
                for name, content in self.modules.items():
                    path = Path(beside, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                task = task.model_copy(update={"folder": Path(beside)})
            arm.keeping(Path(keep)).fit(task, self.train, np.random.default_rng(list(self.seed)))
            return read_files(Path(keep))


def modules_beside(folder: Path) -> dict[str, bytes]:
    """Return the Python modules in a folder and its packages: path below it -> text."""
    modules: dict[str, bytes] = {}
    waiting = [folder]
    while waiting and len(modules) < MOST_MODULES:
        for path in sorted(waiting.pop().iterdir()):
            if path.is_file() and path.suffix == ".py":
                modules[path.relative_to(folder).as_posix()] = path.read_bytes()
            elif path.is_dir() and path.name.isidentifier() and path.name != "__pycache__":
                waiting.append(path)
    return modules


def read_files(folder: Path) -> dict[str, bytes]:
    """Return what is in a folder: path below it -> content."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def keep_run(files: RunFiles, keep: Path, name: str) -> None:
    """Write a run, a file or a folder, whole or not at all."""
    unfinished = keep / f"{name}.part"
    shutil.rmtree(unfinished, ignore_errors=True)
    for path, content in files.items():
        if path == name or path.startswith(f"{name}/"):
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    if not (unfinished / name).exists():
        raise ModelError(f"the run {name} came back without its files; {len(files)} others came")
    shutil.rmtree(keep / name, ignore_errors=True)  # of a run that this machine has not finished
    (unfinished / name).replace(keep / name)
    unfinished.rmdir()


@dataclass
class TrainingAhead:
    """The runs of a study that are trained elsewhere, each once."""

    start_run: Start
    task: Task
    threads: int
    modules: Mapping[str, bytes] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None
    """Called before a run is started or awaited, to free the processors that it needs."""
    _running: dict[Path, tuple[Future[None], Callable[[], None]]] = field(default_factory=dict, repr=False)

    @property
    def under_way(self) -> bool:
        """Whether a run is trained now, or waits for a machine."""
        return any(not kept.done() for kept, _ in self._running.values())

    def start(self, arm: KeepsTrainingRuns, train: Sequence[Example], seed: tuple[int, ...]) -> None:
        """Start a run, unless it is there or under way."""
        keep = arm.keep
        if keep is None:
            return
        name = arm.run_name(self.task, train, np.random.default_rng(list(seed)))
        if _finished(keep / name) or keep / name in self._running:
            return
        self.release()
        order = TrainingOrder(self.task, train, seed, self.modules, self.threads)
        files, cancel = self.start_run(arm, order)
        kept: Future[None] = Future()

        def keep_files(done: Future[RunFiles]) -> None:
            try:
                keep_run(done.result(), keep, name)
            except BaseException as error:
                kept.set_exception(error)
            else:
                kept.set_result(None)

        files.add_done_callback(keep_files)
        self._running[keep / name] = kept, cancel

    def deliver(
        self, arm: KeepsTrainingRuns, train: Sequence[Example], seed: tuple[int, ...], look: Callable[[], Any]
    ) -> None:
        """Wait until a run is in its folder.

        Args:
            arm: whose run.
            train: what it is trained on.
            seed: of the run.
            look: called again and again meanwhile; may raise.

        Raises:
            ModelError: the machines that trained it died, again and again.
            TunepointError: training failed, as it would on this machine.

        """
        self.start(arm, train, seed)
        name = arm.run_name(self.task, train, np.random.default_rng(list(seed)))
        if arm.keep is None or arm.keep / name not in self._running:
            return
        kept, _ = self._running[arm.keep / name]
        if not kept.done():
            self.release()
        while not wait([kept], timeout=POLL_SECONDS).done:
            look()
        try:
            kept.result()
        except WorkerLost as lost:
            raise ModelError(
                f"{arm.label}: the machines that trained it died ({lost}). All that was measured is kept: "
                "run again when the cluster is whole"
            ) from None
        del self._running[arm.keep / name]

    def cancel(self) -> None:
        """Stop what is still under way."""
        for kept, cancel in self._running.values():
            if not kept.done():
                cancel()
        self._running.clear()


def _finished(run: Path) -> bool:
    """Whether a run is a file, which is written whole, or a folder with the facts that are written last."""
    from tunepoint.arms.causal.trained import RUN_FILE

    return run.is_file() or (run / RUN_FILE).exists()
