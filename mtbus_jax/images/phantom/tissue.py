"""The breast of the phantom: layers of tissue, before any lesion and any ultrasound.

From the skin down: dermis, subcutaneous fat in lobules between Cooper's ligaments, fibroglandular
tissue with islands of fat, retromammary fat, pectoral muscle and sometimes a rib. Attenuation has
the order of the values tabulated for soft tissue (Szabo, "Diagnostic Ultrasound Imaging", app. B);
echo levels are set by eye. They are in dB re fibroglandular tissue, and sizes in pixels unless they
say otherwise.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import fft, ndimage, spatial

from mtbus_jax.images.phantom.scanner import Tissue

# Echo level in dB and one-way attenuation in dB / cm / MHz.
_SKIN = (0.0, 0.8)
FAT = (-11.0, 0.48)
_GLAND = (0.0, 0.68)
_MUSCLE = (-10.0, 0.65)


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """The layers of one breast, with the depths between which a lesion may lie.

    Attributes:
      tissue: maps of ``(height, width)``.
      fat_top: depth of the lower edge of the skin.
      muscle_top: least depth of the pectoral fascia, ``height`` if it is off the screen.
    """

    tissue: Tissue
    fat_top: float
    muscle_top: float


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, rows: float, cols: float
) -> np.ndarray:
    """Gaussian random field of zero mean and unit variance.

    Args:
      rng: source of the field.
      height: height of the field.
      width: width of the field.
      rows: standard deviation of the smoothing kernel down the columns.
      cols: standard deviation of the smoothing kernel along the rows.

    Returns:
      ``(height, width)`` float32.
    """
    # Twice the extent of the kernel, so that the periodic field does not meet itself.
    size = (fft.next_fast_len(int(height + 4 * rows)), fft.next_fast_len(int(width + 4 * cols)))
    down = np.exp(-2 * (np.pi * rows * fft.fftfreq(size[0])) ** 2)
    along = np.exp(-2 * (np.pi * cols * fft.rfftfreq(size[1])) ** 2)
    spectrum = fft.rfft2(rng.standard_normal(size, dtype=np.float32))
    field = fft.irfft2(spectrum * np.outer(down, along).astype(np.float32), size)[:height, :width]
    return (field - field.mean()) / field.std()


def smooth_curve(rng: np.random.Generator, width: int, cols: float) -> np.ndarray:
    """Gaussian random curve: ``(width,)``, zero mean and unit variance, smoothed by ``cols``."""
    return smooth_noise(rng, 2, width, 0.0, cols)[0]


def draw_anatomy(rng: np.random.Generator, height: int, width: int, pitch: float) -> Anatomy:
    """Draws a breast without a lesion.

    Args:
      rng: source of all its features.
      height: height of the maps.
      width: width of the maps.
      pitch: side of a pixel in cm.

    Returns:
      An `Anatomy`.
    """
    centimetre = 1 / pitch
    row = np.arange(height)[:, None]

    skin_top = rng.uniform(0.02, 0.10) * centimetre + 0.6 * smooth_curve(rng, width, 60)
    skin_bottom = skin_top + rng.uniform(0.13, 0.22) * centimetre
    skin_bottom = skin_bottom + 0.7 * smooth_curve(rng, width, 25)
    # Cooper's ligaments pull the glandular tissue up into peaks between the lobules of fat.
    peaks = 1 - np.abs(smooth_curve(rng, width, 20))
    gland_top = skin_bottom + rng.uniform(0.25, 1.0) * centimetre
    gland_top += 0.15 * centimetre * smooth_curve(rng, width, 45)
    gland_top -= rng.uniform(0.06, 0.2) * centimetre * peaks
    muscle_top = rng.uniform(0.66, 1.05) * height + 0.1 * centimetre * smooth_curve(rng, width, 50)
    muscle_top += rng.uniform(-0.06, 0.06) * height * np.linspace(-1, 1, width)
    gland_bottom = muscle_top - rng.uniform(0.1, 0.45) * centimetre
    gland_bottom += 0.06 * centimetre * smooth_curve(rng, width, 25)

    # Fibroglandular tissue and its islands of fat, from mostly fatty to dense breasts.
    density = rng.uniform(-0.35, 1.3)
    islands = smooth_noise(rng, height, width, 0.12 * centimetre, 0.32 * centimetre)
    islands = islands + 0.35 * smooth_noise(rng, height, width, 0.05 * centimetre, 8)
    gland = (row > gland_top) & (row < gland_bottom) & (islands > -density)
    muscle = row > muscle_top
    skin = (row > skin_top) & (row < skin_bottom)

    streaks = smooth_noise(rng, height, width, 1.6, 9)
    clouds = smooth_noise(rng, height, width, 9, 16)
    septa, lean = _septa(rng, height, width, centimetre)
    striae = _striae(rng, muscle_top, height, width)

    echo = np.full((height, width), FAT[0], np.float32) + 1.2 * clouds
    echo += septa * rng.uniform(6, 11)
    echo = np.where(gland, _GLAND[0] + rng.uniform(1, 2.5) * streaks + 1.8 * clouds, echo)
    echo = np.where(muscle, _MUSCLE[0] + 1.0 * clouds + striae, echo)
    echo = np.where(skin, _SKIN[0] + 1.5 * streaks, echo)
    # The gel between probe and skin.
    echo = np.where(row < skin_top, -9.0, echo)
    attenuation = np.full((height, width), FAT[1], np.float32)
    for where, value in ((gland, _GLAND[1]), (muscle, _MUSCLE[1]), (skin, _SKIN[1])):
        attenuation[where] = value

    # Reflectors shine where they lie across the beam and fade where they lie along it.
    specular = 0.35 * septa * lean * ((row > skin_bottom) & ~gland & ~muscle)
    # They are rough, too: most of a fascia's echo is diffuse, and it comes in pieces.
    rough = [np.clip(0.8 + 0.5 * smooth_curve(rng, width, cols), 0, 1.6) for cols in (6, 5, 9)]
    specular += 0.9 * _interface(row, skin_top, 0.9) * rough[0]
    specular += 0.5 * _interface(row, skin_bottom, 0.9) * rough[1]
    fascia = _interface(row, muscle_top, 1.0) + 0.6 * _interface(row, muscle_top + 4.5, 0.9)
    fascia = fascia * rough[2] * np.clip(1 + 0.6 * smooth_curve(rng, width, 20), 0, 1.8)
    specular += rng.uniform(0.1, 0.3) * fascia
    echo += rng.uniform(6, 12) * fascia
    echo += 6 * _interface(row, skin_top, 1.2) + 4 * _interface(row, skin_bottom, 1.0)
    # Deep to a ligament that runs along the beam lies a thin shadow, in every class.
    attenuation += 0.35 * septa * (1 - lean) * (row < gland_bottom)

    tissue = Tissue(
        echo=ndimage.gaussian_filter(echo, 0.8).astype(np.float32),
        specular=specular.astype(np.float32),
        attenuation=attenuation.astype(np.float32),
    )
    if rng.random() < 0.25 and muscle_top.max() < 0.88 * height:
        tissue = _with_rib(rng, tissue, muscle_top, centimetre)
    return Anatomy(
        tissue=tissue,
        fat_top=float(skin_bottom.max()),
        muscle_top=float(min(muscle_top.min(), height)),
    )


def _interface(row: np.ndarray, depth: np.ndarray, thickness: float) -> np.ndarray:
    """Gaussian profile around ``depth``, ``(width,)``, as a ``(height, width)`` map."""
    return np.exp(-0.5 * ((row - depth) / thickness) ** 2)


def _septa(
    rng: np.random.Generator, height: int, width: int, centimetre: float
) -> tuple[np.ndarray, np.ndarray]:
    """Walls of the fat lobules: strength 0..1, and how far they lie across the beam, 0..1."""
    # Walls are those of the cells around random centres (Worley noise), in bent coordinates.
    lobule = np.array([rng.uniform(0.4, 0.65), rng.uniform(0.8, 1.4)]) * centimetre
    bend = 0.1 * centimetre
    grid = np.mgrid[0:height:2, 0:width:2].astype(np.float32)
    grid[0] += bend * smooth_noise(rng, *grid.shape[1:], 8, 14)
    grid[1] += bend * smooth_noise(rng, *grid.shape[1:], 8, 14)
    cells = np.ceil(np.array([height, width]) / lobule).astype(int) + 2
    centre = np.mgrid[0 : cells[0], 0 : cells[1]].reshape(2, -1).T - 0.5
    centre += 0.5 * (np.arange(len(centre)) // cells[1] % 2)[:, None] * np.array([0, 1])
    centre += rng.uniform(-0.4, 0.4, centre.shape)
    point = (grid.reshape(2, -1).T) / lobule
    distance, _ = spatial.cKDTree(centre).query(point, k=2)
    wall = (distance[:, 1] - distance[:, 0]).reshape(grid.shape[1:])
    wall = ndimage.zoom(wall, 2, order=1, grid_mode=True, mode="nearest")[:height, :width]
    slope_row, slope_col = np.gradient(ndimage.uniform_filter(wall, 3))
    lean = slope_row**2 / (slope_row**2 + slope_col**2 + 1e-6)
    fade = np.clip(0.6 + 0.6 * smooth_noise(rng, height, width, 10, 16), 0, 1)
    return np.exp(-0.5 * (wall / 0.05) ** 2) * fade, lean


def _striae(
    rng: np.random.Generator, muscle_top: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Echoes in dB of the septa between muscle fibres, which run along the fascia."""
    fibres = smooth_noise(rng, height, width, 1.1, 22)
    along = np.arange(height)[:, None] - np.round(muscle_top).astype(int)
    return 6 * np.clip(np.take_along_axis(fibres, along % height, axis=0) - 0.4, 0, 2)


def _with_rib(
    rng: np.random.Generator, tissue: Tissue, muscle_top: np.ndarray, centimetre: float
) -> Tissue:
    """Adds the section of a rib under the muscle: a bright convex cap over a shadow."""
    height, width = tissue.echo.shape
    row, col = np.mgrid[0:height, 0:width]
    centre = rng.uniform(0.1, 0.9) * width
    half = rng.uniform(0.6, 1.0) * centimetre
    top = muscle_top[int(centre)] + rng.uniform(0.35, 0.6) * centimetre
    across = (col - centre) / half
    arch = 1 - np.clip(across, -1, 1) ** 2
    cap = top + 0.35 * centimetre * (1 - np.sqrt(arch))
    inside = (np.abs(across) < 1) & (row > cap)
    bright = (
        rng.uniform(0.5, 1.0)
        * arch
        * np.exp(-0.5 * ((row - cap) / 1.2) ** 2)
        * (np.abs(across) < 1)
    )
    echo = np.where(inside, -8.0, tissue.echo) + 8 * bright
    return Tissue(
        echo=echo.astype(np.float32),
        specular=(tissue.specular * ~inside + bright).astype(np.float32),
        attenuation=np.where(inside, 3.0, tissue.attenuation).astype(np.float32),
    )
