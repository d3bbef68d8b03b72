"""What a page must keep to whatever it shows: texts that can be read, names for what can be used, nothing wider than the window."""

# WCAG 2.2, 1.4.3: 4.5 for text, 3 for large text; what cannot be used now is exempt.
AUDIT = r"""
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (color) => {
    if (!known.has(color)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(color, [r, g, b, a / 255]);
    }
    return known.get(color);
  };
  const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a), 1];
  const ground = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, ground(element.parentElement));
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const found = new Set();
  const root = document.querySelector("dialog[open]") ?? document.body;
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.data.trim();
    if (text === "" || !element.checkVisibility({ visibilityProperty: true }) || element.closest(":disabled, script, style, option, .skip")) continue;
    const style = getComputedStyle(element);
    const behind = ground(element);
    const [one, other] = [light(over(rgba(style.color), behind)), light(behind)].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (contrast < least) found.add(`“${text.slice(0, 40)}” has a contrast of ${contrast.toFixed(2)}`);
  }
  for (const one of root.querySelectorAll("a[href], button, input, select, textarea")) {
    if (!one.checkVisibility()) continue;
    const label = one.getAttribute("aria-label") || one.innerText || one.labels?.[0]?.innerText || one.title;
    if (!label?.trim()) found.add(`nothing says what ${one.outerHTML.slice(0, 80)} is`);
  }
  const over_by = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (over_by > 0) found.add(`${over_by} pixels wider than the window`);
  return [...found];
})()
"""


def audit(browser, what):
    found = browser.evaluate(AUDIT)
    if found:
        raise SystemExit(f"{what}: " + "; ".join(found[:10]))
