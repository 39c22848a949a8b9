// Sizes, times and states in words.

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];
const HIT_WORDS = { ram: "from RAM", vram: "in VRAM already", "in use": "in use already", ahead: "read ahead", store: "from the store" };
const PROVIDER_STATES = { closed: "working", open: "failed too often, left out for now", "half-open": "failed, being tried again" };

export const TIER_NAMES = { vram: "VRAM", ram: "RAM", "in use": "in use", store: "Store", disk: "Disk" };
export const ACTION_NAMES = { hold: "Hold", "let-go": "Let go", "to-ram": "Move to RAM", drop: "Drop", preload: "Preload" };

/** 12617000 → "12.6 MB"; powers of a thousand, as everywhere in this project. */
export function bytes(count) {
  if (count === 1) return "1 byte";
  let power = 0;
  while (count >= 999.5 && power < UNITS.length - 1) {
    count /= 1000;
    power += 1;
  }
  return `${power && count < 99.95 ? count.toFixed(1) : Math.round(count)} ${UNITS[power]}`;
}

/** Seconds with as many digits as tell something. */
export function seconds(count) {
  if (count >= 120) return `${(count / 60).toFixed(1)} min`;
  return count >= 10 ? `${Math.round(count)} s` : count >= 0.1 ? `${count.toFixed(1)} s` : `${Math.round(count * 1000)} ms`;
}

/** How long ago, roughly. */
export function ago(count) {
  if (count < 10) return "just now";
  if (count < 90) return `${Math.round(count / 10) * 10} s ago`;
  if (count < 5400) return `${Math.round(count / 60)} min ago`;
  return count < 172800 ? `${Math.round(count / 3600)} h ago` : `${Math.round(count / 86400)} days ago`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** The larger of what a model takes in VRAM and RAM, or its file's size. */
export function size(row) {
  return Math.max(row.vram_bytes, row.ram_bytes, row.disk_bytes);
}

/** "12.6 MB in VRAM and 12.6 MB in RAM". */
export function places(row) {
  const sizes = [[row.vram_bytes, "in VRAM"], [row.ram_bytes, "in RAM"], [row.disk_bytes, "on disk"]];
  const said = sizes.filter(([count]) => count).map(([count, where]) => `${bytes(count)} ${where}`);
  return `${said.join(" and ")}${row.tier === "in use" ? ", not kept" : ""}`;
}

/** ["used 20 s ago", "held", "2 users"], as far as it is so. */
export function use(row, now) {
  const said = row.used_at === null ? [] : [`used ${ago(Math.max(0, now - row.used_at))}`];
  if (row.held) said.push("held");
  if (row.users) said.push(plural(row.users, "user"));
  return said;
}

/** "model · 12.6 MB · used 20 s ago · held · 2 users". */
export function facts(row, now) {
  return [row.kind, bytes(size(row)), ...use(row, now)].join(" · ");
}

/** What a receipt says: "from RAM, 3.1 s saved", or why the model was read. */
export function receipt(one) {
  if (one.tier in HIT_WORDS) return `${HIT_WORDS[one.tier]}, ${seconds(one.seconds)} saved`;
  if (one.tier === "disk") return `read in ${seconds(one.seconds)} (${bytes(one.bytes)}): ${one.reason}`;
  return one.reason || one.tier;
}

/** "working · answers in 1.2 ms, slow ones in 8 ms · 3 hits of 10". */
export function provider(one) {
  const said = [one.state ? PROVIDER_STATES[one.state] ?? one.state : "state not told by this server"];
  if (one.lookup_p50_s !== null && one.lookup_p50_s !== undefined) {
    said.push(`answers in ${latency(one.lookup_p50_s)}, slow ones in ${latency(one.lookup_p95_s)}`);
  }
  said.push(`${plural(one.hits, "hit")} of ${one.hits + one.misses}`);
  if (one.errors) said.push(plural(one.errors, "error"));
  return said.join(" · ");
}

function latency(count) {
  const ms = count * 1000;
  return ms >= 1000 ? `${count.toFixed(1)} s` : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}
