/** The mixture's answer beside what a member wrote alone: openly, or blind with a vote. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { Answer, Chat, Proposal, Vote } from "../answer/types.ts";
import { Markdown } from "../text/markdown.tsx";
import { secondsInWords } from "../text/seconds.ts";
import { comparable, drawn, isComplete, namesAModel, voteOn } from "./blind.ts";
import { markDifferences } from "./marks.ts";
import { Statistics } from "./statistics.tsx";
import "./compare.css";

interface CompareProps {
  answer: Answer;
  /** The chat of the answer, with the votes so far. */
  chat: Chat;
  onVote: (vote: Vote) => void;
}

/** A pair of texts as it is shown. */
interface Pair {
  member: Proposal;
  first: Vote["first"];
}

/** Pairs whose names this window has shown; no vote on them is blind. */
const seen = new Set<string>();

function pairId(answer: Answer, { layer, place }: Proposal): string {
  return `${answer.id} ${layer} ${place}`;
}

/** Compares an answer with the proposals that it was made from. */
export function Compare(props: CompareProps) {
  if (!isComplete(props.answer)) return <p class="compare-note">The comparison begins when the answer is complete.</p>;
  if (comparable(props.answer).length === 0) {
    return <p class="compare-note">There is no complete proposal that differs from the answer.</p>;
  }
  return <OneAnswer key={props.answer.id} {...props} />;
}

function OneAnswer(props: CompareProps) {
  const { answer, chat } = props;
  const [blind, setBlind] = useState(() => votable(answer, chat).length > 0);
  const [marking, setMarking] = useState(false);
  return (
    <section class="compare" aria-label="Comparison of the answer with a proposal">
      <div class="compare-tools">
        <fieldset>
          <legend>Names</legend>
          <label>
            <input type="radio" name={`names-${answer.id}`} checked={blind} onChange={() => setBlind(true)} /> hidden, to vote
          </label>
          <label>
            <input type="radio" name={`names-${answer.id}`} checked={!blind} onChange={() => setBlind(false)} /> shown
          </label>
        </fieldset>
        <label>
          <input type="checkbox" checked={marking} onChange={(event) => setMarking(event.currentTarget.checked)} /> Mark
          sentences that only one text has
        </label>
      </div>
      {blind ? <Blind {...props} marking={marking} /> : <Open {...props} marking={marking} />}
      <Statistics chat={chat} />
    </section>
  );
}

/** The proposals that can still be voted on. */
function votable(answer: Answer, chat: Chat): Proposal[] {
  return comparable(answer).filter((member) => !voteOn(chat, answer, member) && !seen.has(pairId(answer, member)));
}

function Open({ answer, marking }: CompareProps & { marking: boolean }) {
  const members = comparable(answer);
  const [chosen, setChosen] = useState(0);
  const member = members[Math.min(chosen, members.length - 1)]!;
  useLayoutEffect(() => {
    seen.add(pairId(answer, member));
  }, [member]);
  return (
    <>
      <label class="compare-choice">
        {"Compare the answer with "}
        <select value={chosen} onChange={(event) => setChosen(Number(event.currentTarget.value))}>
          {members.map((each, n) => (
            <option key={n} value={n}>
              {proposalName(each)}
            </option>
          ))}
        </select>
      </label>
      <Texts pair={{ member, first: "mixture" }} answer={answer} named marking={marking} />
    </>
  );
}

function Blind({ answer, chat, onVote, marking }: CompareProps & { marking: boolean }) {
  const [pair, setPair] = useState(() => draw(answer, chat));
  const [voted, setVoted] = useState<Vote | null>(null);
  const result = useRef<HTMLParagraphElement>(null);
  useEffect(() => {
    if (voted) result.current?.focus();
  }, [voted]);
  if (pair === null) {
    return (
      <p class="compare-note">
        There is nothing left to vote on: each pair of this answer has your vote, or this window has shown its names.
      </p>
    );
  }
  const vote = (preferred: Vote["preferred"]): void => {
    const given = voteFor(answer, pair, preferred);
    setVoted(given);
    onVote(given);
  };
  const next = (): void => {
    setPair(draw(answer, chat));
    setVoted(null);
  };
  return (
    <>
      {!voted && (
        <p class="compare-note">
          One text is the mixture's answer, the other is what one of its members wrote alone. Which one answers better? A vote
          is fair only if you do not remember who wrote which text.
        </p>
      )}
      <Texts pair={pair} answer={answer} named={voted !== null} marking={marking} />
      {voted ? (
        <div class="compare-votes">
          <p ref={result} tabIndex={-1} role="status">
            {resultInWords(voted)}
          </p>
          {votable(answer, chat).some((member) => member !== pair.member) && (
            <button type="button" onClick={next}>
              Next pair
            </button>
          )}
        </div>
      ) : (
        <div class="compare-votes" role="group" aria-label="Your vote">
          <button type="button" onClick={() => vote("first")}>
            The first is better
          </button>
          <button type="button" onClick={() => vote("tie")}>
            Both are equally good
          </button>
          <button type="button" onClick={() => vote("second")}>
            The second is better
          </button>
        </div>
      )}
    </>
  );
}

/** A pair that can still be voted on, in a drawn order; null if there is none. */
function draw(answer: Answer, chat: Chat): Pair | null {
  const members = votable(answer, chat);
  return members.length > 0 ? { member: drawn(members), first: drawn(["mixture", "member"] as const) } : null;
}

function voteFor(answer: Answer, { member, first }: Pair, preferred: Vote["preferred"]): Vote {
  const models = new Set([...answer.proposals.map(({ model }) => model), ...answer.stages.flatMap(({ models: all }) => all)]);
  if (answer.answeredBy) models.add(answer.answeredBy);
  const { layer, place, model } = member;
  return {
    answerId: answer.id,
    member: { layer, place, model },
    first,
    preferred,
    at: Date.now(),
    namesAModel: [answer.text, member.text].some((text) => namesAModel(text, models, answer.question)),
  };
}

function resultInWords({ preferred, first, member, namesAModel: named }: Vote): string {
  const mixtureWon = (preferred === "first") === (first === "mixture");
  const words =
    preferred === "tie"
      ? `You found the mixture's answer and that of ${member.model} equally good.`
      : `You preferred ${mixtureWon ? `the mixture's answer to that of ${member.model}` : `the answer of ${member.model} to the mixture's`}.`;
  return named ? `${words} One of the texts names a model, and so the vote is marked.` : words;
}

function proposalName({ layer, place, model }: Proposal): string {
  return `${model} (proposal ${place + 1}${layer > 1 ? ` of layer ${layer}` : ""})`;
}

interface TextsProps {
  pair: Pair;
  answer: Answer;
  /** Whether names, lengths and times are shown. */
  named: boolean;
  marking: boolean;
}

/** The two texts side by side. */
function Texts({ pair, answer, named, marking }: TextsProps) {
  const id = `${pair.member.layer} ${pair.member.place} ${marking}`;
  const shown = useRef({ id, texts: [null, null] as (HTMLElement | null)[] });
  const [counts, setCounts] = useState<{ all: number; marked: number }[] | null>(null);
  if (shown.current.id !== id) shown.current = { id, texts: [null, null] };
  const whole = (side: 0 | 1, element: HTMLElement): void => {
    const { texts } = shown.current;
    texts[side] = element;
    const [one, other] = texts;
    if (marking && one && other) setCounts(markDifferences(one, other));
  };
  const mixture = { text: answer.text, ...factsOfAnswer(answer) };
  const member = { text: pair.member.text, ...factsOfMember(pair.member) };
  const sides = pair.first === "mixture" ? [mixture, member] : [member, mixture];
  return (
    <div class="compare-texts">
      {sides.map((side, n) => (
        <article key={`${id} ${n}`} aria-label={named ? side.name : `${n === 0 ? "First" : "Second"} text`}>
          <h3>
            {named ? side.name : `${n === 0 ? "First" : "Second"} text`}
            {named && <small>{side.facts}</small>}
          </h3>
          {marking && counts && <p class="compare-count">{countInWords(counts[n])}</p>}
          <div class="compare-text" tabIndex={0} role="group" aria-label="Text">
            <Markdown text={side.text} growing={false} onWhole={(element) => whole(n as 0 | 1, element)} />
          </div>
        </article>
      ))}
    </div>
  );
}

function countInWords(count: { all: number; marked: number } | undefined): string {
  if (!count) return "";
  return `${count.marked} of ${count.all} sentences are only in this text; they are underlined.`;
}

function factsOfAnswer(answer: Answer): { name: string; facts: string } {
  const by = answer.answeredBy ? `written by ${answer.answeredBy}, ` : "";
  return { name: `The mixture's answer`, facts: by + facts(answer.text, answer.completionTokens, answer.totalS) };
}

function factsOfMember(member: Proposal): { name: string; facts: string } {
  return { name: proposalName(member), facts: facts(member.text, member.tokens, member.seconds) };
}

function facts(text: string, tokens: number | null, seconds: number | null): string {
  const known = [`${text.length} characters`];
  if (tokens !== null) known.push(`${tokens} tokens`);
  if (seconds !== null) known.push(secondsInWords(seconds));
  return known.join(", ");
}
