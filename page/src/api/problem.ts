/** What went wrong with a request, in words, and what a person can do about it. */

export type Remedy = "key" | "models" | "later" | "none";

export class Problem extends Error {
  constructor(
    message: string,
    /** The cause, for programs: the server's code, or `unreachable`, `broken` or `not_the_api`. */
    readonly code: string | null,
    /** The HTTP status; null if there was none. */
    readonly status: number | null,
    /** Seconds after which the server wants to be asked again; null if it did not say. */
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }
}

/** The problem that an answer with an HTTP status of 400 or more tells of. */
export function problemOf(status: number, contentType: string, body: string, retryAfter: string | null): Problem {
  const retryAfterS = retryAfter && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
  const error = contentType.includes("json") ? errorIn(body) : null;
  if (error) return new Problem(forReaders(error.message), error.code, status, retryAfterS);
  const who = status === 502 || status === 503 || status === 504 ? "A proxy before the server" : "Something else";
  const message = `${who} answered with HTTP status ${status} instead of SlimMoA.`;
  return new Problem(message, "not_the_api", status, retryAfterS);
}

/** The server's words without what only programs need. */
function forReaders(message: string): string {
  return message.replace(": Authorization: Bearer KEY", "");
}

function errorIn(body: string): { message: string; code: string | null } | null {
  try {
    const { error } = JSON.parse(body) as { error?: { message?: unknown; code?: unknown } };
    if (typeof error?.message !== "string") return null;
    return { message: error.message, code: typeof error.code === "string" ? error.code : null };
  } catch {
    return null;
  }
}

/** What a person can do, in a sentence or two; empty where the server's own words say it all. */
export function advice(problem: { code: string | null; status: number | null; retryAfterS?: number | null }): string {
  const when = problem.retryAfterS ? `in ${seconds(problem.retryAfterS)}` : "in a moment";
  switch (problem.code) {
    case "unreachable":
      return "Check that the server runs and that this machine reaches it, then retry.";
    case "broken":
      return "The text so far is kept. Retry to ask again.";
    case "invalid_api_key":
      return "Type a valid key. Whoever runs the server makes one with `slimmoa keys new`.";
    case "permission_denied":
      return (
        "Open this page on the server's own machine, under the name localhost. " +
        "Or ask whoever runs the server for keys, or for `access.open` in the recipe."
      );
    case "model_not_found":
      return "Choose another model at the top of the page.";
    case "context_length_exceeded":
      return "Begin a new chat, or ask a shorter question.";
    case "rate_limit_exceeded":
    case "overloaded":
      return `Retry ${when}.`;
    case "engine_unavailable":
    case "no_replica":
      return `The engine is starting or lost. Retry ${when}.`;
    case "content_filter":
      return "Ask in other words.";
  }
  switch (problem.status) {
    case 401:
      return "Type a valid key.";
    case 404:
      return "The page asked for an address that is not there. Is a proxy between the page and the server?";
    case 429:
    case 502:
    case 503:
    case 504:
      return `Retry ${when}.`;
  }
  return "";
}

export function remedy(problem: { code: string | null; status: number | null }): Remedy {
  if (problem.status === 401 || problem.code === "invalid_api_key") return "key";
  if (problem.code === "model_not_found") return "models";
  return problem.status === 429 || problem.status === 503 ? "later" : "none";
}

function seconds(count: number): string {
  return count === 1 ? "1 second" : `${count} seconds`;
}

/** Whatever was thrown, as a problem. */
export function asProblem(thrown: unknown): Problem {
  if (thrown instanceof Problem) return thrown;
  const words = thrown instanceof Error ? thrown.message : String(thrown);
  return new Problem(`The page has a defect: ${words}`, "defect", null);
}
