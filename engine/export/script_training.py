"""The training of a run as code: loss, optimizer, schedule, order, and when it is judged."""

import textwrap
from typing import Any

from engine.export.script_code import call, quoted
from engine.export.script_subject import Subject
from engine.recipes.recipe import Recipe

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
SCHEDULERS = "torch.optim.lr_scheduler"


def training_parts(subject: Subject) -> dict[str, Any]:
    recipe = subject.recipe
    return {
        "loss_function": _loss_function(recipe),
        "groups": _groups(subject) if subject.has_groups else "",
        "optimizer_name": OPTIMIZERS[recipe.optimizer],
        "optimizer": _optimizer(subject),
        "steps_per_epoch": "len(train_labels) // BATCH_SIZE"
        if recipe.drop_last
        else "math.ceil(len(train_labels) / BATCH_SIZE)",
        "schedule": _schedule(subject),
        "order": _order(recipe),
        **_judged(subject),
    }


def _judged(subject: Subject) -> dict[str, str]:
    """Return the splits that are evaluated every so many steps, and after each epoch; empty for none."""
    every, judged = (
        subject.recipe.evaluate_every,
        next((name for name in ("val", "test") if name in subject.splits), ""),
    )
    if every and every == subject.steps_per_epoch:
        return {"within": "", "each_epoch": judged}
    return {"within": judged if every else "", "each_epoch": "val" if subject.validates else ""}


def _loss_function(recipe: Recipe) -> str:
    options = ["weight=class_weights.to(device)"] * (recipe.class_weights == "balanced")
    options += ["label_smoothing=LABEL_SMOOTHING"] * (recipe.label_smoothing > 0)
    return call("nn.CrossEntropyLoss", options)


def _groups(subject: Subject) -> str:
    """Write out the two groups of weights, each with its learning rate."""
    start = quoted(f"{subject.head}.")
    return textwrap.dedent(f"""\
        backbone = [value for name, value in model.named_parameters() if not name.startswith({start})]
        groups = [
            {{"params": backbone, "lr": LEARNING_RATE * BACKBONE_RATE}},
            {{"params": head.parameters(), "lr": LEARNING_RATE}},
        ]""")


def _optimizer(subject: Subject) -> str:
    recipe, trained = subject.recipe, "head" if subject.is_frozen else "model"
    options = ["groups" if subject.has_groups else f"{trained}.parameters()", "lr=LEARNING_RATE"]
    if recipe.optimizer == "sgd":
        options += ["momentum=MOMENTUM"] * (recipe.momentum > 0) + ["nesterov=True"] * recipe.nesterov
    # AdamW's own default is another.
    options += ["weight_decay=WEIGHT_DECAY"] * (recipe.weight_decay > 0 or recipe.optimizer == "adamw")
    return call(f"optimizer = torch.optim.{OPTIMIZERS[recipe.optimizer]}", options)


def _schedule(subject: Subject) -> str:
    """Write the schedule of the learning rate, moved on after each step; empty for one that stays as it is."""
    recipe = subject.recipe
    warms_up = recipe.warmup_epochs > 0
    if recipe.schedule == "one-cycle":
        highest = "[LEARNING_RATE * BACKBONE_RATE, LEARNING_RATE]" if subject.has_groups else "LEARNING_RATE"
        options = [highest, "total_steps=steps + 1"] + ["pct_start=warmup_steps / steps"] * warms_up
        return call(f"schedule = {SCHEDULERS}.OneCycleLR", ["optimizer", *options, "cycle_momentum=False"])
    if warms_up:
        return _schedule_after_warmup(recipe.schedule)
    if recipe.schedule == "cosine":
        return f"schedule = {SCHEDULERS}.CosineAnnealingLR(optimizer, T_max=steps)"
    if recipe.schedule == "step":
        milestones = "milestones=[math.ceil(steps / 2), math.ceil(3 * steps / 4)]"
        return call(f"schedule = {SCHEDULERS}.MultiStepLR", ["optimizer", milestones, "gamma=0.1"])
    return ""


def _schedule_after_warmup(schedule: str) -> str:
    done = "(step - warmup_steps) / (steps - warmup_steps)"
    then, lines = {
        "constant": ("stay there", ["return 1.0"]),
        "cosine": ("fall along half a cosine", [f"return (1 + math.cos(math.pi * {done})) / 2"]),
        "step": ("fall in two steps", [f"done = {done}", "return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01"]),
    }[schedule]
    return "\n".join(
        [
            "def share_of_rate(step):",
            f'    """Rise evenly to the full learning rate, then {then}."""',
            "    if step < warmup_steps:",
            "        return (step + 1) / (warmup_steps + 1)",
            *[f"    {line}" for line in lines],
            "",
            f"schedule = {SCHEDULERS}.LambdaLR(optimizer, share_of_rate)",
        ]
    )


def _order(recipe: Recipe) -> str:
    order = "torch.randperm(len(train_labels))" if recipe.shuffle else "torch.arange(len(train_labels))"
    return f"{order}[: steps_per_epoch * BATCH_SIZE]" if recipe.drop_last else order
