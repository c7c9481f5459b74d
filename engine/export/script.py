"""A run as one plain PyTorch script, of a tutorial's length, which trains the same network without Loupe."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from engine.base.errors import LoupeError
from engine.base.text import SPLIT_NAMES
from engine.data.catalogue import title_of
from engine.export.script_code import names_in, with_blank_lines
from engine.export.script_data import data_parts
from engine.export.script_network import network_parts
from engine.export.script_preamble import about, constants_of, imports_of
from engine.export.script_subject import Subject
from engine.export.script_training import training_parts
from engine.runs.run import Run


def script_of(run: Run) -> str:
    """Write a run as one Python script that needs torch, torchvision and NumPy, but no Loupe.

    A dataset of the catalogue is loaded as tutorials do, a person's own from its prepared arrays. Raises LoupeError
    for a run of which too little is left to know its network, or whose first weights are gone.
    """
    subject = Subject(run)
    parts = _parts(subject)
    # What a script needs is what it names.
    body = _template().render(parts, about="", imports="", constants=[])
    constants = constants_of(subject, names_in(body))
    imports = imports_of(names_in("\n".join([body, *constants])))
    script = _template().render(parts, about=about(subject, imports), imports=imports, constants=constants)
    return with_blank_lines(script)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # it is Python
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("script.py.jinja")


def _parts(subject: Subject) -> dict[str, Any]:
    """Return what the template is filled with."""
    recipe = subject.recipe
    if recipe.augment and not subject.is_of_images:
        raise LoupeError(f"augment is {recipe.augment!r}, but {recipe.dataset} is a table. Leave augment empty.")
    return {
        "title": f"Train {recipe.model} on {title_of(recipe.dataset)}.",
        "subject": subject,
        "recipe": recipe,
        "split_names": SPLIT_NAMES,
        **data_parts(subject),
        **network_parts(subject),
        **training_parts(subject),
    }
