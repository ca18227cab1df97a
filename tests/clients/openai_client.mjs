// A user's program with OpenAI's JavaScript client; prints what it got as JSON.
import OpenAI from "openai";
import { VERSION } from "openai/version";

const cases = JSON.parse(process.env.CASES);
const { model, hello } = cases;
const later = { role: "user", content: "and now?" };
const client = (apiKey = cases.key, maxRetries = 0) =>
  new OpenAI({ baseURL: cases.url, apiKey, maxRetries });
const ask = (messages = hello, more = {}) =>
  client().chat.completions.create({ model, messages, seed: 1, ...more });

async function all(stream) {
  const found = [];
  for await (const item of await stream) found.push(item);
  return found;
}

async function refusal(act) {
  try {
    await act();
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.code ?? null, error.param ?? null, error.message];
  }
  return [];
}

// The helper that gathers a stream, with its own checks of the chunks.
async function gathered() {
  const stream = client().chat.completions.stream({
    model,
    messages: hello,
    seed: 1,
    stream_options: { include_usage: true },
  });
  const pieces = [];
  stream.on("content", (text) => pieces.push(text));
  return [pieces, await stream.finalChatCompletion()];
}

async function responses() {
  const asked = { model, seed: 1 };
  const whole = await client().responses.create({ ...asked, input: "hello" });
  const events = await all(client().responses.create({ ...asked, input: "hello", stream: true }));
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  const talk = [...hello, ...whole.output, later];
  return {
    texts: [whole.output_text, deltas.map((event) => event.delta).join("")],
    reasoning: whole.output.filter((item) => item.type === "reasoning").map((item) => item.summary[0].text),
    talk: (await client().responses.create({ ...asked, input: talk })).output_text,
    refused: await refusal(() => client().responses.create({ ...asked, input: cases.overflow })),
    kept: await refusal(() => client().responses.create({ ...asked, previous_response_id: whole.id })),
  };
}

// A key for one answer at a time: refused while another is written, and let in behind it.
async function busy() {
  const stream = await client(cases.alone).chat.completions.create({ model: "slow", messages: hello, stream: true });
  const chunks = stream[Symbol.asyncIterator]();
  for (let n = 0; n < 3; n++) await chunks.next();
  const refused = await refusal(() => client(cases.alone).chat.completions.create({ model, messages: hello }));
  setTimeout(() => stream.controller.abort(), 200);
  const again = await client(cases.alone, 3).chat.completions.create({ model, messages: hello });
  return { read: 3, refused, again: again.choices[0].message.content };
}

const whole = await ask();
const [pieces, final] = await gathered();
const shown = await ask(hello, { moa: { events: true } });
const streamed = await all(ask(hello, { stream: true, moa: { events: true } }));
const long = await ask(cases.long);
const longer = await all(ask(cases.long, { stream: true }));

console.log(
  JSON.stringify({
    client: `openai ${VERSION}`,
    models: (await all(client().models.list())).map((card) => card.id),
    whole: whole.choices[0].message.content,
    finish: whole.choices[0].finish_reason,
    pieces,
    tokens: [whole.usage.total_tokens, final.usage.total_tokens],
    talk: (await ask(cases.talk)).choices[0].message.content,
    again: (await ask([...hello, whole.choices[0].message, later])).choices[0].message.content,
    proposals: shown.moa.proposals.map((proposal) => proposal.text),
    events: streamed.filter((chunk) => chunk.moa).map((chunk) => chunk.moa.type),
    degraded: [
      long.moa.degraded,
      long.system_fingerprint,
      longer.filter((chunk) => chunk.moa).map((chunk) => chunk.moa.degraded),
      longer.at(-1).system_fingerprint,
    ],
    responses: await responses(),
    busy: await busy(),
    errors: {
      unknown: await refusal(() => ask(hello, { model: "nobody" })),
      broken: await refusal(() => ask(hello, { model: "broken" })),
      key: await refusal(() => client("wrong").models.list()),
      overflow: await refusal(() => ask(cases.overflow)),
      "streamed overflow": await refusal(() => all(ask(cases.overflow, { stream: true }))),
      parameter: await refusal(() => ask(hello, { n: 2 })),
      tools: await refusal(() => ask(hello, { tool_choice: "required" })),
      form: await refusal(() => ask(hello, { response_format: { type: "json_object" } })),
      stream: await refusal(() => cases.silent && all(ask(hello, { model: "silent", stream: true }))),
    },
  }),
);
