"""A bar chart of ratios as SVG, without a plotting library."""
from html import escape

LABEL, BAR, ROW = 330, 420, 24


def bars(ratios):
    """`ratios`: pairs of a label and Ottla's figure divided by Kafka's. The line stands at 1."""
    top = max([1.0, *(ratio for _, ratio in ratios if ratio == ratio)]) * 1.1
    height = ROW * (len(ratios) + 2)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + BAR + 80}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LABEL}" y="16" font-weight="bold">Ottla / Apache Kafka, same run</text>',
    ]
    for index, (label, ratio) in enumerate(ratios):
        y = ROW * (index + 1)
        width = 0 if ratio != ratio else BAR * ratio / top
        # Of throughput more is better, of everything else less.
        good = ratio >= 1 if any(unit in label for unit in ("MB/s", "commits/s", "transactions/s")) else ratio <= 1
        out.append(f'<text x="{LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>')
        out.append(f'<rect x="{LABEL}" y="{y + 4}" width="{width:.1f}" height="{ROW - 8}" fill="{"#2a7" if good else "#c63"}"/>')
        out.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + 16}">{ratio:.2f}</text>')
    x = LABEL + BAR / top
    out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{ROW}" y2="{height - ROW // 2}" stroke="black" stroke-dasharray="4 3"/></svg>')
    return "\n".join(out)
