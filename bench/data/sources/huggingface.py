"""Image classification data sets from the Hugging Face hub; needs the optional package `datasets`."""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from PIL import Image

from bench.core.errors import InputError
from bench.data.dataset import UnreadableError
from bench.data.decoding import open_image
from bench.data.sources.base import (
    Raw,
    Source,
    assign_parts,
    part_named,
)

_LABEL_COLUMNS = ("label", "labels", "fine_label")  # looked for first, in this order


def huggingface_source(name: str) -> Source:
    """Return the source of `huggingface/<name>` or `huggingface/<name>@<revision>`.

    A revision (a commit, tag or branch) pins the data; without one the newest is taken at the first load and
    kept. Code that comes with a data set is never run.

    Raises:
        InputError: if the name is malformed or the package `datasets` is not installed.
    """
    repository, _, revision = name.removeprefix("huggingface/").partition("@")
    if not re.fullmatch(r"\w[\w.\-]*(/\w[\w.\-]*)?", repository):
        raise InputError(
            f"'{name}' names no data set", "target.data", "write huggingface/<owner>/<name>[@<revision>]"
        )
    try:
        library = version("datasets")
    except PackageNotFoundError as error:
        raise InputError(
            "the package 'datasets' is not installed", name, "pip install 'transfer-bench[huggingface]'"
        ) from error
    return Source(
        name,
        "a data set of the Hugging Face hub",
        "as its card states it",
        lambda: f"{name} datasets {library}",
        lambda: read_dataset(_download(repository, revision or None, name), name),
    )


def read_dataset(dataset: Any, name: str) -> Raw:
    """Return the images of a `datasets.DatasetDict` with an image and a class column.

    Splits without labels, and splits other than train, validation and test, are passed over.
    """
    import datasets

    first = next(iter(dataset.values()))
    image_column = _column(first.features, datasets.Image, ("image", "img"), name)
    label_column = _column(first.features, datasets.ClassLabel, _LABEL_COLUMNS, name)
    labels = {
        part: rows[label_column]
        for part, rows in dataset.items()
        if part_named(part) is not None and len(rows)
    }
    labels = {part: list(values) for part, values in labels.items() if min(values) >= 0}  # -1: kept secret
    assigned = assign_parts(list(labels), name)
    files = {part: dataset[part].cast_column(image_column, datasets.Image(decode=False)) for part in labels}
    entries = [(part, index) for part in labels for index in range(len(labels[part]))]

    def read(position: int) -> tuple[Image.Image, int]:
        part, index = entries[position]
        content = files[part][index][image_column]["bytes"]
        if content is None:
            raise UnreadableError("the image is not stored with the data set")
        return open_image(content), labels[part][index]

    return Raw(
        tuple(first.features[label_column].names),
        [f"{part}/{index:06d}" for part, index in entries],
        [assigned[part] for part, _ in entries],
        read,
        first.info.license or "not stated",
        name,
    )


def _download(repository: str, revision: str | None, name: str) -> Any:
    import datasets

    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = (
        False  # versions before 4 would ask; later ones have no such code
    )
    try:
        return datasets.load_dataset(repository, revision=revision)
    except Exception as error:  # the hub's client, its cache and the builders raise all kinds
        raise InputError(
            f"can't be loaded ({' '.join(str(error).split())[:200]})",
            name,
            "check the name, the revision and the connection",
        ) from error


def _column(features: Any, kind: type, preferred: tuple[str, ...], name: str) -> str:
    found = [column for column, feature in features.items() if isinstance(feature, kind)]
    if not found:
        columns = ", ".join(features)
        raise InputError(
            f"has no {kind.__name__} column (columns: {columns})",
            name,
            "choose an image classification data set",
        )
    return next((column for column in preferred if column in found), found[0])
