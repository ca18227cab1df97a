// A user's program with Vercel's AI SDK: @ai-sdk/openai-compatible, or @ai-sdk/openai, whose models use the
// Responses API. Prints what it got as JSON.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const cases = JSON.parse(process.env.CASES);
const compatible = process.argv[2] === "compatible";
const user = (content) => [{ role: "user", content }];
globalThis.AI_SDK_LOG_WARNINGS = false;

// Both providers send the seed, or leave it out, by their own rules: answers are compared by their length.
function model(name = cases.model, apiKey = cases.key) {
  const settings = { name: "slimmoa", baseURL: cases.url, apiKey, includeUsage: true };
  return compatible ? createOpenAICompatible(settings)(name) : createOpenAI({ baseURL: cases.url, apiKey })(name);
}
const ask = (more) => generateText({ model: model(), messages: cases.hello, maxRetries: 0, ...more });

async function refusal(act) {
  try {
    await act();
  } catch (error) {
    return [error.name, error.statusCode ?? null, error.data?.error?.code ?? error.lastError?.name ?? null, error.message];
  }
  return [];
}

async function stream(more = {}) {
  let failure;
  const result = streamText({
    model: model(), messages: cases.hello, maxRetries: 0, includeRawChunks: true,
    onError: ({ error }) => (failure = error), ...more,
  });
  const pieces = [], reasoning = [], events = [];
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") pieces.push(part.text);
    if (part.type === "reasoning-delta") reasoning.push(part.text);
    if (part.type === "raw" && part.rawValue?.moa) events.push(part.rawValue.moa.type);
  }
  if (failure) throw failure;
  return { pieces, reasoning, events, usage: await result.usage, messages: (await result.response).messages };
}

async function busy() {
  const leave = new AbortController();
  const result = streamText({
    model: model("slow", cases.alone), messages: cases.hello, abortSignal: leave.signal, onError: () => {},
  });
  const texts = result.textStream[Symbol.asyncIterator]();
  for (let n = 0; n < 3; n++) await texts.next();
  const alone = (maxRetries) => ask({ model: model(cases.model, cases.alone), maxRetries });
  const refused = await refusal(() => alone(0));
  setTimeout(() => leave.abort(), 200);
  const again = (await alone(3)).text;
  return { read: 3, refused, again };
}

const later = (messages) => [...cases.hello, ...messages, ...user("and now?")];
const options = (own) => ({ providerOptions: compatible ? { slimmoa: own } : { openai: own } });
const whole = await ask();
const streamed = await stream(compatible ? options({ moa: { events: true } }) : {});
const long = await ask({ messages: cases.long });
const weather = tool({ inputSchema: z.object({ town: z.string() }), execute: async () => "rain" });
const report = {
  client: `ai, ${compatible ? "@ai-sdk/openai-compatible" : "@ai-sdk/openai"}`,
  whole: whole.text,
  finish: whole.finishReason,
  pieces: streamed.pieces,
  tokens: [whole.usage.totalTokens, streamed.usage.totalTokens],
  talk: (await ask({ messages: cases.talk })).text,
  reasoning: whole.reasoningText ?? null,
  streamed_reasoning: streamed.reasoning.join(""),
  events: streamed.events,
  degraded: [long.response.body?.moa?.degraded ?? null, long.response.body?.system_fingerprint ?? null],
  second: await refusal(() => ask({ messages: later(streamed.messages) })),
  again: (await ask({ messages: later(streamed.messages), ...options({ store: false }) })).text,
  busy: await busy(),
  tools: await refusal(() => ask({ tools: { weather } })),
  errors: {
    unknown: await refusal(() => ask({ model: model("nobody") })),
    broken: await refusal(() => ask({ model: model("broken") })),
    key: await refusal(() => ask({ model: model(cases.model, "wrong") })),
    overflow: await refusal(() => ask({ messages: cases.overflow })),
    "streamed overflow": await refusal(() => stream({ messages: cases.overflow })),
    tools: await refusal(() => ask({ tools: { weather }, toolChoice: "required" })),
    form: await refusal(() =>
      generateObject({ model: model(), messages: cases.hello, schema: z.object({ town: z.string() }), maxRetries: 0 })),
    stream: await refusal(() => cases.silent && stream({ model: model("silent") })),
  },
};
console.log(JSON.stringify(report));
