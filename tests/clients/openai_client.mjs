// A user's program with OpenAI's JavaScript client; prints what it got as JSON.
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const talk = [
  { role: "system", content: "Be short." },
  { role: "user", content: "hello" },
  { role: "assistant", content: "hi" },
  { role: "user", content: [{ type: "text", text: "and now?" }] },
];

async function refusal(name) {
  try {
    await client.chat.completions.create({ model: name, messages });
  } catch (error) {
    return [error.constructor.name, error.status, error.code];
  }
  return [];
}

const whole = await client.chat.completions.create({ model, messages, seed: 1 });
// The helper that gathers a stream, with its own checks of the chunks.
const stream = client.chat.completions.stream({
  model,
  messages,
  seed: 1,
  stream_options: { include_usage: true },
});
const pieces = [];
stream.on("content", (text) => pieces.push(text));
const gathered = await stream.finalChatCompletion();
const response = await client.responses.create({ model, input: "hello", seed: 1 });
const deltas = [];
for await (const event of await client.responses.create({ model, input: "hello", seed: 1, stream: true })) {
  if (event.type === "response.output_text.delta") deltas.push(event.delta);
}
const models = [];
for await (const card of client.models.list()) models.push(card.id);
const later = await client.chat.completions.create({ model, messages: talk, seed: 1 });

console.log(
  JSON.stringify({
    models,
    whole: whole.choices[0].message.content,
    finish: whole.choices[0].finish_reason,
    pieces,
    tokens: [whole.usage.total_tokens, gathered.usage.total_tokens],
    talk: later.choices[0].message.content,
    responses: [response.output_text, deltas.join("")],
    unknown: await refusal("nobody"),
    broken: await refusal("broken"),
  }),
);
