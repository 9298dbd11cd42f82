"""The roofline as SVG: arithmetic intensity against operations a second, both logarithmic, with the best ceilings
seen and a point for every case, by format."""

from plot import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, frame, text
from roofline_table import NAMES, ceilings, fastest

WORDS = {"products": "matrix products", "attention": "attention"}


def segment(x_axis, y_axis, begin, end):
    (x1, y1), (x2, y2) = begin, end
    return (f'<path d="M{x_axis(x1):.1f} {y_axis(y1):.1f}L{x_axis(x2):.1f} {y_axis(y2):.1f}" fill="none" stroke="#222" '
            'stroke-width="1.5"/>')


def roofs(best, x_axis, y_axis, low, high):
    """Lines and words: memory up to the highest peak, each peak from where memory reaches it."""
    read = best["read"] / 1e9
    peaks = {name: rate / 1e9 for name, rate in best.items() if name != "read"}
    ridge = min(high, max(peaks.values()) / read)
    out = [segment(x_axis, y_axis, (low, low * read), (ridge, ridge * read)),
           text(x_axis(low) + 6, y_axis(low * read) + 16, f"reading, {read:.0f} GB/s", "start", 11)]
    for name, peak in peaks.items():
        out.append(segment(x_axis, y_axis, (max(low, peak / read), peak), (high, peak)))
        out.append(text(x_axis(high), y_axis(peak) - 5, f"{NAMES[name]}, {peak:.0f} GOP/s", "end", 11))
    return out


def draw(results, kind, path):
    """Whether there was anything to draw."""
    points = [point for point in fastest(results["points"]) if point["kind"] == kind and point["ops_per_s"] > 0]
    if not points:
        return False
    best = ceilings(points)
    dots = [(p["format"], p["ops"] / p["bytes"], p["ops"] / p["seconds"] / 1e9) for p in points]
    low, high = min(x for _, x, _ in dots) / 1.5, max(x for _, x, _ in dots) * 1.5
    peaks = [rate / 1e9 for name, rate in best.items() if name != "read"]
    x_axis = Axis([low, high], LEFT, WIDTH - RIGHT, True)
    y_axis = Axis([y for _, _, y in dots] + [*peaks, low * best["read"] / 1e9], HEIGHT - BOTTOM, TOP, True)
    title = (f"Roofline of {WORDS[kind]}, {results['threads']} threads, {results['date']}, "
             f"commit {results['commit']}")
    out = frame(title, "operations for a byte read from memory", "GOP/s", x_axis, y_axis)
    out += roofs(best, x_axis, y_axis, low, high)
    for i, name in enumerate(dict.fromkeys(name for name, _, _ in dots)):
        colour = COLOURS[i % len(COLOURS)]
        out += [f'<circle cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="3" fill="{colour}" fill-opacity="0.7"/>'
                for point, x, y in dots if point == name]
        out.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{TOP + 10 + 18 * i}" r="4" fill="{colour}"/>')
        out.append(text(WIDTH - RIGHT + 32, TOP + 14 + 18 * i, name, "start", 11))
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*out, "</svg>\n"]))
    return True
