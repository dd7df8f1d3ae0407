"""Damping of duplicates against the formula written out, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import box_iou

from segdet.models.duplicates import damped


def by_hand(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Matrix NMS, linear: equations 4 to 6 of arXiv 2003.10152, one pair after another."""
    iou = box_iou(torch.tensor(boxes), torch.tensor(boxes)).numpy()
    out = scores.copy()
    for j in range(len(boxes)):
        factors = [1.0]
        for i in range(j):
            if labels[i] == labels[j]:
                own = max((iou[k, i] for k in range(i) if labels[k] == labels[i]), default=0.0)
                factors.append((1 - iou[i, j]) / max(1 - own, 1e-6))
        out[j] = scores[j] * min(factors)
    return out


def test_it_is_matrix_nms() -> None:
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 60, (3, 30, 2)), rng.uniform(10, 60, (3, 30, 2))
    boxes = np.concatenate([corner, corner + size], axis=2).astype(np.float32)
    scores = -np.sort(-rng.random((3, 30)).astype(np.float32))
    labels = rng.integers(0, 3, (3, 30))
    found = damped(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))
    for row in range(3):
        expected = by_hand(boxes[row], scores[row], labels[row])
        order = np.argsort(-expected, kind="stable")
        np.testing.assert_allclose(found[1][row].numpy(), expected[order], atol=1e-5)
        np.testing.assert_array_equal(found[0][row].numpy(), boxes[row][order])
        np.testing.assert_array_equal(found[2][row].numpy(), labels[row][order])


def test_copies_go_and_strangers_stay() -> None:
    box, far = [10.0, 10.0, 50.0, 50.0], [60.0, 60.0, 90.0, 90.0]
    boxes = torch.tensor([[box, box, box, far, [0.0, 0.0, 0.0, 0.0]]])
    scores, labels = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.0]]), torch.tensor([[0, 0, 1, 0, 0]])
    _, lowered, kinds = damped(boxes, scores, labels)
    torch.testing.assert_close(lowered[0], torch.tensor([0.9, 0.7, 0.6, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert kinds[0, :3].tolist() == [0, 1, 0]
    assert torch.isfinite(lowered).all()
