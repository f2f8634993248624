"""Writes a text in a hand: letters -> bent, joined strokes -> ink on paper.

All bending happens on the points of the strokes, so that lines stay sharp; ink is then
drawn by OpenCV at four times the size and averaged down. The same arguments give the
same pixels.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from htr_ray.corpus.sample_glyphs import ASCENT, DESCENT, X_HEIGHT, Glyph, accent, glyphs
from htr_ray.corpus.sample_hand import Hand

HEIGHT = 64  # pixels
OVERSAMPLING = 4
_SHIFT = 4  # fractional bits of OpenCV's coordinates
_REACH = 5.5  # longest gap that a joined hand bridges, in units of the glyph frame


def draw_line(text: str, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """``text`` written by ``hand``: uint8 ``[HEIGHT, W]``, dark ink on light paper, tight left and right."""
    strokes, width = _to_pixels(_write(text, hand, rng), hand, rng)
    coverage = _ink(strokes, width, hand, rng)
    paper = _paper(width, hand, rng)
    return np.clip(paper + (hand.ink - paper) * coverage + 0.5, 0, 255).astype(np.uint8)


def _write(text: str, hand: Hand, rng: np.random.Generator) -> list[np.ndarray]:
    """Strokes ``[N, 2]`` in units of the glyph frame, in the order of the text."""
    strokes: list[np.ndarray] = []
    x = 0.0
    last: list[np.ndarray] | None = None  # strokes of the letter before, where it can be joined
    for character in text:
        if character == " ":
            x += hand.word_space * rng.uniform(0.85, 1.2)
            last = None
            continue
        base, marks = accent(character)
        glyph = glyphs(hand.face(base))[base]
        body = _letter(base, glyph, hand, rng)
        for stroke in body:
            stroke[:, 0] += x
        if last is not None and glyph.joins and base.islower():
            _join(last, body, strokes)
        strokes.extend(body)
        for mark in marks:
            middle = x + glyph.advance * hand.width / 2 + rng.normal(0, 0.4)
            lean = 0.2 * X_HEIGHT * (hand.face(base) == "cursive")  # the cursive face leans by itself
            strokes.append(mark * [hand.width, 1] + [middle + lean, rng.normal(0, 0.4)])
        last = body if glyph.joins and body else None
        x += glyph.advance * hand.width + hand.spacing * rng.uniform(0.5, 1.5)
    return strokes


def _letter(character: str, glyph: Glyph, hand: Hand, rng: np.random.Generator) -> list[np.ndarray]:
    """One letter as this hand writes it this time, its pen position at x = 0."""
    habit = hand.habit(character)
    now = np.clip(rng.standard_normal(5), -2, 2) * hand.jitter
    points = glyph.points
    centre = glyph.advance / 2
    # u: 0 in the middle of the letter; v: 0 on the baseline, -1 at x-height, -2 at the ascenders' top.
    u, v = (points[:, 0] - centre) / X_HEIGHT, points[:, 1] / X_HEIGHT
    above = np.minimum(v + 1, 0)
    below = np.maximum(v, 0)
    v = v + above * (hand.ascent - 1) + below * (hand.descent - 1)
    # The letter form of the hand: size, lean and bend, the same every time.
    x = u * (1 + 0.04 * habit[0]) + 0.035 * habit[1] * -v + 0.03 * habit[2] * np.sin(np.pi * v)
    y = v * (1 + 0.025 * habit[3]) + 0.03 * habit[4] * u
    y += 0.03 * habit[5] * np.sin(2.4 * u) * np.minimum(-v, 1)
    # What changes from one time to the next.
    turn = 0.028 * now[0]
    x, y = x + turn * -y, y + turn * x
    x = x * (1 + 0.05 * now[1])
    y = y * (1 + 0.035 * now[2]) + 0.035 * now[3]
    moved = np.stack([(x * X_HEIGHT + centre) * hand.width, y * X_HEIGHT], axis=1)
    strokes = glyph.strokes(moved)
    for stroke in strokes[1:]:
        # Dots and bars are put on later, in haste.
        if stroke[:, 1].max() < -0.75 * X_HEIGHT and len(stroke) < 12:
            stroke += [hand.dot_drift * rng.uniform(0.2, 1.0), rng.normal(0, 0.35 * hand.jitter)]
    return strokes


def _join(last: list[np.ndarray], body: list[np.ndarray], strokes: list[np.ndarray]) -> None:
    """Lead the letter before into this one: its exit stroke is merged with the entry, or touches it."""
    zone = [s for s in last if -1.35 * X_HEIGHT < s[-1, 1] < 0.3 * X_HEIGHT and len(s) > 4]
    if not zone or not body:
        return
    exit_stroke = max(zone, key=lambda s: s[-1, 0])
    end = exit_stroke[-1]
    points = np.concatenate(body)
    distance = np.hypot(points[:, 0] - end[0], points[:, 1] - end[1])
    distance[(points[:, 1] > 0.3 * X_HEIGHT) | (points[:, 1] < -1.35 * X_HEIGHT)] = np.inf
    nearest = int(distance.argmin())
    if distance[nearest] > _REACH:
        return
    where = next(i for i, s in enumerate(strokes) if s is exit_stroke)
    head = body[0]
    if nearest <= 2 and len(head) > 4:
        meeting = (end + head[0]) / 2
        body[0] = np.concatenate([exit_stroke[:-1], meeting[None], head[1:]])
        del strokes[where]
    else:
        target = points[nearest]
        strokes[where] = np.concatenate([exit_stroke, [(end + target) / 2, target]])


def _to_pixels(strokes: list[np.ndarray], hand: Hand, rng: np.random.Generator) -> tuple[list[np.ndarray], int]:
    """Smooth, displace and place the strokes; returns them in pixels, and the image's width."""
    lengths = [len(s) for s in strokes]
    points = np.concatenate(strokes)
    points = points + _displacement(points, hand, rng)
    slope = float(np.clip(rng.normal(0, hand.slope), -0.03, 0.03))
    phase, period = rng.uniform(0, 2 * np.pi), rng.uniform(90, 180)
    x = points[:, 0] - hand.slant * points[:, 1]
    middle = (x.min() + x.max()) / 2
    y = points[:, 1] + slope * (x - middle) + hand.wave * np.sin(2 * np.pi * x / period + phase)

    top = X_HEIGHT + (ASCENT - X_HEIGHT) * hand.ascent
    room = HEIGHT - 6.0
    scale = hand.scale * room / (top + DESCENT * hand.descent)
    scale = min(scale, room / (y.max() - y.min()))
    y = y * scale + (HEIGHT - room) / 2 + rng.uniform(0.2, 0.8) * (1 - hand.scale) * room + top * scale
    y += max(0.0, 3 - y.min()) - max(0.0, y.max() - (HEIGHT - 3))
    x = (x - x.min()) * scale + rng.uniform(3, 10)
    width = int(np.ceil(x.max() + rng.uniform(3, 10)))
    pieces = np.split(np.stack([x, y], axis=1), np.cumsum(lengths[:-1]))
    return [_smooth(piece, hand.haste) for piece in pieces], width


def _displacement(points: np.ndarray, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field, ``[N, 2]``: slow waves that bend letters, fast ones of an unsteady hand."""
    moved = np.zeros_like(points)
    for amplitude, shortest, longest, count in ((hand.wobble, 16, 60, 4), (hand.tremor, 3.5, 7, 3)):
        period = rng.uniform(shortest, longest, (count, 2))
        turn = rng.uniform(0, 2 * np.pi, (count, 2))
        share = amplitude / np.sqrt(count) * rng.uniform(0.6, 1.4, (count, 2))
        for (px, py), (tx, ty), (ax, ay) in zip(period, turn, share, strict=True):
            moved[:, 0] += ax * np.sin(2 * np.pi * (points[:, 0] / px + points[:, 1] / py) + tx)
            moved[:, 1] += ay * np.sin(2 * np.pi * (points[:, 0] / py - points[:, 1] / px) + ty)
    return moved


def _smooth(points: np.ndarray, haste: int) -> np.ndarray:
    """Round a stroke: ``haste`` passes of a moving average, two of Chaikin's corner cutting; ends stay."""
    if len(points) > 4:
        for _ in range(haste):
            points[1:-1] = 0.25 * points[:-2] + 0.5 * points[1:-1] + 0.25 * points[2:]
    for _ in range(2):
        cut = np.empty((2 * len(points), 2))
        cut[0], cut[-1] = points[0], points[-1]
        cut[1:-1:2] = 0.75 * points[:-1] + 0.25 * points[1:]
        cut[2:-1:2] = 0.25 * points[:-1] + 0.75 * points[1:]
        points = cut
    return points


def _ink(strokes: list[np.ndarray], width: int, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel is ink, float32 ``[HEIGHT, width]`` in 0..1."""
    starts = np.concatenate([s[:-1] for s in strokes])
    ends = np.concatenate([s[1:] for s in strokes])
    step = ends - starts
    length = np.hypot(step[:, 0], step[:, 1]) + 1e-6
    down = np.maximum(step[:, 1] / length, 0)
    phase, period = rng.uniform(0, 2 * np.pi, 2), rng.uniform([25, 90], [60, 220])
    along = np.arange(starts.shape[0]) * 0.9  # roughly the way of the pen in pixels
    press = 0.6 * np.sin(2 * np.pi * along / period[0] + phase[0]) + 0.6 * np.sin(
        2 * np.pi * starts[:, 0] / period[1] + phase[1]
    )
    taper = np.concatenate([_taper(s) for s in strokes])
    thick = hand.pen * (1 + hand.contrast * (down - 0.3)) * (1 + hand.pressure * press) * taper
    steps = np.clip(np.rint(thick * OVERSAMPLING), 3, 18).astype(int)

    canvas = np.zeros((HEIGHT * OVERSAMPLING, width * OVERSAMPLING), np.uint8)
    scale = OVERSAMPLING * (1 << _SHIFT)
    segments = np.rint(np.stack([starts, ends], axis=1) * scale).astype(np.int32)
    for size in np.unique(steps):  # averaging down smooths the edges: cheaper than LINE_AA, and no worse
        cv2.polylines(canvas, list(segments[steps == size]), False, 255, int(size), cv2.LINE_8, _SHIFT)
    coverage = cv2.resize(canvas, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    soft: np.ndarray = cv2.GaussianBlur(coverage.astype(np.float32) / 255, (0, 0), hand.soft)
    column = np.arange(width, dtype=np.float32)
    fade = 1 - hand.pressure * (0.5 + 0.5 * np.sin(2 * np.pi * column / period[1] + phase[1] + np.pi))
    return soft * fade.astype(np.float32)


def _taper(stroke: np.ndarray) -> np.ndarray:
    """Factor of the width of each segment: a pen lands and leaves lightly."""
    count = len(stroke) - 1
    if count < 12:
        return np.ones(count)
    place = np.minimum(np.arange(count), np.arange(count)[::-1])
    return 0.68 + 0.32 * np.minimum(place / 8, 1)


def _paper(width: int, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """A piece of the writer's sheet, float32 ``[HEIGHT, width]``."""
    sheet = _sheet(hand.seed, hand.paper, hand.grain, hand.stain, hand.ruled)
    left = int(rng.integers(0, sheet.shape[1] - width)) if width < sheet.shape[1] else 0
    piece = sheet[:, left : left + width]
    if width > sheet.shape[1]:
        piece = np.pad(piece, ((0, 0), (0, width - sheet.shape[1])), mode="reflect")
    return piece[:, ::-1] if rng.random() < 0.5 else piece


@functools.lru_cache(maxsize=256)
def _sheet(seed: int, paper: float, grain: float, stain: float, ruled: bool) -> np.ndarray:
    """A strip of paper longer than any line: base tone, slow stains, grain, perhaps a ruled line."""
    rng = np.random.default_rng([seed, 2])
    width = 1200
    coarse, noise = rng.standard_normal((4, 12)), rng.standard_normal((HEIGHT, width))
    slow = cv2.resize(coarse.astype(np.float32), (width, HEIGHT), interpolation=cv2.INTER_CUBIC)
    fine = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 0.7)
    sheet = paper + stain * slow + grain * fine / fine.std()
    if ruled:
        middle = rng.uniform(44, 52) + 1.5 * np.sin(np.arange(width) / 240 + rng.uniform(0, 6))
        rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
        sheet = sheet - rng.uniform(14, 34) * np.exp(-((rows - middle) ** 2) / (2 * 0.55**2))
    return np.clip(sheet, 0, 254).astype(np.float32)
