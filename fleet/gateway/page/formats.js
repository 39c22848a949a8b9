// Numbers as people read them.

export function seconds(value) {
  return value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}

export function ago(value) {
  return value < 90 ? `${Math.max(0, Math.round(value))} s ago` : `${Math.round(value / 60)} min ago`;
}

export function gigabytes(used, cap) {
  const text = `${(used / 2 ** 30).toFixed(2)} GiB`;
  return cap ? `${text} of ${(cap / 2 ** 30).toFixed(2)}` : text;
}
