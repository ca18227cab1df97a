/** The server-sent events of an answer, from the bytes of a response to chunks. */
import { createParser } from "eventsource-parser";
import type { Chunk } from "../answer/chunks.ts";
import { Problem } from "./problem.ts";

const BROKEN = "The connection broke before the answer was whole.";

/**
 * Read a stream to its end. `onChunks` gets the chunks of each piece that arrives; signs of life give an
 * empty list.
 *
 * Throws a Problem if the stream ends before `[DONE]`, or holds something that is not a chunk.
 */
export async function readStream(body: ReadableStream<Uint8Array>, onChunks: (chunks: Chunk[]) => void): Promise<void> {
  let chunks: Chunk[] = [];
  let isDone = false;
  const parser = createParser({
    onEvent: ({ data }) => {
      if (data === "[DONE]") isDone = true;
      else chunks.push(chunkIn(data));
    },
  });
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    while (!isDone) {
      const { done, value } = await read(reader);
      if (done) throw new Problem(BROKEN, "broken", null);
      parser.feed(decoder.decode(value, { stream: true }));
      onChunks(chunks);
      chunks = [];
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

async function read(reader: ReadableStreamDefaultReader<Uint8Array>) {
  try {
    return await reader.read();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(BROKEN, "broken", null);
  }
}

function chunkIn(data: string): Chunk {
  try {
    const chunk: unknown = JSON.parse(data);
    if (typeof chunk === "object" && chunk !== null) return chunk as Chunk;
  } catch {
    // said below
  }
  throw new Problem("The server sent something that is not an answer.", "not_the_api", null);
}
