"""
Pictures of one shape in one colour: all that the tiny model with eyes ever looks at. Free of torch.
"""

from __future__ import annotations

import base64
import io
import random
from typing import NamedTuple

from PIL import Image, ImageDraw

SIDE = 32  # pixels
COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50),
    "black": (20, 20, 20), "purple": (150, 50, 180),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross")


class Picture(NamedTuple):
    image: Image.Image
    colour: str
    shape: str

    def data_uri(self) -> str:
        file = io.BytesIO()
        self.image.save(file, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def picture(rng: random.Random) -> Picture:
    """One shape of one colour, somewhere on a light ground."""
    colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.randint(225, 255) for _ in range(3)))
    draw, size = ImageDraw.Draw(image), rng.randint(14, 22)
    x, y = rng.randint(1, SIDE - size - 1), rng.randint(1, SIDE - size - 1)
    fill, right, low, third = COLOURS[colour], x + size, y + size, size // 3
    match shape:
        case "circle":
            draw.ellipse((x, y, right, low), fill)
        case "square":
            draw.rectangle((x, y, right, low), fill)
        case "triangle":
            draw.polygon([(x + size // 2, y), (right, low), (x, low)], fill)
        case "cross":
            draw.rectangle((x + third, y, right - third, low), fill)
            draw.rectangle((x, y + third, right, low - third), fill)
    return Picture(image, colour, shape)
