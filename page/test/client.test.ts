import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import test from "node:test";
import type { Chunk } from "../src/answer/chunks.ts";
import { Client, type Question } from "../src/api/client.ts";
import { advice, Problem, problemOf, remedy } from "../src/api/problem.ts";
import { readStream } from "../src/api/stream.ts";

const QUESTION: Question = { model: "sky", messages: [{ role: "user", content: "Hello" }] };
const CHUNK = `data: {"choices":[{"delta":{"content":"é"},"finish_reason":null}]}\n\n`;
const ALIVE = `: keep-alive\ndata: {"choices":[{"delta":{"content":""},"finish_reason":null}]}\n\n`;

function bytes(...parts: (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(typeof part === "string" ? new TextEncoder().encode(part) : part);
      controller.close();
    },
  });
}

async function read(...parts: (string | Uint8Array)[]): Promise<Chunk[]> {
  const seen: Chunk[] = [];
  await readStream(bytes(...parts), (chunks) => seen.push(...chunks));
  return seen;
}

async function problem(work: Promise<unknown>): Promise<Problem> {
  return work.then(
    () => assert.fail("nothing was thrown"),
    (error: unknown) => (error instanceof Problem ? error : assert.fail(String(error))),
  );
}

/** Answer the requests of `work` by `answer`. */
async function serving(
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void,
  work: (client: Client) => Promise<void>,
  key = "",
) {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("end", () => answer(request, response, body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  try {
    await work(new Client(() => key, `http://127.0.0.1:${port}/moa/`));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("a stream is read to its end, signs of life and cut letters included", async () => {
  const whole = new TextEncoder().encode(CHUNK);
  const at = whole.indexOf(0xc3) + 1; // in the middle of the letter
  const chunks = await read(ALIVE, whole.slice(0, at), whole.slice(at), CHUNK, "data: [DONE]\n\n");
  assert.deepEqual(
    chunks.map((chunk) => chunk.choices![0]!.delta.content),
    ["", "é", "é"],
  );
});

test("a stream that ends too early is broken, and what came was passed on", async () => {
  const seen: Chunk[] = [];
  const error = await problem(readStream(bytes(CHUNK), (chunks) => seen.push(...chunks)));
  assert.equal(error.code, "broken");
  assert.equal(seen.length, 1);
});

test("what is not JSON is not an answer", async () => {
  assert.equal((await problem(read("data: <html>\n\n"))).code, "not_the_api");
});

test("a question is sent as the page needs it, below the path of a proxy, with the key in its header alone", async () => {
  await serving(
    (request, response, body) => {
      assert.equal(request.url, "/moa/v1/chat/completions");
      assert.equal(request.headers.authorization, "Bearer sk-1");
      assert.deepEqual(JSON.parse(body), {
        ...QUESTION,
        stream: true,
        stream_options: { include_usage: true },
        moa: { events: true, fuse: { proposals: [{ model: "a", text: "x" }], aggregator: "b" } },
      });
      response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
      response.end(`${CHUNK}data: [DONE]\n\n`);
    },
    async (client) => {
      const seen: Chunk[] = [];
      const fuse = { proposals: [{ model: "a", text: "x" }], aggregator: "b" };
      await client.ask({ ...QUESTION, fuse }, new AbortController().signal, (chunks) => seen.push(...chunks));
      assert.equal(seen.length, 1);
    },
    "sk-1",
  );
});

test("stopping closes the connection", async () => {
  let closed: () => void;
  const isClosed = new Promise<void>((resolve) => (closed = resolve));
  await serving(
    (_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(CHUNK);
      response.on("close", () => closed());
    },
    async (client) => {
      const abort = new AbortController();
      const work = client.ask(QUESTION, abort.signal, () => abort.abort());
      await assert.rejects(work, { name: "AbortError" });
      await isClosed;
    },
  );
});

test("errors have the server's words, its code, and what to do", async () => {
  const error = { message: "a model's queue is full", code: "overloaded", type: "rate_limit_error" };
  await serving(
    (_, response) => {
      response.writeHead(429, { "content-type": "application/json", "retry-after": "12" });
      response.end(JSON.stringify({ error }));
    },
    async (client) => {
      const found = await problem(client.ask(QUESTION, new AbortController().signal, () => undefined));
      assert.deepEqual(
        [found.message, found.code, found.status, found.retryAfterS],
        [error.message, "overloaded", 429, 12],
      );
      assert.equal(advice(found), "Retry in 12 seconds.");
    },
  );
});

test("a server that is away, and one that is another, are told apart", async () => {
  const away = new Client(() => "", "http://127.0.0.1:1/");
  assert.equal((await problem(away.models())).code, "unreachable");
  await serving(
    (_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<html>"),
    async (client) => {
      assert.equal((await problem(client.models())).code, "not_the_api");
      assert.equal(
        (await problem(client.ask(QUESTION, new AbortController().signal, () => undefined))).code,
        "not_the_api",
      );
    },
  );
});

const REFUSALS: [number, string | null, RegExp, string][] = [
  [401, "invalid_api_key", /valid key/, "key"],
  [403, "permission_denied", /localhost/, "none"],
  [404, "model_not_found", /another model/, "models"],
  [429, "rate_limit_exceeded", /in a moment/, "later"],
  [503, "engine_unavailable", /starting or lost/, "later"],
  [503, null, /in a moment/, "later"],
  [404, null, /proxy/, "none"],
  [502, "only_reasoning", /in a moment/, "none"],
];

for (const [status, code, what, next] of REFUSALS) {
  test(`${status} ${code ?? "without a code"} says what to do`, () => {
    assert.match(advice({ status, code }), what);
    assert.equal(remedy({ status, code }), next);
  });
}

test("a body that is not the server's is not shown", () => {
  assert.equal(
    problemOf(502, "text/html", "<h1>nginx</h1>", null).message,
    "A proxy before the server answered with HTTP status 502 instead of SlimMoA.",
  );
  assert.equal(problemOf(400, "application/json", "not json", "soon").retryAfterS, null);
});
