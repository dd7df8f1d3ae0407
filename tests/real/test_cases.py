"""Every folder of small faulty inputs behaves as its README says; skipped where the folders are not on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real import cases
from tests.real.harness import judge

needs_cases = pytest.mark.skipif(not cases.folder_of_cases().is_dir(), reason="the cases are not on this machine")
needs_exports = pytest.mark.skipif(not cases.folder_of_exports().is_dir(), reason="the exports are not on this machine")


def _holds(name: str, case: cases.Case, source: Path, work: Path) -> None:
    if not source.is_dir():
        pytest.skip(f"{name} is not on this machine")
    work.chmod(0o755)
    outcome = judge(name, case, source, work / name)
    if outcome.holds is None:
        pytest.skip(outcome.happened)
    assert outcome.holds, f"expected {outcome.expected}; {outcome.happened}"


@needs_cases
@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_a_case_behaves_as_its_readme_says(name: str, tmp_path: Path) -> None:
    _holds(name, cases.CASES[name], cases.folder_of_cases() / name, tmp_path)


@needs_cases
def test_every_case_has_an_expectation() -> None:
    assert {path.name for path in cases.folder_of_cases().iterdir() if path.is_dir()} <= cases.CASES.keys()


@needs_exports
@pytest.mark.parametrize("name", sorted(cases.EXPORTS))
def test_a_real_export_is_read_and_trains(name: str, tmp_path: Path) -> None:
    _holds(name, cases.EXPORTS[name], cases.folder_of_exports() / name, tmp_path)
