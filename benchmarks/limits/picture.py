"""Figures go in, an SVG comes out: for each server a row, for each sender a bar of its 429s.

Law: the length is the logarithm, since the peers lie ten thousand times apart; none at all is a
dot.
"""

from __future__ import annotations

from math import log10

__all__ = ["picture"]

COLOURS = ("#0b7a75", "#7fc8c4", "#b23a48", "#e07a5f", "#e9a23b", "#8d99ae")
LEFT, WIDTH, BAR, GAP, TOP = 130, 520, 9, 14, 64


def picture(found: dict[str, dict[str, tuple[int, float]]]) -> str:
    """The 429s of each sender on each server."""
    kinds = list(next(iter(found.values())))
    most = max(refused for cells in found.values() for refused, _ in cells.values())
    scale = WIDTH / log10(most + 1)
    step = BAR * len(found) + GAP
    drawn = []
    for number, name in enumerate(found):
        x, y = LEFT + number % 3 * 220, 16 + number // 3 * 20
        drawn.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{COLOURS[number]}"/>')
        drawn.append(f'<text x="{x + 16}" y="{y}">{name.replace(chr(34), "")}</text>')
    for row, kind in enumerate(kinds):
        top = TOP + row * step
        middle = top + BAR * len(found) / 2 + 4
        drawn.append(f'<text x="{LEFT - 10}" y="{middle:.0f}" text-anchor="end">{kind}</text>')
        for number, cells in enumerate(found.values()):
            refused = cells[kind][0]
            long, y = log10(refused + 1) * scale, top + number * BAR
            fill = COLOURS[number]
            drawn.append(
                f'<rect x="{LEFT}" y="{y}" width="{max(2.0, long):.1f}" height="{BAR - 1}" '
                f'fill="{fill}"/><text class="n" x="{LEFT + long + 6:.0f}" y="{y + 8}">'
                f"{refused:,}</text>"
            )
    height = TOP + len(kinds) * step
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 160} {height}" '
        'font-family="sans-serif" font-size="12"><style>.n{font-size:8px}</style>'
        '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )
