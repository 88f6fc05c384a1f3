"""The lesions of the phantom.

They follow the sonographic criteria of Stavros et al., "Solid breast nodules: use of sonography to
distinguish between benign and malignant lesions", Radiology 196, 1995, in the words of the BI-RADS
ultrasound lexicon (American College of Radiology): shape, orientation, margin, echo pattern and
posterior features. Every rule has exceptions here as in patients, so no single one gives the class.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from mtbus_jax import types
from mtbus_jax.images.phantom.scanner import Tissue
from mtbus_jax.images.phantom.tissue import FAT, Anatomy, smooth_noise

_ANGLE = np.linspace(-np.pi, np.pi, 361)
_TRIES = 40
# Highest echo level of a solid mass in dB. It is hypoechoic, that is darker than fat: nothing would
# tell an isoechoic mass, as bright as fat, from a lobule of fat.
_SOLID = FAT[0] - 3


@dataclasses.dataclass(frozen=True)
class Outline:
    """Outline of a lesion, star-shaped about its centre.

    Attributes:
      radius: ``(361,)`` pixels, by angle from -π to π; 0 points right and π / 2 points down.
      top, bottom, left, right: extent from the centre, in pixels, all ≥ 0.
    """

    radius: np.ndarray
    top: float
    bottom: float
    left: float
    right: float


class _Look(NamedTuple):
    """What a lesion does to the maps: each entry a ``(height, width)`` array or one number.

    Attributes:
      echo: echo level inside, in dB re fibroglandular tissue.
      attenuation: attenuation inside, in dB / cm / MHz.
      softness: scale, in pixels, of the change from outside to inside.
      capsule: amplitude added to the specular reflections.
      around: echo level added outside, in dB.
    """

    echo: Any
    attenuation: Any
    softness: float
    capsule: Any
    around: Any


def draw_outline(rng: np.random.Generator, label: int, height: float, width: float) -> Outline:
    """Draws the outline of a lesion that fills a box of ``height`` × ``width`` pixels.

    Benign: an ellipse, at times gently lobulated. Malignant: spiculated, microlobulated or angular.
    """
    phase = rng.uniform(0, 2 * np.pi, 8)
    radius = 1 + 0.03 * np.sin(2 * _ANGLE + phase[0]) + 0.03 * np.sin(3 * _ANGLE + phase[1])
    if label == types.BENIGN:
        if rng.random() < 0.3:
            radius += rng.uniform(0.04, 0.12) * np.abs(np.sin(1.5 * _ANGLE + phase[2]))
        tilt = rng.normal(0, 0.12)
    else:
        uneven = 0.08 * np.sin(2 * _ANGLE + phase[2]) + 0.07 * np.sin(5 * _ANGLE + phase[3])
        kind = rng.choice(3)
        if kind == 0:
            uneven += _spikes(rng, rng.integers(7, 13), width=0.11, reach=(0.25, 0.7))
        elif kind == 1:
            lobes = rng.integers(4, 8)
            uneven += rng.uniform(0.16, 0.28) * np.abs(np.sin(0.5 * lobes * _ANGLE + phase[4]))
            uneven += 0.05 * np.sin(9 * _ANGLE + phase[5])
        else:
            uneven += _spikes(rng, rng.integers(4, 7), width=0.25, reach=(0.3, 0.6))
        radius += rng.uniform(0.5, 1.2) * uneven
        tilt = rng.normal(0, 0.2)
    # The shape is drawn upright, tilted, and only then stretched to the box.
    col = radius * np.cos(_ANGLE) * width
    row = radius * np.sin(_ANGLE) * height
    col, row = np.cos(tilt) * col - np.sin(tilt) * row, np.sin(tilt) * col + np.cos(tilt) * row
    col *= width / np.ptp(col)
    row *= height / np.ptp(row)
    angle = np.arctan2(row, col)
    radius = np.interp(_ANGLE, angle, np.hypot(row, col), period=2 * np.pi)
    return Outline(radius, -row.min(), row.max(), -col.min(), col.max())


def _spikes(
    rng: np.random.Generator, count: int, *, width: float, reach: tuple[float, float]
) -> np.ndarray:
    """Spikes around the outline, about ``width`` radians wide and up to ``reach`` radii high."""
    centre = (np.arange(count) + rng.uniform(-0.45, 0.45, count)) * 2 * np.pi / count
    away = np.angle(np.exp(1j * (_ANGLE[:, None] - centre - rng.uniform(0, 2 * np.pi))))
    high = rng.uniform(*reach, count) * rng.uniform(0.3, 1.0, count)
    return (high * np.exp(-np.abs(away) / (width * rng.uniform(0.6, 1.8, count)))).sum(axis=1)


def draw_lesions(
    rng: np.random.Generator, anatomy: Anatomy, label: int, pitch: float
) -> tuple[Tissue, tuple[np.ndarray, ...]]:
    """Puts one lesion, or now and then two of the same class, into a breast.

    Args:
      rng: source of all features of the lesions.
      anatomy: the breast.
      label: `types.BENIGN` or `types.MALIGNANT`.
      pitch: side of a pixel in cm.

    Returns:
      The tissue with the lesions, and one ``(height, width)`` bool mask per lesion.
    """
    tissue = anatomy.tissue
    height, width = tissue.echo.shape
    wanted = 2 if rng.random() < 0.12 else 1
    masks: list[np.ndarray] = []
    taken = np.zeros((height, width), bool)
    for number in range(wanted):
        for _ in range(_TRIES):
            outline, row, col = _draw_place(rng, anatomy, label, pitch, small=wanted == 2)
            top, bottom = int(row - outline.top), int(row + outline.bottom) + 1
            left, right = int(col - outline.left), int(col + outline.right) + 1
            # A second lesion beside the first, not under it, where it would lie in the shadow.
            if not taken[:, max(left - 8, 0) : right + 8].any():
                break
        else:
            if number:
                break
        taken[top:bottom, left:right] = True
        tissue, mask = _with_lesion(rng, tissue, label, outline, row, col, pitch)
        masks.append(mask)
    return tissue, tuple(masks)


def _draw_place(
    rng: np.random.Generator, anatomy: Anatomy, label: int, pitch: float, *, small: bool
) -> tuple[Outline, float, float]:
    """Draws an outline and a centre, row and column, with the whole lesion in the picture."""
    height, width = anatomy.tissue.echo.shape
    long = rng.uniform(0.75, 1.4 if small else 2.4) / pitch
    if label == types.BENIGN:
        size_col = min(long, 0.5 * width)
        size_row = size_col / rng.uniform(1.1, 2.1)
    else:
        size_row = long / 1.25
        size_col = size_row / rng.uniform(0.95, 1.5)
    lowest = max(min(anatomy.muscle_top + 0.02 * height, 0.86 * height), 0.6 * height)
    first = anatomy.fat_top + 0.03 * height
    shrink = min(1.0, 0.9 * (lowest - first) / size_row)
    outline = draw_outline(rng, label, size_row * shrink, size_col * shrink)
    row = rng.uniform(first + outline.top, lowest - outline.bottom)
    col = rng.uniform(0.07 * width + outline.left, 0.93 * width - outline.right)
    return outline, row, col


def _with_lesion(
    rng: np.random.Generator,
    tissue: Tissue,
    label: int,
    outline: Outline,
    row: float,
    col: float,
    pitch: float,
) -> tuple[Tissue, np.ndarray]:
    """Adds one lesion to the maps; returns them and the lesion's mask."""
    height, width = tissue.echo.shape
    down, right = np.mgrid[0:height, 0:width].astype(np.float32)
    down -= row
    right -= col
    angle = np.arctan2(down, right)
    mask = np.hypot(down, right) <= np.interp(angle, _ANGLE, outline.radius)
    # The tip of a thin spike can come loose on the pixel grid.
    pieces, _ = ndimage.label(mask)
    mask = pieces == pieces[round(row), round(col)]
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    distance = np.where(mask, 0.5 - inside, outside - 0.5)  # signed, 0 on the outline

    if label == types.BENIGN:
        look = _benign_look(rng, mask, distance)
    else:
        look = _malignant_look(rng, mask, distance, angle, tissue.echo, 1 / pitch)
    share = 1 / (1 + np.exp(np.clip(distance / look.softness, -30, 30)))
    return (
        Tissue(
            echo=((tissue.echo + look.around) * (1 - share) + look.echo * share).astype(np.float32),
            specular=(tissue.specular * (1 - share) + look.capsule).astype(np.float32),
            attenuation=(tissue.attenuation * (1 - share) + look.attenuation * share).astype(
                np.float32
            ),
        ),
        mask,
    )


def _benign_look(rng: np.random.Generator, mask: np.ndarray, distance: np.ndarray) -> _Look:
    """Smooth margin, thin capsule, even echoes, sound passes easily."""
    height, width = mask.shape
    slope_row, slope_col = np.gradient(ndimage.gaussian_filter(distance, 1.5))
    steep = np.hypot(slope_row, slope_col) + 1e-6
    across = (slope_row / steep) ** 2
    patches = np.clip(0.8 + 0.5 * smooth_noise(rng, height, width, 6, 6), 0, 1.5)
    capsule = rng.uniform(0.1, 0.5) * patches * across**2
    capsule = capsule * np.exp(-0.5 * ((distance - 0.8) / 0.8) ** 2)
    if rng.random() < 0.25:
        # A simple cyst: hardly any attenuation and no scatterers, but reverberations of its front
        # wall.
        below = np.cumsum(mask, axis=0) / mask.sum(axis=0).max()
        echo = rng.uniform(-42, -32) + rng.uniform(8, 20) * np.exp(-below / 0.12)
        attenuation = rng.uniform(0.0, 0.12)
    else:
        texture = smooth_noise(rng, height, width, 4, 8)
        echo = rng.uniform(-22, _SOLID) + 0.8 * texture
        attenuation = rng.uniform(0.1, 0.7)
    # Refraction at the steep sides of a smooth, rounded mass casts thin shadows.
    side = (1 - across) ** 4 * np.exp(-0.5 * (distance / 1.2) ** 2)
    attenuation = attenuation + rng.uniform(0.0, 1.0) * side
    softness = rng.uniform(0.35, 0.7)
    return _Look(echo, attenuation, softness, capsule=capsule, around=0.0)


def _malignant_look(
    rng: np.random.Generator,
    mask: np.ndarray,
    distance: np.ndarray,
    angle: np.ndarray,
    background: np.ndarray,
    centimetre: float,
) -> _Look:
    """Indistinct margin, uneven echoes, echogenic halo with spicules, sound absorbed."""
    height, width = mask.shape
    texture = smooth_noise(rng, height, width, 3.5, 5)
    echo = rng.uniform(-21, _SOLID) + rng.uniform(1.5, 3.0) * texture
    if rng.random() < 0.3:
        # Microcalcifications.
        spots = (rng.random(mask.shape) < 0.005) & (distance < -2)
        echo = echo + rng.uniform(14, 22) * ndimage.maximum_filter(spots, (1, 2))
    # -1 to 14 dB more than in the tissue beside, for the whole way through at 10 MHz.
    size = np.ptp(np.flatnonzero(mask.any(axis=1))) / centimetre
    attenuation = 0.65 + rng.uniform(-1, 14) / (2 * 10 * size)

    reach = rng.uniform(0.1, 0.3) * centimetre
    fade = np.exp(-np.clip(distance, 0, None) / reach) * ~mask
    rim = np.clip(0.7 + 0.5 * smooth_noise(rng, height, width, 7, 7), 0, 1.2)
    halo = rng.uniform(0.4, 1.1) * fade * rim * np.clip(2.0 - background, 0, 14)
    # Straight strands radiate into the tissue around.
    strands = np.interp(
        angle, _ANGLE, ndimage.gaussian_filter1d(rng.standard_normal(_ANGLE.size), 2.5, mode="wrap")
    )
    strands = strands / strands.std()
    far = np.exp(-np.clip(distance, 0, None) / (2.5 * reach)) * ~mask
    around = halo + rng.uniform(1.5, 4.5) * far * strands
    softness = rng.uniform(0.6, 1.6)
    return _Look(echo, attenuation, softness, capsule=0.0, around=around)
