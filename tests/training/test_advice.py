import pytest

from ocr.training.advice import advise


@pytest.mark.parametrize(
    ("loss", "eval_losses", "advice"),
    [
        (1.0, {100: 9.0, 200: 4.0, 300: 3.0}, "more steps"),  # it still falls, whatever the gap
        (0.2, {100: 2.0, 200: 2.0, 300: 2.1}, "more lines"),
        (1.5, {100: 2.1, 200: 2.0, 300: 1.99}, "cleaner labels"),
        (1.5, {300: 2.0}, ""),
        (0.0, {150: 0.0, 300: 0.0}, "cleaner labels"),
    ],
)
def test_advice_follows_from_the_losses(loss: float, eval_losses: dict[int, float], advice: str):
    assert advise({50: 8.0, 300: loss}, eval_losses)[: len(advice)] == advice
    assert bool(advise({50: 8.0, 300: loss}, eval_losses)) == bool(advice)
