// Which images are selected: ranges of places in the view, so that a million take no more room than one.

export class Selection extends EventTarget {
  /** Disjoint, sorted, `[from, to)`. */
  #ranges = [];
  /** Where Shift starts from. */
  anchor = null;
  /** All images of a cluster within the view: `{ cluster, view, count }`. */
  cluster = null;
  /** Images chosen on the map by name, wherever they are in the view: a set of hashes. */
  named = null;

  get ranges() {
    return this.#ranges;
  }

  get count() {
    if (this.cluster) return this.cluster.count;
    if (this.named) return this.named.size;
    return this.#ranges.reduce((sum, [from, to]) => sum + to - from, 0);
  }

  has(index, row) {
    if (this.cluster) return row !== undefined && row.k === this.cluster.cluster;
    if (this.named) return row !== undefined && this.named.has(row.h);
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ranges[middle][1] <= index) low = middle + 1;
      else high = middle;
    }
    return low < this.#ranges.length && this.#ranges[low][0] <= index;
  }

  clear() {
    this.set([]);
  }

  only(index) {
    this.anchor = index;
    this.set([[index, index + 1]]);
  }

  toggle(index) {
    this.anchor = index;
    if (this.has(index)) this.#without(index);
    else this.add([[index, index + 1]]);
  }

  /** From the anchor to `index`, both included. */
  reach(index, more = false) {
    const anchor = this.anchor ?? index;
    const range = [Math.min(anchor, index), Math.max(anchor, index) + 1];
    if (more) this.add([range]);
    else this.set([range]);
    this.anchor = anchor;
  }

  all(total) {
    this.set(total > 0 ? [[0, total]] : []);
  }

  wholeCluster(cluster, view, count) {
    this.#ranges = [];
    this.named = null;
    this.cluster = { cluster, view, count };
    this.#changed();
  }

  names(hashes) {
    this.#ranges = [];
    this.cluster = null;
    this.named = hashes.length > 0 ? new Set(hashes) : null;
    this.#changed();
  }

  add(ranges) {
    this.set([...this.#ranges, ...ranges]);
  }

  set(ranges) {
    const sorted = ranges.filter(([from, to]) => to > from).sort((a, b) => a[0] - b[0]);
    const joined = [];
    for (const [from, to] of sorted) {
      const last = joined.at(-1);
      if (last && from <= last[1]) last[1] = Math.max(last[1], to);
      else joined.push([from, to]);
    }
    this.#ranges = joined;
    this.cluster = null;
    this.named = null;
    this.#changed();
  }

  #without(index) {
    this.set(this.#ranges.flatMap(([from, to]) => (index < from || index >= to ? [[from, to]] : [[from, index], [index + 1, to]])));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
