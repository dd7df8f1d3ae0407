"""docs/contract.md says what the code does: outputs, metadata, exit codes and scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from segdet import contract
from segdet.errors import InputError, SegdetError
from segdet.inference.backends.select import open_session
from segdet.metadata import Metadata

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text of one section of the page."""
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, without headings."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("task", sorted(contract.OUTPUTS))
def test_outputs_of_a_task_are_those_of_the_page(task: str) -> None:
    listed = [
        (row[1].strip("`"), row[2], row[3].count(",") + 1) for row in rows(section("The ONNX file")) if row[0] == task
    ]
    assert listed == [(output.name, output.dtype, len(output.shape)) for output in contract.OUTPUTS[task]]


def test_the_shipped_file_keeps_the_contract() -> None:
    session = open_session(ROOT / "exports" / "crack.onnx", "cpu")
    import onnx

    graph = onnx.load(ROOT / "exports" / "crack.onnx").graph
    assert [output.name for output in graph.output] == [
        output.name for output in contract.OUTPUTS[session.metadata.task]
    ]
    assert {value.name for value in graph.input} >= {contract.INPUT}
    assert contract.THRESHOLD in {tensor.name for tensor in graph.initializer}


def test_every_field_of_the_metadata_is_on_the_page() -> None:
    listed = {name for row in rows(section("Metadata")) for name in re.findall(r"`(\w+)`", row[0])}
    fields = {field.alias or name for name, field in Metadata.model_fields.items()}
    assert listed == fields


def test_the_shipped_metadata_has_only_fields_of_the_page() -> None:
    session = open_session(ROOT / "exports" / "crack.onnx", "cpu")
    stored = json.loads(session.metadata.to_json())
    listed = {name for row in rows(section("Metadata")) for name in re.findall(r"`(\w+)`", row[0])}
    assert stored.keys() <= listed


def test_exit_codes_are_those_of_the_page() -> None:
    listed = {int(row[0]) for row in rows(section("Exit codes")) if row[0].isdigit()}
    assert listed == {0, SegdetError.exit_code, InputError.exit_code, 130}


def test_scores_in_the_metrics_of_the_shipped_model_are_on_the_page() -> None:
    session = open_session(ROOT / "exports" / "crack.onnx", "cpu")
    text = section("metrics.json")
    required = {"iou", "f1", "precision", "recall", "iou_per_image", "f1_per_image", "f1_2px", "cldice", "boundary_iou"}
    assert required <= session.metadata.metrics.keys()
    assert all(f"`{name}`" in text for name in required)
