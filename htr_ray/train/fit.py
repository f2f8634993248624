"""The training loop that both stages share: steps, epochs, validation, patience, checkpoints."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from htr_ray import storage
from htr_ray.config import StageSettings, StreamSettings
from htr_ray.errors import UserError
from htr_ray.model.batchnorm import synchronise
from htr_ray.stream.batch import Batch, Recipe
from htr_ray.stream.pipeline import Source, stream
from htr_ray.stream.scale import PAPER
from htr_ray.train import checkpoint, usage
from htr_ray.train.schedule import Clock, rate
from htr_ray.train.worker import Worker, autocast_dtype

logger = logging.getLogger(__name__)

# Between epoch ends, the trial says every so many seconds how far it is (progress, ETA).
HEARTBEAT_SECONDS = 10.0
# Validation batches are kept decoded up to this size; above it they are streamed again each time.
EVAL_CACHE_BYTES = 256 * 2**20


class Learner(ABC):
    """What a stage learns and how it is judged.

    module: its ``forward(batch)`` gives the loss of each line, float32 ``[B]``.
    score: name of the validation figure that decides, ``sign`` +1 where more is better.
    sync_batchnorm: as in :class:`ModelSettings`.
    """

    module: nn.Module
    score: str
    sign: int
    sync_batchnorm: bool = True

    @abstractmethod
    def groups(self, peak: float) -> list[dict[str, Any]]:
        """Optimizer parameter groups with their peak rates under ``lr``."""

    @abstractmethod
    def evaluate(self, batches: Iterator[dict[str, Any]], worker: Worker) -> dict[str, float]:
        """Figures over the batches of all workers."""


@dataclass
class Outcome:
    """How a training ended. ``history`` has one entry per epoch."""

    epochs: int = 0
    best_epoch: int = -1
    best_score: float | None = None
    seconds: float = 0.0
    stopped: str = ""
    lines_per_second: float = 0.0
    waiting_share: float = 0.0
    unreadable: list[str] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)

    def leave_out(self, names: list[str], worker: Worker) -> None:
        """Note the unreadable lines that this worker and the others met; called by all of them."""
        met = (name for part in worker.gather(names) for name in part)
        self.unreadable = list(dict.fromkeys([*self.unreadable, *met]))


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Any]:
    """Move a batch to the device. Strings stay as they are, and widths and lengths on the CPU, where their values are
    asked for: a GPU would have to be waited for.
    """

    def move(array: Any) -> torch.Tensor:
        # The buffer belongs to Ray's object store and is read-only, hence the copy.
        tensor = torch.tensor(array)
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor

    return {
        "images": move(batch.images),
        "widths": torch.tensor(batch.widths),
        "targets": move(batch.targets),
        "lengths": torch.tensor(batch.lengths),
        "weights": move(batch.weights),
        "ids": batch.ids,
        "texts": batch.texts,
    }


class Tally:
    """What the steps of an epoch came to, left on the device until its end: no step waits for its outcome."""

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor, int]] = []

    def add(self, skipped: Tensor, loss: Tensor, lines: int) -> None:
        """A step. ``skipped`` []: not 0 where its gradient is not finite; ``loss`` []: sum over its ``lines``."""
        self._steps.append((skipped, loss, lines))

    def told(self, epoch: int) -> tuple[int, float]:
        """Lines learned from, and the sum of their losses. Steps that were skipped are logged."""
        if not self._steps:
            return 0, 0.0
        skips, losses, lines = zip(*self._steps, strict=True)
        skipped = torch.stack(skips).tolist()  # one look at the device for all, and not one for each step
        bad = [step for step, skip in enumerate(skipped) if skip]
        if bad:
            logger.warning(
                "epoch %d: the gradient is not finite in %d of %d steps, which are skipped; the first is step %d",
                *(epoch, len(bad), len(skipped), bad[0]),
            )
        kept = [row for *row, skip in zip(lines, torch.stack(losses).tolist(), skipped, strict=True) if not skip]
        return sum(n for n, _ in kept), sum(loss for _, loss in kept)


NONE_READABLE = (
    "none of the lines that it is to be judged by could be decoded; "
    "python jobs/prepare_data.py --check --input CORPUS says what is wrong with them"
)


class EvalBatches:
    """The batches of a validation or test split, decoded once where they fit in memory.

    unreadable: names of those lines of this worker that could not be decoded, once the batches were read.
    """

    def __init__(self, source: Source, recipe: Recipe, settings: StreamSettings, worker: Worker) -> None:
        self._open = lambda: stream(
            source,
            recipe,
            settings,
            epochs=1,
            rank=worker.rank,
            world=worker.world,
            placement=worker.placement,
        )
        self._kept: list[Batch] | None = None
        self._device = worker.device
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._kept is not None:
            for batch in self._kept:
                yield to_tensors(batch, self._device)
            return
        kept: list[Batch] | None = []
        size = 0
        self.unreadable = []
        for batch in self._open():
            self.unreadable += batch.unreadable
            size += batch.images.nbytes
            if kept is not None:
                # A copy: the stream's buffers would pin whole blocks in the object store.
                batch.images = batch.images.copy()
                kept.append(batch)
                if size > EVAL_CACHE_BYTES:
                    kept = None
            yield to_tensors(batch, self._device)
        self._kept = kept


def fit(
    learner: Learner,
    source: Source,
    recipe: Recipe,
    validation: EvalBatches,
    *,
    settings: StageSettings,
    streaming: StreamSettings,
    worker: Worker,
    folder: str,
    seed: int,
) -> Outcome:
    """Train ``learner`` until the schedule, the clock or patience ends it; its best weights are loaded at the end.

    ``folder`` is the trial's URI: a checkpoint found there is continued, and one is written
    every ``checkpoint_minutes`` at an epoch's end. Raises UserError where no step of an epoch
    has a finite gradient.
    """
    device = worker.device
    # Dropout differs between workers on purpose; weights were drawn alike before.
    torch.manual_seed(seed * 1009 + worker.rank)
    if worker.world > 1 and learner.sync_batchnorm:
        learner.module = synchronise(learner.module, device)
    module = learner.module.to(device)
    groups = learner.groups(settings.learning_rate)
    peaks = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    trainable = [p for group in groups for p in group["params"]]
    dtype = autocast_dtype(settings.precision, device)
    outcome = Outcome()
    best = checkpoint._weights(module)
    told: list[str] = []  # about checkpoints, for a person: it goes with the next report
    restored = checkpoint.load(folder, module, optimizer, told)
    clock = Clock(settings)
    usage.start()
    if restored is not None:
        best, state = restored
        clock.spent = state["seconds"]
        if worker.rank > 0:  # the random state restored is rank 0's
            torch.manual_seed(seed * 1009 + worker.rank + 7919 * state["epoch"])
        outcome = Outcome(**state["outcome"])
        logger.info("%s: continuing after epoch %d", folder, outcome.epochs)
    found = worker.gather(outcome.epochs)
    if len(set(found)) > 1:
        raise storage.Unavailable(
            f"{folder}: the workers of the group see checkpoints of different epochs ({', '.join(map(str, found))}); "
            "all nodes must see the same files there: set storage (or --output) to what they share, or to s3://"
        )
    wrapped: nn.Module = module
    if worker.world > 1:
        # Without device_ids: with them, DDP moves every input to that device, also what is kept on the CPU on purpose.
        wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True)
        # Statistics over the batches of all are alike on all workers; DDP would send rank 0's before every step.
        wrapped.broadcast_buffers = not learner.sync_batchnorm

    def finished() -> str:
        if outcome.epochs >= settings.max_epochs:
            return "max_epochs"
        if outcome.best_epoch >= 0 and outcome.epochs - 1 - outcome.best_epoch >= settings.patience:
            return "patience"
        return "max_minutes" if clock.progress(outcome.epochs) >= 1.0 else ""

    # One worker's clock decides for all, here and below, or they would wait for each other for ever.
    outcome.stopped = worker.gather(finished())[0]
    saved_at = clock.seconds
    batches: Generator[Batch, None, None] = stream(
        source,
        recipe,
        streaming,
        first_epoch=outcome.epochs,
        epochs=max(0, settings.max_epochs - outcome.epochs),
        rank=worker.rank,
        world=worker.world,
        placement=worker.placement,
    )
    epoch_iterator = _epochs(batches) if not outcome.stopped else iter(())
    heartbeat = float("-inf")  # the first step is told at once: start-up is over
    for epoch_batches in epoch_iterator:
        epoch = outcome.epochs
        steps = source.plan.steps(epoch)
        module.train()
        lines, waited, step = 0, 0.0, 0
        tally = Tally()
        unreadable: list[str] = []
        began = time.monotonic()
        progress = 0.0
        for step, (batch, wait) in enumerate(_timed(epoch_batches)):
            waited += wait
            unreadable += batch.unreadable
            progress, widest = worker.agree(clock.progress(epoch + step / steps), batch.images.shape[3])
            if progress >= 1.0:
                break
            factor = rate(progress, warmup=settings.warmup, final=settings.final_rate)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            data = to_tensors(batch, device)
            if worker.world > 1:
                # Batch statistics see the padding: all workers pad as one worker would.
                more = widest - batch.images.shape[3]
                data["images"] = nn.functional.pad(data["images"], (0, more), value=PAPER)
            with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
                losses = wrapped(data)
            local = (losses.float() * data["weights"]).sum()
            # DDP averages gradients over workers; this makes it the mean over the global batch.
            loss = local * (worker.world / batch.total)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trainable, settings.clip_norm)
            # A single bad batch must not end a week's run: its step is skipped, alike on all workers. The optimizer
            # looks for itself, as it does for torch's GradScaler: asking here, a GPU would run dry after every step.
            skipped = (~torch.isfinite(norm)).float()
            optimizer.found_inf = skipped  # type: ignore[attr-defined]
            optimizer.step()
            tally.add(skipped, local.detach(), len(batch.ids))
            lines += len(batch.ids)
            now = time.monotonic()
            if worker.leads and now - heartbeat > HEARTBEAT_SECONDS:
                heartbeat = now
                worker.heartbeat({"epoch": epoch, "progress": progress, "seconds": clock.seconds, "epoch_end": False})
        del batch  # its buffers pin a block of the object store
        learned, loss_sum = tally.told(epoch)  # waits for the GPU
        trained = time.monotonic() - began
        total_lines, total_learned = worker.sum([lines, learned])
        total_loss = sum(worker.gather(loss_sum))
        if not total_lines and progress >= 1.0 and outcome.epochs:
            # The time was up before the first step: nothing was learned that could be validated or drawn.
            outcome.stopped = worker.gather(finished())[0]
            if worker.leads:
                worker.heartbeat({"epoch": epoch, "progress": progress, "seconds": clock.seconds, "epoch_end": False})
            break
        if total_lines and not total_learned:
            raise UserError(
                f"{folder}: the training loss or gradient is not finite in all of epoch {epoch}; lower learning_rate "
                f"({settings.learning_rate}) or set precision=float32"
            )
        if worker.world > 1 and not learner.sync_batchnorm:
            worker.share(module.buffers())  # each has moved its own since DDP sent those of rank 0
        figures = _evaluate(learner, validation, worker, dtype)
        outcome.leave_out([*unreadable, *validation.unreadable], worker)
        outcome.epochs += 1
        score = figures[learner.score] * learner.sign
        if outcome.best_score is None or score > outcome.best_score:
            outcome.best_score, outcome.best_epoch = score, epoch
            best = checkpoint._weights(module)
        outcome.seconds = clock.seconds
        outcome.lines_per_second = total_lines / max(trained, 1e-9)
        outcome.waiting_share = waited / max(trained, 1e-9)
        metrics = {
            "train_loss": total_loss / max(total_learned, 1),
            **figures,
            "learning_rate": optimizer.param_groups[-1]["lr"],
            "lines_per_second": outcome.lines_per_second,
            "waiting_share": outcome.waiting_share,
            "minutes": clock.seconds / 60.0,
            **usage.usage(device),
        }
        outcome.history.append({"epoch": epoch, **metrics})
        stop = worker.gather(finished())[0]
        outcome.stopped = stop
        worker.report(
            {
                **metrics,
                "epoch": epoch,
                "epoch_end": True,
                "progress": clock.progress(outcome.epochs),
                "seconds": clock.seconds,
                "best": outcome.best_score * learner.sign,
                "warning": "\n".join(told),
            }
        )
        told.clear()
        if worker.leads and not stop and clock.seconds - saved_at >= 60.0 * settings.checkpoint_minutes:
            saved_at = clock.seconds
            state = {"epoch": outcome.epochs, "seconds": clock.seconds, "outcome": vars(outcome)}
            if (fault := checkpoint.save(folder, module, optimizer, best, state)) is not None:
                told.append(fault)
        if stop:
            break
    batches.close()
    module.load_state_dict(best)
    outcome.seconds = clock.seconds
    if outcome.unreadable and worker.leads:
        logger.warning("%d unreadable lines were left out: %s", len(outcome.unreadable), outcome.unreadable[:5])
    return outcome


def _evaluate(learner: Learner, batches: EvalBatches, worker: Worker, dtype: torch.dtype | None) -> dict[str, float]:
    learner.module.eval()
    device = worker.device
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        return learner.evaluate(iter(batches), worker)


def _epochs(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """Cut the endless stream at the epochs' last batches."""

    def one(first: Batch) -> Iterator[Batch]:
        yield first
        if not first.last:
            for batch in batches:
                yield batch
                if batch.last:
                    return

    while (first := next(batches, None)) is not None:
        yield one(first)


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    while True:
        began = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.monotonic() - began
