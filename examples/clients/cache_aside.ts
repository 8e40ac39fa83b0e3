// A cache-aside client of sidecache; Node 20 or later, or any runtime with fetch.

import { createInterface } from "node:readline";

const WHOLE_TIMEOUT_MS = 400; // the only timeout that fetch has; more than the service's redis_timeout_ms
const LEASE_S = 10; // longer than a load takes
const WAIT_S = 2; // how long to wait for a value that another program loads
const REST_MS = 1000; // if the cache does not answer, reads use the source for this long

type Origin = "cache" | "source";

/** The cache did not answer, or its answer says nothing about the key. */
class Unavailable extends Error {}

/** A cache-aside client. fetch keeps connections open between calls if answers are read completely. */
export class Cache {
  private resume = 0;
  private readonly base: string;
  private readonly ttl: number;

  constructor(url: string, namespace: string, ttl: number) {
    this.base = `${url}/api/v1/cache/${encodeURIComponent(namespace)}/`;
    this.ttl = ttl;
  }

  /** Returns the value of the key and where it came from. An error of `load` is passed on, not stored. */
  async read<T>(key: string, load: (key: string) => Promise<T>): Promise<[T, Origin]> {
    let found: { value?: T; lease: string };
    try {
      found = await this.get<T>(key);
    } catch (problem) {
      console.error(`reading ${key} from the source: ${problem}`);
      return [await load(key), "source"]; // do not store it: the cache would not answer either
    }
    if (found.value !== undefined) return [found.value, "cache"];
    const token = /^won;token="([^"]*)"/.exec(found.lease)?.[1];
    const headers: Record<string, string> = token ? { "Cache-Lease": token } : {};
    let loaded: T;
    try {
      loaded = await load(key);
    } catch (problem) {
      // Give the lease up: the next program need not wait until it ends.
      if (token) await this.succeeds("DELETE", key, { headers }, "/lease");
      throw problem;
    }
    // If another program has the lease, it stores the value.
    if (!found.lease.startsWith("held")) {
      // 412 `lease_lost` means that the key changed during the load. Then nothing is stored, which is right.
      await this.succeeds("PUT", key, { headers, body: JSON.stringify({ value: loaded, ttl: this.ttl }) });
    }
    return [loaded, "source"];
  }

  /** Call this after the source has changed. False: the cache may serve the old value until its TTL ends. */
  async changed(key: string): Promise<boolean> {
    for (let attempt = 0; attempt < 3; attempt++) {
      if (await this.succeeds("DELETE", key)) return true; // 200 or 404
      // Also after `outcome_unknown`: deleting again is safe and makes the outcome clear.
      await new Promise((resolve) => setTimeout(resolve, 50 * 2 ** attempt));
    }
    return false;
  }

  /** The value, or the answer's `Cache-Lease`, which names the state of the lease on the key. */
  private async get<T>(key: string): Promise<{ value?: T; lease: string }> {
    if (performance.now() < this.resume) throw new Unavailable("the cache did not answer a moment ago");
    let answer = await this.call("GET", key, { headers: { Prefer: `lease=${LEASE_S}` } });
    if (answer.lease.startsWith("held")) {
      // Another program is loading the value. The service answers, so waiting may take longer than the timeout.
      const headers = { Prefer: `lease=${LEASE_S}, wait=${WAIT_S}` };
      answer = await this.call("GET", key, { headers }, "", WAIT_S * 1000 + WHOLE_TIMEOUT_MS);
    }
    if (answer.status === 404) return { lease: answer.lease };
    const entry = JSON.parse(answer.body);
    if (!("value" in entry)) throw new Unavailable(`no entry: ${answer.body}`);
    return { value: entry.value, lease: answer.lease };
  }

  private async succeeds(method: string, key: string, init: RequestInit = {}, suffix = ""): Promise<boolean> {
    try {
      await this.call(method, key, init, suffix);
      return true;
    } catch (problem) {
      console.error(`${method} ${key}: ${problem}`);
      return false;
    }
  }

  private async call(method: string, key: string, init: RequestInit, suffix = "", timeout = WHOLE_TIMEOUT_MS) {
    let answer: { status: number; lease: string; body: string };
    try {
      // The signal also limits the time for reading the body.
      const signal = AbortSignal.timeout(timeout);
      const response = await fetch(this.base + encodeURIComponent(key) + suffix, { ...init, method, signal });
      const lease = response.headers.get("Cache-Lease") ?? "";
      answer = { status: response.status, lease, body: await response.text() };
    } catch (problem) {
      this.resume = performance.now() + REST_MS;
      throw new Unavailable(String(problem));
    }
    const isMiss = answer.status === 404 && answer.body.includes('"key_not_found"');
    if (answer.status !== 200 && answer.status !== 201 && !isMiss) throw new Unavailable(`${answer.status} ${answer.body}`);
    return answer;
  }
}

/** Reads lines from stdin: `read KEY`, or `change KEY VALUE` with a value in JSON. */
async function main(address: string, namespace: string): Promise<void> {
  const cache = new Cache(`http://${address}`, namespace, 300);
  const source = new Map<string, unknown>(); // in your program: the database
  const load = async (key: string): Promise<unknown> => {
    if (!source.has(key)) throw new Error("not in the source");
    return source.get(key);
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const [word, key, ...value] = line.split(" ");
    if (word === "change") {
      source.set(key, JSON.parse(value.join(" ")));
      console.log((await cache.changed(key)) ? "changed" : "changed, and the cache does not know");
      continue;
    }
    try {
      const [value, origin] = await cache.read(key, load);
      console.log(origin, JSON.stringify(value));
    } catch (problem) {
      console.log(`error: ${(problem as Error).message}`);
    }
  }
}

main(process.argv[2], process.argv[3]);
