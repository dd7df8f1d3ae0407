"""A training run from settings to a run folder: data, model, loop, final validation, pictures and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from segdet import memory, provenance
from segdet.console import mute, progress, say
from segdet.data import learnable
from segdet.data.catalog import cards, splits
from segdet.data.records import Dataset, Record, by_photograph
from segdet.errors import InputError, InvalidOption, SegdetError, setting
from segdet.files import new_folder, write_text
from segdet.metadata import DataSource, Metadata
from segdet.models import weights
from segdet.models.registry import arch_named, build_model
from segdet.reporting import pictures, rates
from segdet.training import checkpoints, devices, loggers
from segdet.training.config import RECIPES, TrainConfig
from segdet.training.detection import DetectionTask
from segdet.training.loggers import Loggers
from segdet.training.loop import Trainer
from segdet.training.memory import batch_that_fits
from segdet.training.optim import schedule
from segdet.training.rate_test import RateTest, rate_test
from segdet.training.segmentation import SegmentationTask
from segdet.training.stepper import Stepper
from segdet.training.task import Setup, Task
from segdet.version import __version__

TASKS: dict[str, Callable[[Setup], Task]] = {"segmentation": SegmentationTask, "detection": DetectionTask}


def train(config: TrainConfig, resume: Path | None = None, spent: float = 0.0) -> Path:
    """Train as `config` says, or go on with the run folder `resume`, and return the run folder.

    A run whose data has moved continues with the new place in `config.data`, if the labels there are the same.

    spent: seconds that the command has taken so far (loading PyTorch, mostly), for the time budget.

    Raises:
        InputError: settings or data that cannot be used. SegdetError: training failed. Interrupted: by a signal.
    """
    began = time.perf_counter() - spent
    state = checkpoints.load_state(resume) if resume is not None else None
    if resume is not None and not cards.is_there(config.data):
        where = f"its images cannot be found ({config.data} is not there)"
        raise InputError(f"{setting('resume', resume)}: {where}; name them with {setting('data', 'FOLDER')}")
    loggers.chosen(config)  # a logger that is not installed is an error before anything is written
    setup, task = prepared(config, start_weights=resume is None)
    schedule(config.schedule, 0.0, 1.0, config.warmup)  # unknown names too
    stepper = Stepper(setup)
    accelerator = setup.accelerator
    run = resume if resume is not None else _folder(setup)
    if accelerator.is_main_process and resume is not None:
        checkpoints.clear_unfinished(run)
    if accelerator.is_main_process and resume is None:
        _describe(setup, task, run)
    described = _metadata(setup)
    if accelerator.is_main_process and resume is not None:
        _moved(config.data, described, resume)

    def save(which: str, state: Mapping[str, torch.Tensor], metrics: dict[str, Any]) -> None:
        weights.save(run / "weights" / f"{which}.safetensors", state, described.measured(metrics))

    trainer = Trainer(setup, task, stepper, run, save)
    if state is not None:
        trainer.restore(state)
        if trainer.done and (run / "metrics.json").is_file():
            raise InvalidOption("resume", resume, f"is complete ({trainer.epoch} epochs)", "train a new run for more")
        where = "the final measurement" if trainer.done else f"epoch {trainer.epoch + 1}, step {trainer.start + 1}"
        say(f"going on with {run} in {where}")
    trainer.clock.add(time.perf_counter() - began)
    say(_headline(setup, run))
    if not accelerator.is_main_process:
        trainer.fit()
    else:
        with Loggers(setup.config, run, trainer.epoch) as loggers_of_run:
            trainer.on_epoch = loggers_of_run.epoch
            trainer.fit()
            _finish(trainer)
            loggers_of_run.finish(run)
    accelerator.wait_for_everyone()
    return run


def prepared(config: TrainConfig, start_weights: bool = True) -> tuple[Setup, Task]:
    """Device, data, model and task, ready to train.

    Args:
        start_weights: load the weights that training starts from; a resumed run has its own.

    Raises:
        InputError: settings or data that cannot be used.
    """
    arch_named(config.arch)
    accelerator = devices.accelerator(config.device, config.precision)
    if not accelerator.is_main_process:
        mute()
    if config.sync_bn and accelerator.device.type == "cpu":
        hint = f"leave it out, or use {setting('device', 'cuda')}"
        raise InvalidOption("sync_bn", None, "PyTorch has it for GPUs only", hint)
    if accelerator.device.type == "cpu":
        memory.keep_freed_memory()
    torch.manual_seed(config.seed)
    setup = _prepare(config, accelerator, start_weights)
    return setup, TASKS[arch_named(config.arch).task](setup)


def find_lr(config: TrainConfig) -> tuple[Path, RateTest]:
    """A learning-rate range test instead of a training: its run folder, with `find-lr.png`, and what was found.

    Raises:
        InputError: settings or data that cannot be used. SegdetError: no learning rate works.
    """
    setup, task = prepared(config)
    found = rate_test(setup, task)
    run = _folder(setup)
    if setup.accelerator.is_main_process:
        rates.rate_test(found.rates, found.losses, found.lr, run / "find-lr.png")
    return run, found


def _folder(setup: Setup) -> Path:
    """A new run folder, the same in every process."""
    config, made = setup.config, [Path()]
    if setup.accelerator.is_main_process:
        made = [new_folder(config.out, config.name or f"{config.arch}-{setup.dataset.name}")]
    found: Path = broadcast_object_list(made)[0]
    return found


def _prepare(config: TrainConfig, accelerator: Accelerator, start_weights: bool) -> Setup:
    """Read the data and build the model."""
    task = arch_named(config.arch).task
    if config.mix and task != "segmentation":
        hint = "leave it out, or put the images into one dataset"
        raise InvalidOption("mix", None, "for segmentation only", hint)
    dataset = splits.for_task(_loaded(config.data, accelerator), task)
    if config.fold:
        dataset = splits.fold(dataset, *splits.parse_fold(config.fold), config.seed)
    dataset, note = splits.with_validation(dataset, config.seed)
    dataset = splits.limited(dataset, config.limit)
    notes = [note] if note else []
    named = config.weights in ("imagenet", "none")
    kind = config.weights if named and start_weights else "none"
    if config.arch == "detr" and config.weights == "none" and "frozen_norm" not in config.arch_options:
        config = config.model_copy(update={"options": {**config.options, "frozen_norm": False}})
        notes.append("random start: the backbone's batch norms learn, which DETR otherwise keeps as they came")
    mixed = [(_further(name, dataset, accelerator), share) for name, share in config.mix.items()]
    notes += learnable.check(dataset, task, [record for records, _ in mixed for record in records])
    imgsz = config.side(accelerator.device.type)
    if config.imgsz is None and imgsz < config.side("cuda"):
        usual = config.side("cuda")
        notes.append(f"images of {imgsz} px, which a CPU can train; {usual} is usual on a GPU (set by imgsz)")
    model, backbone = build_model(config.arch, config.backbone, dataset.classes, kind, config.arch_options, imgsz)
    if not named and start_weights:
        notes.append(weights.start_from(Path(config.weights), model, backbone))
    if accelerator.device.type == "cuda" and accelerator.num_processes == 1 and (gpus := torch.cuda.device_count()) > 1:
        notes.append(f"one of {gpus} GPUs works; to use all: torchrun --nproc_per_node {gpus} -m segdet train ...")
    for problem in dataset.problems[:10]:
        say(f"left out: {problem}")
    if len(dataset.problems) > 10:
        say(f"left out: {len(dataset.problems) - 10} more (see problems.txt in the run folder)")
    turns = len(dataset.classes) == 1 if config.quarter_turns is None else config.quarter_turns
    config = config.model_copy(update={"backbone": backbone.name, "imgsz": imgsz, "quarter_turns": turns})
    setup = Setup(config, accelerator, dataset, model, backbone, imgsz, notes, mixed)
    if config.batch == "auto":
        usual = RECIPES.get(config.arch, {}).get("batch", TrainConfig.model_fields["batch"].default)
        fits = broadcast_object_list([batch_that_fits(setup, usual)])[0]
        setup.config = config.model_copy(update={"batch": fits})
        notes.append(f"batches of {fits} images (batch is auto)")
    return setup


def _moved(data: str, described: Metadata, run: Path) -> None:
    """Let a run go on with data in another place, and keep that place in its `config.yaml`.

    Raises:
        InputError: the labels there are not those that the run began with.
    """
    config, last = run / "config.yaml", run / "weights" / "last.safetensors"
    settings = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    if settings.get("data") == data:
        return
    if last.is_file() and weights.read_metadata(last).data.sha256 != described.data.sha256:
        hint = f"name the data of that run, or train a new one without {setting('resume')}"
        raise InvalidOption("data", data, f"not what {run} was trained on: it has other labels", hint)
    write_text(config, yaml.safe_dump({**settings, "data": data}, sort_keys=False))


def _loaded(name: str, accelerator: Accelerator) -> Dataset:
    """A dataset by name or path, drawn by one process if it has to be drawn."""
    card = cards.cards().get(name)
    drawn = card.pictures if card is not None and card.generated else 0
    with accelerator.main_process_first(), progress(f"drawing {name}", drawn) as advance:
        return cards.load(name, lambda done, total: advance(1))


def _further(name: str, dataset: Dataset, accelerator: Accelerator) -> Sequence[Record]:
    """The training images of a dataset to be mixed in."""
    other = splits.for_task(_loaded(name, accelerator), "segmentation")
    if other.classes != dataset.classes:
        raise InvalidOption(
            "mix",
            name,
            f"has the classes {list(other.classes)}, {dataset.name} has {list(dataset.classes)}",
            "they must be the same, in the same order",
        )
    if not other.splits.get("train"):
        raise InvalidOption("mix", name, f"has no training images; it has {', '.join(other.splits) or 'none at all'}")
    return other.splits["train"]


def _describe(setup: Setup, task: Task, run: Path) -> None:
    """Write what is known before the first step: settings, label statistics, what was left out."""
    write_text(run / "config.yaml", yaml.safe_dump(setup.config.model_dump(), sort_keys=False))
    if setup.dataset.problems:
        write_text(run / "problems.txt", "\n".join(map(str, setup.dataset.problems)) + "\n")
    accelerator = setup.accelerator
    provenance.write(run, device=f"{accelerator.device} in {accelerator.mixed_precision}".replace(" in no", " in fp32"))
    pictures.labels(setup.dataset, run / "labels.png")
    task.draw_samples(run)


def _metadata(setup: Setup) -> Metadata:
    config, dataset, backbone = setup.config, setup.dataset, setup.backbone
    # Whoever measures the file later must leave the same photographs out.
    held_out: dict[str, Any] = {"seed": config.seed, **({"fold": config.fold} if config.fold else {})}
    if config.mix:
        held_out["mixed"] = {
            Path(name).name: {"share": share, "licence": _licence(name)} for name, share in config.mix.items()
        }
    return Metadata(
        schema=1,
        task=arch_named(config.arch).task,
        arch=config.arch,
        backbone=backbone.name,
        options=config.arch_options,
        classes=list(dataset.classes),
        imgsz=setup.imgsz,
        mean=list(backbone.mean),
        std=list(backbone.std),
        data=DataSource(name=dataset.name, sha256=dataset.fingerprint(), licence=dataset.licence, **held_out),
        version=__version__,
    )


def _licence(name: str) -> str | None:
    card = cards.cards().get(name)
    return card.licence if card is not None else None


def _headline(setup: Setup, run: Path) -> str:
    accelerator, config = setup.accelerator, setup.config
    train_records, val_records = setup.dataset.splits["train"], setup.dataset.splits["val"]
    parameters = sum(parameter.numel() for parameter in setup.model.parameters()) / 1e6
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    notes = "".join(f"\n{note}" for note in setup.notes)
    mixed = "".join(f"; {share:.0%} of every epoch from {name}" for name, share in config.mix.items())
    return (
        f"{run}: {config.arch} on {setup.backbone.name} ({parameters:.1f} M parameters), {accelerator.device.type} {precision}; "
        f"{len(train_records)} training images of {len(by_photograph(train_records))} photographs, {len(val_records)} for validation"
        f"{mixed}"
        f"{notes}"
    )


def _finish(trainer: Trainer) -> None:
    """Measure the best weights in full precision, store threshold and metrics in them, and draw everything."""
    run, best = trainer.run, trainer.run / "weights" / "best.safetensors"
    say(f"training is done; measuring {best} (if this is stopped, `segdet val {run}` measures it later)")

    def describe(metrics: dict[str, Any]) -> Metadata:
        final = weights.read_metadata(best).measured(metrics)
        weights.describe(best, final)
        return final

    trainer.task.release()
    memory.return_freed_memory()  # measuring large photographs needs it, in processes of its own too
    try:
        summary = trainer.task.finish(run, describe)
    except Exception as error:  # whatever it is: hours of training must not look lost
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SegdetError(
            f"{run}: the weights are kept, but measuring them failed ({reason}); later, `segdet val {run}` measures them, and "
            f"`segdet train {setting('resume', run)}` also writes the report"
        ) from error
    if trainer.problems:
        say(f"{len(trainer.problems)} images could not be read and were skipped")
    say(summary)
