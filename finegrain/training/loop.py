"""The training loop: batches, named losses and one optimiser, for any method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from finegrain.data.augment import Augmentation
from finegrain.data.caption_changes import shuffled
from finegrain.data.datasets import take_split
from finegrain.errors import CheckpointError, RecipeError, TrainingError
from finegrain.evaluation.evaluation import Evaluation, evaluate_split
from finegrain.evaluation.report import append_metrics
from finegrain.methods import Batch
from finegrain.recipe import Recipe, difference, load_recipe
from finegrain.records import Split
from finegrain.runs.checkpoint import (
    State,
    last_checkpoint,
    load_model,
    load_optimizer,
    read_state,
    save_checkpoint,
    writing,
)
from finegrain.runs.pretrained import with_published_towers
from finegrain.runs.run import build_method, eager_encoder, training_transform
from finegrain.runs.vocabulary import reads_only_captions, write_vocabulary
from finegrain.training.batches import advice_on, moved, parts_of
from finegrain.training.curves import Curves
from finegrain.training.distributed import World, join_world
from finegrain.training.identity_order import IdentityOrder
from finegrain.training.loader import Order, Pairs, make_loader
from finegrain.training.memory import kept_memory
from finegrain.training.optim import lr_factor, make_optimizer, set_eps, set_lr
from finegrain.training.pictures import Pictures
from finegrain.training.precision import autocast_dtype
from finegrain.training.run_lock import only_training
from finegrain.training.trainable import limit_training

CHECKPOINT_MINUTES = 5.0
"""Minutes between checkpoints: the most that an interruption costs."""

REMEMBERED_CAPTIONS = 1 << 20
"""Captions whose token ids are kept, at about 500 bytes each; the field's datasets have fewer."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Result of a training.

    Attributes:
        folder: The run folder, with the recipe, the checkpoints, ``metrics.jsonl``,
            ``curves.csv``, ``curves.png`` and the files of TensorBoard.
        steps: Number of optimiser steps done.
        losses: Weighted sum of the losses at each step of this call.
        validation: The last evaluation on the validation split; None if there was none.
    """

    folder: Path
    steps: int
    losses: list[float]
    validation: Evaluation | None

    def __str__(self) -> str:
        lines = [f"{self.folder}: {self.steps} steps"]
        return "\n".join(lines + ([str(self.validation)] if self.validation else []))


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    progress: bool = True,
) -> Run:
    """Train a recipe.

    With ``torchrun``, every process calls this function; only the first one writes files.

    Args:
        recipe: The recipe to train.
        out: The run folder; ``runs/<name>`` by default.
        resume: Continue from the newest checkpoint of the folder. The result equals that of an
            uninterrupted run.
        stop_after: Stop after this number of steps in total, even if the schedule is longer.
        checkpoint_minutes: Write a checkpoint when this many minutes have passed since the last
            one, in addition to the checkpoints at the end of each epoch.
        progress: Show a progress bar with the loss, the speed and the remaining time.

    Returns:
        The run folder, the steps done, the losses and the last validation.

    Raises:
        RecipeError: The recipe is for evaluation only.
        TrainingError: A loss or gradient is not finite; the message names the batch.
        CheckpointError: The folder holds a run of another recipe or a damaged one, is in use by
            another training, or cannot be written to.
        DataError: The dataset cannot be read.

    Example:
        >>> import finegrain
        >>> recipe = finegrain.load_recipe("recipes/tiny_synthetic.py")   # doctest: +SKIP
        >>> run = finegrain.train(recipe)                                 # doctest: +SKIP
    """
    if recipe.evaluation_only is not None:
        raise RecipeError(
            f"the recipe {recipe.name} is for evaluation and export only: "
            f"{recipe.evaluation_only}. To train on from these weights, give a recipe of the "
            f"method: finegrain train recipes/NAME.py --set weights={recipe.weights}"
        )
    recipe, weights = with_published_towers(recipe)
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    with join_world() as world, _held(folder, world):
        _claim(folder, recipe, resume=resume, world=world)
        trainer = _Trainer(
            recipe, folder, world, weights=weights, progress=progress and world.is_first
        )
        with writing(folder), kept_memory():
            return trainer.run(stop_after, checkpoint_seconds=60 * checkpoint_minutes)


@contextmanager
def _held(folder: Path, world: World) -> Iterator[None]:
    """Create and lock the run folder in the first process."""
    with ExitStack() as stack:
        if world.is_first:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(only_training(folder))
        yield


def _claim(folder: Path, recipe: Recipe, *, resume: bool, world: World) -> None:
    """Write the recipe into the run folder, after checking that it holds no other run."""
    known = folder / "recipe.json"
    if last_checkpoint(folder) is not None:
        if not resume:
            raise CheckpointError(
                f"{folder} already holds a run. Continue it with --resume, or choose another "
                "folder with -o."
            )
        changed = difference(load_recipe(known), recipe)
        if changed:
            listed = "; ".join(f"{n}: {a!r} there, {b!r} here" for n, (a, b) in changed.items())
            raise CheckpointError(
                f"{folder} was trained with another recipe: {listed}. Set these fields back, or "
                "choose another folder with -o."
            )
    world.barrier()
    if world.is_first:
        with writing(folder):
            known.write_text(recipe.to_json(), encoding="utf-8")
    world.barrier()


def _order(recipe: Recipe, pairs: Pairs, world: World) -> Order:
    """The order of the batches that the recipe asks for."""
    if recipe.items_per_identity > 1:
        return IdentityOrder(
            pairs.identities,
            batch_size=recipe.batch_size,
            items_per_identity=recipe.items_per_identity,
            seed=recipe.seed,
            world=world,
        )
    return Order(
        len(pairs),
        batch_size=recipe.batch_size,
        drop_last=recipe.drop_last,
        seed=recipe.seed,
        world=world,
    )


class _Trainer:
    """The model, data and options of one run."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        world: World,
        *,
        weights: Path | None = None,
        progress: bool,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.world = world
        self.progress = progress
        torch.manual_seed(recipe.seed)
        self.tokenizer = recipe.method.text.training_tokenizer()
        # Convolutions are up to twice as fast in channels-last; other tensors are not affected.
        self.model = build_method(recipe, weights).to(memory_format=torch.channels_last)
        limit_training(self.model, recipe)
        self.model.to(world.device)
        self.optimizer = make_optimizer(self.model, recipe.optimizer)
        self.parallel: nn.Module = (
            DistributedDataParallel(self.model) if world.size > 1 else self.model
        )
        self.dtype = autocast_dtype(recipe.precision, world.device)
        self.order, self.loader, self.evaluated = self._read_data()
        epochs = recipe.schedule.epochs * len(self.order)
        self.total = min(epochs, recipe.schedule.steps or epochs)
        self.losses: list[float] = []

    def _read_data(self) -> tuple[Order, DataLoader[Batch], list[Split]]:
        """Read the training batches, and the splits that are evaluated during training."""
        recipe, world = self.recipe, self.world
        if world.is_first:  # it may render or unpack files that the other processes then read
            splits = recipe.data.splits()
        world.barrier()
        if not world.is_first:
            splits = recipe.data.splits()
        split = shuffled(take_split(splits, "train"), recipe.caption_noise, seed=recipe.seed)
        transform = training_transform(recipe)
        pictures = Pictures(split, transform, progress=self.progress)
        size = (transform.height, transform.width)
        augment = recipe.augment
        augmentation = Augmentation(
            size,
            flip=augment.flip,
            pad=augment.pad,
            erase=augment.erase,
            fill=augment.fill,
            color_jitter=augment.jitter,
            picks=augment.picks,
        )
        self.model.check_identities(split.num_pids)
        pairs = Pairs(
            split,
            pictures,
            augmentation,
            captions=recipe.captions,
            weak_positives=recipe.weak_positives,
            drop_words=augment.drop_words,
            wrong_captions=self.model.wants_wrong_captions,
            cleaning=self.tokenizer.cleaning,
            seed=recipe.seed,
        )
        self.model.check_items(len(pairs))
        self.model.expect_noise(recipe.caption_noise)
        order = _order(recipe, pairs, world)
        tokenizer = self.tokenizer.remembering(REMEMBERED_CAPTIONS)
        if world.is_first and reads_only_captions(recipe):
            with writing(self.folder):
                write_vocabulary(self.folder, split, tokenizer)
        loader = make_loader(pairs, order, tokenizer, workers=recipe.workers, device=world.device)
        watched = ("val", "test") if recipe.watch_test else ("val",)
        return order, loader, [splits[name] for name in watched if name in splits]

    def run(self, stop_after: int | None, *, checkpoint_seconds: float) -> Run:
        state = self._restore()
        saved_at = monotonic()
        end = min(self.total, stop_after or self.total)
        per_epoch = len(self.order)
        validation = None
        writer = SummaryWriter(str(self.folder / "tensorboard")) if self.world.is_first else None
        curves = Curves(self.folder, start=state.step) if self.world.is_first else None
        with ExitStack() as stack:
            bar = stack.enter_context(
                tqdm(
                    total=self.total,
                    initial=state.step,
                    desc="training",
                    unit=" steps",
                    disable=not self.progress,
                )
            )
            if writer is not None and curves is not None:
                stack.enter_context(writer)
                stack.enter_context(closing(curves))
            if self.recipe.schedule.evaluate_first and state == State():
                validation, state = self._evaluate(state, writer)
                self._save(state)
            while state.step < end and not self._is_over(state):
                epoch, done = divmod(state.step, per_epoch)
                if not done:
                    self._start_epoch(epoch)
                self.order.start_at(epoch, done)
                for batch in self.loader:
                    losses = self._step(batch, state.step)
                    state = replace(state, step=state.step + 1)
                    if writer is not None and curves is not None:
                        self._log(writer, losses, state.step)
                        curves.add(state.step, self._lr(state.step - 1), losses)
                    bar.set_postfix(loss=f"{self.losses[-1]:.3f}", refresh=False)
                    bar.update()
                    if state.step >= end:
                        break
                    # Only the first process checks the time; the others wait for it at the next
                    # step.
                    if (
                        self.world.is_first
                        and state.step % per_epoch
                        and monotonic() - saved_at >= checkpoint_seconds
                    ):
                        save_checkpoint(self.folder, state, self.model, self.optimizer)
                        saved_at = monotonic()
                if state.step == self.total or self._is_time_to_evaluate(state.step):
                    validation, state = self._evaluate(state, writer)
                    if curves is not None:
                        curves.draw()
                self._save(state)
                saved_at = monotonic()
        return Run(folder=self.folder, steps=state.step, losses=self.losses, validation=validation)

    def _is_over(self, state: State) -> bool:
        """Whether validation has not improved for as long as the recipe waits."""
        schedule = self.recipe.schedule
        if schedule.patience is None or state.best_step is None:
            return False
        waited = (state.step - state.best_step) / (len(self.order) * schedule.evaluate_every)
        return waited >= schedule.patience

    def _restore(self) -> State:
        folder = last_checkpoint(self.folder)
        if folder is None:
            return State()
        load_model(folder, self.model)
        load_optimizer(folder, self.optimizer)
        return read_state(folder)

    def _start_epoch(self, epoch: int) -> None:
        self.order.start_at(epoch, 0)
        with self._kernels():
            self.model.start_epoch(epoch, (moved(b, self.world.device) for b in self.loader))

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do one optimiser step on a batch, in parts if the recipe accumulates gradients."""
        self.model.train()
        set_lr(self.optimizer, partial(self._lr, step))
        set_eps(self.optimizer, self.recipe.optimizer, step)
        self.optimizer.zero_grad(set_to_none=True)
        parts = parts_of(batch, self.recipe.accumulate)
        sums: dict[str, float] = {}
        for i, part in enumerate(parts):
            with self._reducing_gradients(is_last=i == len(parts) - 1):
                total, named = self._losses(part, step)
                torch.autograd.backward(total / len(parts))
            for name, value in named.items():
                sums[name] = sums.get(name, 0.0) + value / len(parts)
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.recipe.optimizer.clip_norm or math.inf
        )
        if not torch.isfinite(norm):
            raise TrainingError(f"step {step}: the gradient is not finite. {advice_on(batch)}")
        self.optimizer.step()
        self.model.after_step()
        self.losses.append(sum(self.recipe.losses[name] * value for name, value in sums.items()))
        return sums

    def _reducing_gradients(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Gradients are reduced over processes once, at the last part of a batch."""
        if is_last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def _lr(self, step: int, peak: float = 1.0) -> float:
        """Learning rate at a step, for parameters whose rules multiply it by ``peak``."""
        recipe = self.recipe
        return recipe.optimizer.lr * lr_factor(
            step, recipe.schedule, per_epoch=len(self.order), total=self.total, peak=peak
        )

    def _losses(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = moved(batch, self.world.device)
        with self._kernels():
            losses: dict[str, Tensor] = self.parallel(batch)
        named = {name: loss.item() for name, loss in losses.items()}
        total = torch.stack([self.recipe.losses[n] * loss for n, loss in losses.items()]).sum()
        if not torch.isfinite(total):
            raise TrainingError(
                f"step {step}: the loss is not finite ({named}). {advice_on(batch)}"
            )
        return total, named

    @contextmanager
    def _kernels(self) -> Iterator[None]:
        """Use the precision of the recipe, and the fastest attention kernels of the device."""
        device, dtype = self.world.device, self.dtype
        with (
            torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None),
            sdpa_kernel(attention_backends(device)),
        ):
            yield

    def _log(self, writer: SummaryWriter, losses: dict[str, float], step: int) -> None:
        for name, value in losses.items():
            writer.add_scalar(f"loss/{name}", value, step)
        writer.add_scalar("loss/total", self.losses[-1], step)
        writer.add_scalar("lr", self._lr(step - 1), step)

    def _is_time_to_evaluate(self, step: int) -> bool:
        epoch, done = divmod(step, len(self.order))
        return done == 0 and epoch % self.recipe.schedule.evaluate_every == 0

    def _evaluate(
        self, state: State, writer: SummaryWriter | None
    ) -> tuple[Evaluation | None, State]:
        """Evaluate in the first process, and update the best step on validation."""
        validation = None
        if writer is None:
            best = self.world.from_first(-1)
            return validation, replace(state, best_step=None if best < 0 else best)
        encoder = eager_encoder(self.recipe, self.model, self.world.device)
        for split in self.evaluated:
            evaluation = evaluate_split(encoder, split, progress=self.progress)
            metrics = evaluation.text_to_image.to_dict()
            append_metrics(self.folder, step=state.step, split=split.name, metrics=metrics)
            for name, value in metrics.items():
                writer.add_scalar(f"{split.name}/{name}", value, state.step)
            if split.name == "val":
                validation = evaluation
        if validation is not None:
            rank1 = validation.text_to_image.rank1
            if state.best_rank1 is None or rank1 > state.best_rank1:
                state = replace(state, best_step=state.step, best_rank1=rank1)
        # All processes stop at the same step, if validation does not improve.
        self.world.from_first(-1 if state.best_step is None else state.best_step)
        return validation, state

    def _save(self, state: State) -> None:
        if self.world.is_first:
            save_checkpoint(self.folder, state, self.model, self.optimizer)
        self.world.barrier()


def attention_backends(device: torch.device) -> list[SDPBackend]:
    """Attention kernels to use: all on a GPU, only matrix products (``MATH``) on a CPU.

    Forward and backward of 128 captions of 48 tokens in bf16, on two Zen 4 cores, take 6 ms with
    matrix products and 32 ms with the fused CPU kernel.
    """
    if device.type == "cpu":
        return [SDPBackend.MATH]
    return [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
