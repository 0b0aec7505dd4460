"""How the same work is done elsewhere: each function trains as that library's own documents show it.

Every one returns a list of `Epoch`: seconds of an epoch, training and validation, and val accuracy.
"""

import copy
import importlib.util
import time
from dataclasses import dataclass

import torch
from torch import nn
from torchvision import datasets, transforms

from bench.models.factory import build
from bench.study.schema import Head, Source

SOURCE = Source(model="timm/tf_efficientnet_lite0", weights="packaged")
NORMAL = ([0.5] * 3, [0.5] * 3)
WORKERS = 2


@dataclass(frozen=True)
class Epoch:
    seconds: float
    accuracy: float


def pretrained(classes, mode, side):
    """The packaged weights with a new head; `mode` says which parameters take gradients, nothing else."""
    model = build(SOURCE, Head(), classes, side, "pretrained", 0)
    model = model.to(memory_format=torch.contiguous_format)
    trained = {"frozen": (), "partial": model.stages[-1].tensors, "full": None}[mode]
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad_(trained is None or name in trained)
    return model


def folders(folder, side):
    resize = transforms.Compose([transforms.Resize(round(side * 8 / 7)), transforms.CenterCrop(side)])
    crop = transforms.Compose([transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip()])
    ending = [transforms.ToTensor(), transforms.Normalize(*NORMAL)]
    return {
        part: datasets.ImageFolder(folder / part, transforms.Compose([first, *ending]), allow_empty=False)
        for part, first in (("train", crop), ("val", resize))
    }


def tutorial(folder, side, mode, epochs, batch_size=4):
    """The classic tutorial of transfer learning: a phase of training and one of validation in each epoch."""
    sets = folders(folder, side)
    loaders = {
        part: torch.utils.data.DataLoader(own, batch_size=batch_size, shuffle=True, num_workers=WORKERS)
        for part, own in sets.items()
    }
    model = pretrained(len(sets["train"].classes), mode, side)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best, best_accuracy, seen = None, 0.0, []
    for _ in range(epochs):
        started = time.perf_counter()
        for part in ("train", "val"):
            model.train(part == "train")
            running_loss, correct = 0.0, 0
            for inputs, labels in loaders[part]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(part == "train"):
                    outputs = model(inputs)
                    predictions = outputs.argmax(1)
                    loss = criterion(outputs, labels)
                    if part == "train":
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                correct += torch.sum(predictions == labels).item()
            if part == "train":
                scheduler.step()
        accuracy = correct / len(sets["val"])
        if accuracy >= best_accuracy:
            best, best_accuracy = copy.deepcopy(model.state_dict()), accuracy
        seen.append(Epoch(time.perf_counter() - started, accuracy))
    model.load_state_dict(best)
    return seen


def timm_loop(folder, side, mode, epochs, batch_size=32):
    """timm's own loader, optimizer factory and scheduler, as its training script joins them."""
    from timm.data import ImageDataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    sets = {part: ImageDataset(str(folder / part)) for part in ("train", "val")}
    loaders = {
        part: create_loader(
            own, (3, side, side), batch_size, is_training=part == "train", use_prefetcher=False,
            mean=NORMAL[0], std=NORMAL[1], num_workers=WORKERS, persistent_workers=True, pin_memory=False,
        )
        for part, own in sets.items()
    }  # fmt: skip
    model = pretrained(len(sets["train"].reader.class_to_idx), mode, side)
    model = model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.01)
    scheduler = CosineLRScheduler(optimizer, t_initial=epochs)
    seen = []
    for epoch in range(epochs):
        started = time.perf_counter()
        model.train()
        for inputs, labels in loaders["train"]:
            loss = nn.functional.cross_entropy(model(inputs.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step(epoch + 1)
        model.eval()
        with torch.inference_mode():
            correct = sum((model(x).argmax(1) == y).sum().item() for x, y in loaders["val"])
        seen.append(Epoch(time.perf_counter() - started, correct / len(sets["val"])))
    return seen


def has_fastai():
    return importlib.util.find_spec("fastai") is not None


def fastai_loop(folder, side, mode, epochs, batch_size=32):
    """fastai's `Learner`: one cycle, with its transforms on batches."""
    from fastai.vision import all as fastai

    class Clock(fastai.Callback):
        def before_epoch(self):
            self.started = time.perf_counter()

        def after_epoch(self):
            seen.append(Epoch(time.perf_counter() - self.started, float(self.recorder.values[-1][-1])))

        order = 90

    seen = []
    loaders = fastai.ImageDataLoaders.from_folder(
        folder, valid="val", bs=batch_size, num_workers=WORKERS, seed=0,
        item_tfms=fastai.RandomResizedCrop(side, min_scale=0.35),
        batch_tfms=[fastai.Flip(), fastai.Normalize.from_stats(*NORMAL)],
    )  # fmt: skip
    learner = fastai.Learner(
        loaders, pretrained(len(loaders.vocab), mode, side), metrics=fastai.accuracy,
        loss_func=nn.CrossEntropyLoss(), cbs=Clock(),
    )  # fmt: skip
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, 1e-3)
    return seen


def floor(side, batch_size, classes, multipliers_of, steps):
    """Images/s of forward, backward and step on a batch that is in memory already; nothing else is done."""
    from bench.study.schema import Training
    from bench.training.optimizers import build_optimizer, freeze

    model = build(SOURCE, Head(), classes, side, "pretrained", 0)
    multipliers = multipliers_of(len(model.stages))
    freeze(model, multipliers)
    model.set_training(multipliers)
    optimizer = build_optimizer(model, multipliers, 1e-3, 0.01, Training())
    inputs = torch.randn(batch_size, 3, side, side).to(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (batch_size,))
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()  # after one step to warm up
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return batch_size * steps / (time.perf_counter() - started)


def step(name, side, memory_format=torch.channels_last, compiled=False):
    """Return a function that does a step of training, forward and backward, on 16 images in memory."""
    import timm

    model = timm.create_model(name, num_classes=10).to(memory_format=memory_format).train()
    inputs = torch.randn(16, 3, side, side).to(memory_format=memory_format)
    forward = torch.compile(model) if compiled else model
    return lambda: forward(inputs).square().mean().backward()
