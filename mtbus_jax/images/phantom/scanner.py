"""The scanner of the phantom: from a map of tissue to the 8-bit B-mode picture.

The model is the linear one behind Field II (Jensen, "Field: a program for simulating ultrasound
systems", 1996): the received signal is the scatterers convolved with the pulse-echo point-spread
function. It is kept at baseband. Random scatterers convolved with the modulated pulse
``exp(-z² / 2σ²) · exp(2ikz)`` have the same envelope, in distribution, as circular complex
scatterers convolved with ``exp(-z² / 2σ²)`` alone, and the picture needs only the envelope; so the
carrier need not be sampled.

Sizes along the beam are in axial samples, `AXIAL_SAMPLES` to a pixel; sizes across it in pixels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import fft, ndimage

# Axial samples per pixel: the pulse is too short for the pixel grid.
AXIAL_SAMPLES = 2

# Side lobes as a second Gaussian, this high and this many times as wide as the main lobe: they put
# the haze into cysts and shadows.
_SIDE_LOBE_LEVEL = 0.03
_SIDE_LOBE_WIDTH = 6

# Share of a column's attenuation that moves to each neighbour in a pixel of depth, < 0.5.
_SPREAD = 0.2


@dataclasses.dataclass(frozen=True)
class Tissue:
    """What the beam meets; every array is ``(height, width)`` float32.

    Attributes:
      echo: backscatter of the diffuse scatterers in dB, 0 for fibroglandular tissue.
      specular: amplitude of smooth interfaces (skin, fasciae, capsules), 0 where there is none and
        1 for the level of fibroglandular tissue.
      attenuation: one-way attenuation in dB / cm / MHz.
    """

    echo: np.ndarray
    specular: np.ndarray
    attenuation: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scanner:
    """Settings of the scanner for one image.

    Attributes:
      pitch: side of a (square) pixel in cm.
      frequency: centre frequency in MHz.
      axial_sigma: standard deviation of the pulse's amplitude in axial samples.
      lateral_sigma: standard deviation of the beam's amplitude at the focus in pixels.
      focus: depth of the transmit focus in pixels.
      focal_depth: distance from the focus, in pixels, at which the beam is √2 times as wide.
      compensation: attenuation, in dB / cm / MHz, that the time-gain compensation makes up for.
      gain_ripple: ``(height,)`` dB, how far the gain sliders are off.
      contact: ``(width,)`` dB, ≤ 0, loss where the probe touches the skin badly.
      noise: level of the electronic noise at full gain in dB re fibroglandular tissue.
      dynamic_range: dB between black and white.
      headroom: dB by which white lies above the 99th percentile of the echoes; negative saturates.
      curve: exponent of the grey map, > 1 darkens the middle greys.
      smoothing: standard deviation, in pixels, of the scan converter's interpolation.
    """

    pitch: float
    frequency: float
    axial_sigma: float
    lateral_sigma: float
    focus: float
    focal_depth: float
    compensation: float
    gain_ripple: np.ndarray
    contact: np.ndarray
    noise: float
    dynamic_range: float
    headroom: float
    curve: float
    smoothing: float


def draw_scanner(rng: np.random.Generator, height: int, width: int) -> Scanner:
    """Draws the settings for an image of ``height`` × ``width`` pixels, as an operator varies them.

    Returns:
      A `Scanner` for a linear array of 7.5 to 12 MHz with 3 to 4.5 cm of depth on the screen.
    """
    row = np.arange(height) / height
    col = np.arange(width) / width
    phase = rng.uniform(0, 2 * np.pi, 2)
    ripple = np.sin(2 * np.pi * row + phase[0]) + 0.6 * np.sin(5 * np.pi * row + phase[1])
    side = col if rng.random() < 0.5 else 1 - col
    lift = rng.uniform(5, 18) if rng.random() < 0.3 else 0.0
    return Scanner(
        pitch=rng.uniform(3.0, 4.5) / height,
        frequency=rng.uniform(7.5, 12.0),
        axial_sigma=rng.uniform(1.1, 1.6),
        lateral_sigma=rng.uniform(1.15, 1.7),
        focus=rng.uniform(0.3, 0.6) * height,
        focal_depth=rng.uniform(0.35, 0.6) * height,
        compensation=rng.uniform(0.50, 0.62),
        gain_ripple=rng.uniform(0.3, 1.5) * ripple,
        contact=-lift * np.exp(-0.5 * (side / 0.06) ** 2),
        noise=rng.uniform(-48.0, -38.0),
        dynamic_range=rng.uniform(50.0, 64.0),
        headroom=rng.uniform(0.0, 7.0),
        curve=rng.uniform(1.4, 2.1),
        smoothing=rng.uniform(0.3, 0.6),
    )


def beam_sigma(scanner: Scanner, height: int) -> np.ndarray:
    """Width of the beam by depth, that of a focused Gaussian beam.

    Returns:
      ``(height,)`` float64, the standard deviation of the amplitude in pixels.
    """
    away = (np.arange(height) - scanner.focus) / scanner.focal_depth
    return scanner.lateral_sigma * np.sqrt(1 + away**2)


def speckle(
    amplitude: np.ndarray,
    rng: np.random.Generator,
    *,
    axial_sigma: float,
    lateral_sigma: np.ndarray,
    specular: np.ndarray | None = None,
) -> np.ndarray:
    """Complex echo of random scatterers seen through the point-spread function.

    Where ``amplitude`` is constant over a resolution cell the speckle is fully developed: the
    envelope (the magnitude of the result) follows the Rayleigh distribution, with a mean 1.91 times
    its standard deviation (Wagner, Smith, Sandrik and Lopez, "Statistics of speckle in ultrasound
    B-scans", IEEE Trans. Sonics Ultrason. 30, 1983), and its mean square is ``amplitude ** 2``.

    Args:
      amplitude: ``(samples, width)``, root mean square of the diffuse scatterers, ≥ 0.
      rng: source of the scatterers.
      axial_sigma: standard deviation of the pulse's amplitude in samples.
      lateral_sigma: ``(samples,)``, standard deviation of the beam's amplitude in pixels.
      specular: ``(samples, width)``, amplitude of coherent reflectors, or None.

    Returns:
      ``(samples, width)`` complex64.
    """
    samples, width = amplitude.shape
    # The margin keeps the wrap-around of the Fourier transform out of the picture.
    axial_margin = int(np.ceil(4 * axial_sigma))
    lateral_margin = int(np.ceil(4 * np.max(lateral_sigma)))
    rows = fft.next_fast_len(samples + 2 * axial_margin)
    cols = fft.next_fast_len(width + 2 * lateral_margin)
    pad = (
        (axial_margin, rows - samples - axial_margin),
        (lateral_margin, cols - width - lateral_margin),
    )

    scatterers = rng.standard_normal((rows, cols, 2), dtype=np.float32).view(np.complex64)[..., 0]
    scatterers *= np.pad(amplitude.astype(np.float32), pad, mode="edge") * np.float32(np.sqrt(0.5))
    if specular is not None:
        scatterers += np.pad(specular.astype(np.float32), pad, mode="edge")

    # A Gaussian's transfer function, one per depth: the beam widens away from the focus.
    sigma = np.pad(lateral_sigma, pad[0], mode="edge")[:, None]
    lateral = np.exp(-2 * (np.pi * sigma * fft.fftfreq(cols)) ** 2)
    lateral += _SIDE_LOBE_LEVEL * _SIDE_LOBE_WIDTH * lateral ** (_SIDE_LOBE_WIDTH**2)
    axial = np.exp(-2 * (np.pi * axial_sigma * fft.fftfreq(rows)) ** 2)
    # By Parseval, this gives the echo of unit scatterers unit mean square at every depth.
    lateral /= np.sqrt(np.mean(lateral**2, axis=1, keepdims=True))
    axial /= np.sqrt(np.mean(axial**2))

    echo = fft.ifft(fft.fft(scatterers, axis=1) * lateral.astype(np.float32), axis=1)
    echo = fft.ifft(fft.fft(echo, axis=0) * axial[:, None].astype(np.float32), axis=0)
    return echo[pad[0][0] : pad[0][0] + samples, pad[1][0] : pad[1][0] + width]


def scan(tissue: Tissue, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """B-mode picture of ``tissue``: attenuation, speckle, gain, envelope and log compression.

    Args:
      tissue: maps of ``(height, width)``.
      scanner: settings; its arrays match the maps.
      rng: source of the scatterers and the noise.

    Returns:
      ``(height, width)`` uint8, grey values 0..255.
    """
    height, _ = tissue.echo.shape
    # Two ways, in dB per pixel of depth.
    per_pixel = 2 * scanner.frequency * scanner.pitch
    loss = per_pixel * _path_integral(tissue.attenuation, 1.5 * scanner.lateral_sigma)
    compensated = per_pixel * scanner.compensation * np.arange(height)
    gain = (compensated + scanner.gain_ripple)[:, None] - loss + scanner.contact

    level = 10 ** (gain / 20)
    amplitude = np.repeat(level * 10 ** (tissue.echo / 20), AXIAL_SAMPLES, axis=0)
    specular = np.repeat(level * tissue.specular, AXIAL_SAMPLES, axis=0)
    sigma = np.repeat(beam_sigma(scanner, height), AXIAL_SAMPLES)
    echo = speckle(
        amplitude,
        rng,
        axial_sigma=scanner.axial_sigma,
        lateral_sigma=sigma,
        specular=specular,
    )
    # The time-gain compensation amplifies the receiver's noise with the echoes.
    floor = 10 ** ((scanner.noise + compensated - compensated[-1]) / 20)
    noise = rng.standard_normal((*echo.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    envelope = np.abs(echo + noise * np.repeat(floor, AXIAL_SAMPLES)[:, None].astype(np.float32))
    return log_compress(envelope, scanner)


def _path_integral(attenuation: np.ndarray, beam: float) -> np.ndarray:
    """Sum of ``(height, width)`` from the top, spreading sideways on the way down.

    The aperture looks past the sides of a lesion, so the edges of its shadow are soft and grow
    softer with depth. ``beam`` is the standard deviation, in pixels, at no depth.
    """
    total = ndimage.gaussian_filter1d(attenuation, beam, axis=1, mode="nearest")
    for row in range(1, len(total)):
        above = np.pad(total[row - 1], 1, mode="edge")
        total[row] += above[1:-1] + _SPREAD * (above[:-2] - 2 * above[1:-1] + above[2:])
    return total


def log_compress(envelope: np.ndarray, scanner: Scanner) -> np.ndarray:
    """Grey values of an envelope: logarithm, dynamic range, averaging to pixels, grey map.

    Args:
      envelope: ``(AXIAL_SAMPLES · height, width)``, ≥ 0.
      scanner: source of the dynamic range, the headroom, the smoothing and the curve.

    Returns:
      ``(height, width)`` uint8.
    """
    decibel = 20 * np.log10(np.maximum(envelope, np.float32(1e-6)))
    white = np.percentile(decibel, 99) + scanner.headroom
    grey = np.clip(1 + (decibel - white) / scanner.dynamic_range, 0, 1)
    samples, width = grey.shape
    grey = grey.reshape(samples // AXIAL_SAMPLES, AXIAL_SAMPLES, width).mean(axis=1)
    grey = ndimage.gaussian_filter(grey, scanner.smoothing) ** scanner.curve
    return np.round(255 * grey).astype(np.uint8)
