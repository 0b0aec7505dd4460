"""What the documents name exists: files of the code, tests, make's commands, links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "docker" / "README.md"]
FILE = re.compile(r"`([\w/]+\.(?:py|yaml|toml|txt))(?::\w+)?`")
FOLDER = re.compile(r"`((?:bench|tests|benchmarks|docker|studies|docs|tools)/[\w/]*)`")
LINK = re.compile(r"\]\(([^)#\s]+)\)")
COMMAND = re.compile(r"`make ([a-z-]+)")
MADE = {
    "study.yaml",
    "mine.yaml",
    "plan.txt",
    "traceback.txt",
    "study.json",
    "leaves.yaml",
    "recipe.yaml",
    "recipe.py",
}  # by a run or a user


def missing(names, *folders):
    return sorted(
        name for name in names if name not in MADE and not any((folder / name).exists() for folder in folders)
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_exists(document):
    text = document.read_text()
    assert missing(FILE.findall(text) + FOLDER.findall(text), ROOT, ROOT / "bench") == []
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert missing(links, document.parent) == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(COMMAND.findall(text)) <= targets


def test_every_tag_of_a_run_is_in_the_architecture():
    code = "".join(path.read_text() for path in (ROOT / "bench").rglob("*.py"))
    rooms = {path.name for path in (ROOT / "bench").iterdir()}
    tags = {tag for tag in re.findall(r'"bench\.([a-z_]+)\.?[{"]', code) if tag not in rooms}
    assert len(tags) > 10
    named = set(re.findall(r"`bench\.([a-z_]+)", (ROOT / "ARCHITECTURE.md").read_text()))
    assert tags - named == set()


def test_every_room_is_in_the_architecture():
    rooms = {path.name for path in (ROOT / "bench").iterdir() if (path / "__init__.py").exists()}
    named = set(re.findall(r"`(\w+)/`", (ROOT / "ARCHITECTURE.md").read_text()))
    assert rooms <= named
