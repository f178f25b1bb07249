"""Films on disk: GIF and MP4, written whole or not at all, with captions and the bars of Q-values."""

from __future__ import annotations

import itertools
import math
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dqn_jax.config import ConfigError
from dqn_jax.files import atomic

BACKGROUND, INK = (22, 24, 31), (226, 228, 233)
_CHOSEN, _BAR = (247, 205, 77), (92, 101, 122)
WIDTH = 400  # pixels of a frame
MOST_IN_GIF = 300  # frames of a GIF, which compresses less well than a video


class Film(NamedTuple):
    """A film to be written, drawn as it is read."""

    frames: Iterable[np.ndarray]  # each [H, W, 3], uint8, all of one even size
    length: int  # frames
    fps: float
    episode_return: float  # raw, of the episode that it shows


def check_suffix(path: str | Path) -> None:
    """Refuse a path that `write_film` would refuse, before anything is played.

    Raises:
      ConfigError: if `path` ends in neither .gif nor .mp4.
    """
    if Path(path).suffix.lower() not in (".gif", ".mp4"):
        raise ConfigError(f"output: '{path}' is neither a GIF nor a video; use .gif or .mp4")


def write_film(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames `[H, W, 3]` uint8 as a film; whatever was at `path` stays until the film is complete.

    A GIF keeps at most 300 frames and shows each for longer. A video needs even H and W.

    Raises:
      ConfigError: if `path` ends in neither .gif nor .mp4.
    """
    check_suffix(path)
    path = Path(path)
    with atomic(path) as partial:
        (_write_gif if path.suffix.lower() == ".gif" else _write_mp4)(partial, frames, fps)


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    frames = list(frames)
    kept = [frames[i] for i in thin(len(frames), MOST_IN_GIF)]
    hundredths = max(2, round(100 * len(frames) / len(kept) / fps))  # GIF's unit; viewers slow down a single one
    # One palette for all, so that a frame stores only where it differs from the last. The octree leaves white white.
    sample = Image.fromarray(np.concatenate([frame[::3, ::3] for frame in kept]))
    palette = sample.quantize(128, method=Image.Quantize.FASTOCTREE)
    first, *rest = (Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in kept)
    first.save(path, save_all=True, append_images=rest, duration=10 * hundredths, loop=0, optimize=False)


def _write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames)
    height, width, _ = first.shape
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    target = "-c:v libx264 -crf 20 -pix_fmt yuv420p -movflags +faststart"  # what browsers play
    # imageio's own writer starts ffmpeg with a preexec_fn, which can deadlock beside JAX's threads.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source.split(), *target.split(), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        for frame in itertools.chain([first], frames):
            encoder.stdin.write(frame.tobytes())
    if encoder.returncode:
        raise subprocess.CalledProcessError(encoder.returncode, command)


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices into `count` things: every k-th and the last."""
    return [*range(0, count - 1, max(1, math.ceil((count - 1) / (most - 1)))), count - 1]


def even(length: float) -> int:
    """The least even number of pixels that is no shorter: videos have no others."""
    return 2 * math.ceil(length / 2)


def with_caption(picture: Image.Image, title: str, left: str, right: str) -> np.ndarray:
    """The picture in the middle of an even-sized frame, below its lines of text."""
    line, pad = 20, 6
    top = line * (2 if title else 1) + pad
    width, height = even(max(WIDTH, picture.width)), even(picture.height + top)
    frame = Image.new("RGB", (width, height), BACKGROUND)
    frame.paste(picture, ((width - picture.width) // 2, top))
    pen, font = ImageDraw.Draw(frame), ImageFont.load_default(14)
    pen.text((pad, pad // 2), title, INK, font)
    pen.text((pad, top - line), left, INK, font)
    pen.text((width - pad, top - line), right, INK, font, anchor="ra")
    return np.asarray(frame)


class QPanel:
    """The Q-values of a film's actions, one to a line: name, bar and number. Bars span all values of the film."""

    def __init__(self, names: list[str], actions: np.ndarray, q_values: np.ndarray):
        self._names, self._actions, self._q_values = names, actions, q_values
        finite = q_values[np.isfinite(q_values)]  # a diverged agent has none
        self._low, self._high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
        self._font = ImageFont.load_default(12)
        self._name_width = max(round(self._font.getlength(name)) for name in names)

    def beside(self, picture: Image.Image, t: int) -> Image.Image:
        """The picture with the panel at its right, as of step t; after the last step there is nothing to choose."""
        pad, bar, number = 10, 90, 60
        line = max(15, min(26, picture.height // len(self._names)))
        left = picture.width + pad
        start = left + self._name_width + pad
        size = (start + bar + number + pad, max(picture.height, line * len(self._names)))
        both = Image.new("RGB", size, BACKGROUND)
        both.paste(picture, (0, 0))
        pen = ImageDraw.Draw(both)
        for action, name in enumerate(self._names):
            middle = line * action + line // 2
            chosen = t < len(self._actions) and action == self._actions[t]
            ink: Any = _CHOSEN if chosen else INK
            pen.text((left, middle), name, ink, self._font, anchor="lm")
            if t < len(self._actions):
                value = float(self._q_values[t, action])
                if np.isfinite(value):
                    length = bar * (value - self._low) / max(self._high - self._low, 1e-6)
                    box = (start, middle - line // 4, start + length, middle + line // 4)
                    pen.rectangle(box, _CHOSEN if chosen else _BAR)
                pen.text((size[0] - pad, middle), f"{value:.3f}", ink, self._font, anchor="rm")
        return both
