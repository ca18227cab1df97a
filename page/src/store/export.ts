/** Chats as files: JSON that can be imported again, Markdown for people, and votes for `slimmoa bench score`. */
import { isNotNeeded, methodName, placeWords } from "../answer/method_words.ts";
import { chosenOf } from "../answer/reduce.ts";
import { METHODS } from "../answer/types.ts";
import type { Answer, Chat, Missing, Proposal, Reference, Stage, Vote } from "../answer/types.ts";
import { secondsInWords } from "../text/seconds.ts";
import { boolean, ImportError, listOf, number, object, oneOf, or, orNull, text, type Read } from "./checks.ts";

const FORMAT = "slimmoa-chats";
const VERSION = 1;
/** A larger file is refused before it is read. */
export const LARGEST_IMPORT = 200_000_000;

/** All of some chats as JSON, for `importChats`. */
export function chatsAsJson(chats: Chat[]): string {
  return `${JSON.stringify({ format: FORMAT, version: VERSION, chats }, null, 1)}\n`;
}

/** One chat as JSON, for `importChats`. */
export function chatAsJson(chat: Chat): string {
  return chatsAsJson([chat]);
}

const reference: Read<Reference> = object<Reference>({ layer: number, place: number });

const proposal = object<Proposal>(
  {
    layer: number,
    place: number,
    model: text,
    phase: oneOf("waits", "thinks", "writes", "done", "dropped"),
    text,
    startedS: number,
    firstS: orNull(number),
    seconds: orNull(number),
    engineS: orNull(number),
    tokens: orNull(number),
    cause: orNull(text),
    detail: orNull(text),
  },
  { textS: orNull(number) },
);

const stage = object<Stage>({
  name: text,
  models: listOf(text),
  references: listOf(reference),
  startedS: number,
  firstS: orNull(number),
  seconds: orNull(number),
});

const answer = object<Answer>(
  {
    id: text,
    model: text,
    question: text,
    askedAt: number,
    phase: oneOf("waits", "proposes", "aggregates", "done", "stopped", "failed"),
    proposals: or([], listOf(proposal)),
    stages: or([], listOf(stage)),
    text,
    reasoning: or("", text),
    answeredBy: orNull(text),
    fallback: orNull(oneOf("aggregator", "reference")),
    cut: or(false, boolean),
    degraded: or(false, boolean),
    missing: or([], listOf(object<Missing>({ layer: number, model: text, cause: text, detail: text }))),
    trimmed: or([], listOf(object<Answer["trimmed"][number]>({ layer: number, model: text, tokens_removed: number }))),
    retried: or([], listOf(object<Answer["retried"][number]>({ layer: number, model: text, detail: text }))),
    seed: orNull(number),
    finishReason: orNull(text),
    promptTokens: orNull(number),
    completionTokens: orNull(number),
    allTokens: orNull(number),
    totalS: orNull(number),
    fusedFrom: orNull(text),
    error: orNull(
      object<NonNullable<Answer["error"]>>({ message: text, code: orNull(text), status: orNull(number) }),
    ),
  },
  { retryOf: text, method: oneOf(...METHODS), order: oneOf("seeded", "arrival"), why: text, chosen: reference },
);

const vote = object<Vote>({
  answerId: text,
  member: object<Vote["member"]>({ layer: number, place: number, model: text }),
  first: oneOf("mixture", "member"),
  preferred: oneOf("first", "second", "tie"),
  at: number,
  namesAModel: boolean,
});

const chat = object<Chat>({
  id: text,
  title: text,
  createdAt: number,
  answers: listOf(answer),
  votes: or([], listOf(vote)),
});

/**
 * The chats of a file that `chatsAsJson` wrote.
 *
 * An answer that was being written when the file was made is imported as stopped.
 *
 * Raises:
 *   ImportError: the file is not such a file; the message names the field, the value and what is allowed.
 */
export function importChats(file: string): Chat[] {
  if (file.length > LARGEST_IMPORT) {
    throw new ImportError(`The file has ${file.length} characters. Allowed are ${LARGEST_IMPORT}.`);
  }
  const whole = parsed(file);
  const { format, version } = object({ format: or("", text), version: or(0, number) })(whole, "The file");
  if (format !== FORMAT) {
    throw new ImportError(`The file is no export of this page: its field "format" is not "${FORMAT}".`);
  }
  if (version !== VERSION) {
    throw new ImportError(`The file has version ${version} of the format. This page reads version ${VERSION}.`);
  }
  const { chats } = object({ chats: listOf(chat) })(whole, "The file");
  for (const each of chats) each.answers = each.answers.map(ended);
  const ids = new Set(chats.map(({ id }) => id));
  if (ids.size < chats.length) throw new ImportError("Two chats of the file have the same id.");
  return chats;
}

function parsed(file: string): unknown {
  try {
    return JSON.parse(file.replace(/^\ufeff/, ""));
  } catch (error) {
    throw new ImportError(`The file is not JSON: ${error instanceof Error ? error.message : "it cannot be read"}.`);
  }
}

function ended(each: Answer): Answer {
  const running = each.phase === "waits" || each.phase === "proposes" || each.phase === "aggregates";
  return running ? { ...each, phase: "stopped" } : each;
}

/** One chat as Markdown: questions, proposals and answers, with how each came about. */
export function chatAsMarkdown(each: Chat): string {
  const parts = [`# ${oneLine(each.title)}`, `Asked on ${date(each.createdAt)} with SlimMoA.`];
  for (const one of each.answers) parts.push(...answerAsMarkdown(one));
  return `${parts.join("\n\n")}\n`;
}

function answerAsMarkdown(one: Answer): string[] {
  const parts = ["## Question", one.question];
  for (const each of one.proposals) {
    parts.push(`### Proposal ${each.place + 1} of layer ${each.layer}: ${oneLine(each.model)}`, `*${proposalFacts(each)}*`);
    if (each.text) parts.push(each.text);
  }
  parts.push(`## Answer${one.answeredBy ? ` by ${oneLine(one.answeredBy)}` : ""}`);
  if (one.text) parts.push(one.text);
  if (one.error) parts.push(`Error: ${oneLine(one.error.message)}`);
  parts.push(`*${answerFacts(one)}*`);
  return parts;
}

function proposalFacts(proposal: Proposal): string {
  const { phase, seconds, tokens, detail, cause } = proposal;
  const how = isNotNeeded(proposal) ? "not needed" : "dropped";
  const facts = [phase === "dropped" ? `${how}: ${oneLine(detail ?? cause ?? "no cause is known")}` : phase];
  if (seconds !== null) facts.push(secondsInWords(seconds));
  if (tokens !== null) facts.push(`${tokens} tokens`);
  return facts.join(", ");
}

function answerFacts(one: Answer): string {
  const facts = [`asked on ${date(one.askedAt)}`, `recipe or model ${oneLine(one.model)}`, one.phase];
  if (one.degraded) facts.push("degraded");
  if (one.fallback === "aggregator") facts.push("written by a fallback aggregator");
  if (one.fallback === "reference") facts.push("a proposal as it stands");
  const [method, chosen] = [methodName(one), chosenOf(one)];
  if (method) facts.push(`method ${method}`);
  if (one.why) facts.push(oneLine(one.why));
  if (chosen) facts.push(`the answer is ${placeWords(chosen, one)}`);
  if (one.cut) facts.push("cut by the deadline");
  if (one.totalS !== null) facts.push(secondsInWords(one.totalS));
  if (one.completionTokens !== null) facts.push(`${one.completionTokens} tokens`);
  if (one.seed !== null) facts.push(`seed ${one.seed}`);
  const order = one.stages.at(-1)?.references ?? [];
  if (order.length > 0) facts.push(`proposals read in the order ${order.map((each) => each.place + 1).join(", ")}`);
  return facts.join(", ");
}

function date(ms: number): string {
  if (Math.abs(ms) > 8.64e15) return "an unknown day";
  return new Date(ms).toISOString().slice(0, 16).replace("T", " ").concat(" UTC");
}

function oneLine(words: string): string {
  return words.replace(/\s+/g, " ").trim();
}

/** A row of alpaca_eval's annotations. `preference` is 1 for the first text, 2 for the second, 1.5 for a tie. */
export interface VoteRow {
  instruction: string;
  output_1: string;
  output_2: string;
  generator_1: string;
  generator_2: string;
  preference: 1 | 1.5 | 2;
}

/**
 * The blind votes of chats as alpaca_eval's annotation rows: the member's text first, as alpaca_eval has its
 * baseline, and the mixture's second. The order in which the texts were shown is in the chats' own export.
 *
 * Votes on answers that are no longer there are left out, and second votes on the same texts, which would count
 * twice.
 *
 * @param withNamed whether to have votes whose texts name a model too
 */
export function votesAsRows(chats: Chat[], withNamed: boolean): VoteRow[] {
  const rows = new Map<string, VoteRow>();
  for (const each of chats) {
    const answers = new Map(each.answers.map((one) => [one.id, one]));
    for (const one of each.votes) {
      const row = withNamed || !one.namesAModel ? voteAsRow(one, answers.get(one.answerId)) : null;
      const texts = row && JSON.stringify({ ...row, preference: null });
      if (row && texts && !rows.has(texts)) rows.set(texts, row);
    }
  }
  return [...rows.values()];
}

function voteAsRow(one: Vote, voted: Answer | undefined): VoteRow | null {
  const member = voted?.proposals.find(({ layer, place }) => layer === one.member.layer && place === one.member.place);
  if (!voted || !member) return null;
  const forMixture = (one.preferred === "first") === (one.first === "mixture");
  return {
    instruction: voted.question,
    output_1: member.text,
    output_2: voted.text,
    generator_1: one.member.model,
    generator_2: voted.model,
    preference: one.preferred === "tie" ? 1.5 : forMixture ? 2 : 1,
  };
}
