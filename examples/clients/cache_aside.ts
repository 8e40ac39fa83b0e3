// A cache-aside client of sidecache; Node 20 or later, or any runtime with fetch.

import { createInterface } from "node:readline";

const WHOLE_TIMEOUT_MS = 400; // the only timeout that fetch has; more than the service's redis_timeout_ms
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
    let answer: { value: T } | undefined;
    try {
      answer = await this.get<T>(key);
    } catch (problem) {
      console.error(`reading ${key} from the source: ${problem}`);
      return [await load(key), "source"]; // do not store it: the cache would not answer either
    }
    if (answer) return [answer.value, "cache"];
    const loaded = await load(key);
    // Jitter: values that are stored at the same time should not expire at the same time.
    const ttl = Math.max(1, Math.round(this.ttl * (0.9 + 0.2 * Math.random())));
    try {
      await this.call("PUT", key, JSON.stringify({ value: loaded, ttl }));
    } catch (problem) {
      console.error(`${key} is not cached: ${problem}`);
    }
    return [loaded, "source"];
  }

  /** Call this after the source has changed. False: the cache may serve the old value until its TTL ends. */
  async changed(key: string): Promise<boolean> {
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        await this.call("DELETE", key); // 200 or 404
        return true;
      } catch (problem) { // also `outcome_unknown`: deleting again is safe and makes it clear
        console.error(`${key}, attempt ${attempt + 1}: ${problem}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50 * 2 ** attempt));
    }
    return false;
  }

  private async get<T>(key: string): Promise<{ value: T } | undefined> {
    if (performance.now() < this.resume) throw new Unavailable("the cache did not answer a moment ago");
    const { status, body } = await this.call("GET", key);
    if (status === 404) return undefined;
    const entry = JSON.parse(body);
    if (!("value" in entry)) throw new Unavailable(`no entry: ${body}`);
    return entry;
  }

  private async call(method: string, key: string, body?: string): Promise<{ status: number; body: string }> {
    let answer: { status: number; body: string };
    try {
      // The signal also limits the time for reading the body.
      const signal = AbortSignal.timeout(WHOLE_TIMEOUT_MS);
      const response = await fetch(this.base + encodeURIComponent(key), { method, body, signal });
      answer = { status: response.status, body: await response.text() };
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
