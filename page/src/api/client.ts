/** Requests to the server that this page came from. */
import type { Chunk } from "../answer/chunks.ts";
import { Problem, problemOf } from "./problem.ts";
import type { ServerState } from "./state.ts";
import { readStream } from "./stream.ts";

/** How long a question that is answered at once may take. */
const PATIENCE_MS = 15_000;

export interface Message {
  role: "user" | "assistant";
  content: string;
}

/** How one answer is made from given proposals; docs/methods.md describes the methods. */
export type FuseMethod = "merge" | "select" | "select_or_merge" | "vote";

/** Proposals for the aggregator, without any layer. By default the recipe gives the aggregator and the method. */
export interface Fuse {
  proposals: { model: string; text: string }[];
  aggregator?: string;
  method?: FuseMethod;
}

export interface Question {
  model: string;
  messages: Message[];
  fuse?: Fuse;
}

export interface Model {
  id: string;
  owned_by: string;
  context_length: number;
}

export class Client {
  /**
   * keyOf: gives the key to send; empty for none.
   * base: the address of the page, so that a path of a proxy before `/v1` is kept.
   */
  constructor(
    private readonly keyOf: () => string,
    private readonly base: string = document.baseURI,
  ) {}

  async models(): Promise<Model[]> {
    return (await this.json<{ data: Model[] }>("v1/models")).data;
  }

  state(): Promise<ServerState> {
    return this.json<ServerState>("v1/state");
  }

  /**
   * Ask for an answer and read it while it is written.
   *
   * Throws a Problem, or the signal's AbortError once the signal aborts.
   */
  async ask(question: Question, signal: AbortSignal, onChunks: (chunks: Chunk[]) => void): Promise<void> {
    const { model, messages, fuse } = question;
    const request = {
      model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
      moa: { events: true, ...(fuse && { fuse }) },
    };
    const body = JSON.stringify(request);
    const response = await this.fetch("v1/chat/completions", { method: "POST", body, signal });
    if (!isType(response, "text/event-stream") || !response.body) throw notTheApi(response);
    await readStream(response.body, onChunks);
  }

  private async json<T>(path: string): Promise<T> {
    const response = await this.fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!isType(response, "application/json")) throw notTheApi(response);
    return (await response.json()) as T;
  }

  private async fetch(path: string, more: RequestInit): Promise<Response> {
    const headers: Record<string, string> = {};
    if (more.body) headers["Content-Type"] = "application/json";
    const key = this.keyOf();
    if (key) headers["Authorization"] = `Bearer ${key}`;
    let response: Response;
    try {
      const fixed: RequestInit = { cache: "no-store", credentials: "same-origin", redirect: "error" };
      response = await fetch(new URL(path, this.base), { ...fixed, ...more, headers });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new Problem("The server does not answer.", "unreachable", null);
    }
    if (response.ok) return response;
    const type = response.headers.get("content-type") ?? "";
    const words = await response.text().catch(() => "");
    throw problemOf(response.status, type, words, response.headers.get("retry-after"));
  }
}

function isType(response: Response, type: string): boolean {
  return (response.headers.get("content-type") ?? "").startsWith(type);
}

function notTheApi(response: Response): Problem {
  return new Problem("What answered is not SlimMoA's API.", "not_the_api", response.status);
}
