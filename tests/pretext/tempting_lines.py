"""Lines made to tempt: no letters, but every accident of scanning that gives an answer away."""

from __future__ import annotations

import cv2
import numpy as np

from htr_ray.stream.augment import Grey


def tempting_line(rng: np.random.Generator, height: int, *, ink: bool) -> Grey:
    """A line whose only handedness lies in its accidents.

    Lamp from the left and above, dark edges at the left and top, a ruling below, JPEG blocks;
    with ``ink``: dots (the same when mirrored and turned) that begin at the left margin, fade
    and climb towards the right, and leave blank paper at the end. uint8 ``[height, W]``.
    """
    width = int(rng.integers(4 * height, 9 * height))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.full((height, width), 230, np.uint8)
    image[:, :2] = 180
    image[:2] = 195
    cv2.line(image, (0, int(0.85 * height)), (width, int(0.85 * height)), 170, 1)
    if ink:
        end = int(width * rng.uniform(0.6, 0.85))
        for position in range(height // 6, end, height // 6):
            climb = 0.2 * height * (0.5 - position / width)
            centre = (position, int(height / 2 + climb + rng.uniform(-0.25, 0.25) * height))
            cv2.circle(image, centre, int(rng.integers(1, height // 10)), int(40 + 70 * position / width), -1)
    lamp = 1 - 0.2 * x / width - 0.1 * y / height
    lit = image * lamp + 2 * rng.standard_normal((height, width), dtype=np.float32)
    image = np.clip(lit, 0, 255).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def streaks(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Long strokes that wave along the line: whoever follows one finds the neighbouring tile."""
    image = np.full((height, width), 230, np.uint8)
    x = np.arange(width)
    for _ in range(4):
        phase, wave = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.2) * height
        y = height / 2 + 0.4 * height * np.sin(2 * np.pi * x / wave + phase)
        cv2.polylines(image, [np.stack([x, y], 1).astype(np.int32)], False, 60, 2)
    return image


def cheap_features(view: Grey) -> np.ndarray:
    """What a network sees without reading: profiles, edges and block borders of a view. float32 ``[F]``."""
    small = np.asarray(cv2.resize(view, (32, 32), interpolation=cv2.INTER_AREA), np.float32)
    values = view.astype(np.float32)
    across, down = np.abs(np.diff(values, axis=1)), np.abs(np.diff(values, axis=0))
    # Energy of steps at each phase of an 8-pixel grid betrays JPEG blocks.
    phases = [across[:, k::8].mean() for k in range(8)] + [down[k::8].mean() for k in range(8)]
    return np.concatenate(
        [
            small.mean(0),
            small.mean(1),
            small.std(0),
            small.std(1),
            values[:, :2].mean(0),
            values[:, -2:].mean(0),
            values[:2].mean(1),
            values[-2:].mean(1),
            np.array(phases, np.float32),
            np.array([view.shape[1], values.mean(), values.std()], np.float32),
        ]
    ).astype(np.float32)


def probe(features: np.ndarray, answers: np.ndarray, classes: int) -> float:
    """Held-out accuracy of ridge regression to one-hot answers: fit on two thirds, tested on the rest."""
    fitted = 2 * len(features) // 3
    mean, deviation = features[:fitted].mean(0), features[:fitted].std(0) + 1e-3
    x = np.c_[(features - mean) / deviation, np.ones(len(features))].astype(np.float64)
    y = np.eye(classes)[answers]
    weights = np.linalg.solve(x[:fitted].T @ x[:fitted] + 10 * np.eye(x.shape[1]), x[:fitted].T @ y[:fitted])
    return float(((x[fitted:] @ weights).argmax(1) == answers[fitted:]).mean())
