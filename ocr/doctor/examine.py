"""Examines data, network, loss and gradients before the first training step, to find why a CTC loss would not fall."""

from collections.abc import Callable, Iterator, Mapping

from ocr.doctor import data_checks, model_checks
from ocr.doctor.case import Case
from ocr.doctor.findings import Finding

Check = Callable[[Case], Iterator[Finding]]

_DATA_CHECKS: tuple[Check, ...] = (
    data_checks.images,
    data_checks.polarity,
    data_checks.pairing,
    data_checks.labels,
    data_checks.blanks,
    data_checks.long_lines,
)
_MODEL_CHECKS: tuple[Check, ...] = (
    model_checks.outputs,
    model_checks.loss_function,
    model_checks.frame_counts,
    model_checks.batch_norm,
    model_checks.reduction,
    model_checks.gradients,
)


def examine(case: Case) -> list[Finding]:
    """Runs all checks that apply to a case, in order.

    Args:
      case: its network has the same weights and statistics afterwards.

    Returns:
      The findings, each code once.
    """
    findings: dict[str, Finding] = {}
    for check in _DATA_CHECKS + (_MODEL_CHECKS if case.objective is not None else ()):
        if not _is_redundant(check, findings):
            for finding in check(case):
                findings.setdefault(finding.code, finding)
    return list(findings.values())


def _is_redundant(check: Check, findings: Mapping[str, Finding]) -> bool:
    """Says whether a check could only report the effect of what is already known."""
    if check is data_checks.pairing:
        return "images_alike" in findings
    return check is model_checks.gradients and any(finding.definite for finding in findings.values())
