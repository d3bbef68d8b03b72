// Numbers, bytes and times for people.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function count(number) {
  return number === null || number === undefined ? "–" : whole.format(number);
}

export function compact(number) {
  return number === null || number === undefined ? "–" : number < 10_000 ? whole.format(Math.round(number * 10) / 10) : short.format(number);
}

export function bytes(number) {
  if (number === null || number === undefined || number < 0) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = number;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[unit]}`;
}

export const bytesRate = (number) => (number === null || number === undefined ? "–" : `${bytes(number)}/s`);
export const rate = (number) => (number === null || number === undefined ? "–" : `${compact(number)}/s`);

const two = (number) => String(number).padStart(2, "0");

/** `2026-01-31 12:00:00.123`, in the browser's time zone. */
export function time(ms) {
  if (ms === null || ms === undefined || ms < 0) return "–";
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export const clock = (ms) => {
  const date = new Date(ms);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
};

/** `7 days`, `1.5 h`, `250 ms`. */
export function duration(ms) {
  const units = [["day", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1_000]];
  const [name, size] = units.find(([, size]) => ms >= size) ?? ["ms", 1];
  const value = Math.round((ms / size) * 10) / 10;
  return `${whole.format(value)} ${name === "day" && value !== 1 ? "days" : name}`;
}

/** A text of the server as a sentence. */
export function sentence(text) {
  if (!text) return "";
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** `1 partition`, `2 partitions`. */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Bytes of base64. */
export const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** As `xxd` shows it. */
export function hex(data) {
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const row = [...data.slice(at, at + 16)];
    const numbers = row.map((byte) => byte.toString(16).padStart(2, "0"));
    const letters = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${numbers.slice(0, 8).join(" ").padEnd(23)}  ${numbers.slice(8).join(" ").padEnd(23)}  ${letters}`);
  }
  return lines.join("\n");
}
