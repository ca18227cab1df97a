/** What the blind votes of a chat say about the mixture and each of its members. */
import type { Answer, Chat, Vote } from "../answer/types.ts";

/** A share with the interval that holds the true share in 95 of 100 such samples. */
export interface Rate {
  share: number;
  low: number;
  high: number;
}

/** The votes between the mixture and one member. */
export interface Score {
  /** The member's model. */
  model: string;
  votes: number;
  /** Votes for the mixture, for the member, and for neither. */
  wins: number;
  losses: number;
  ties: number;
  /** The mixture's win rate; a tie counts half. */
  rate: Rate;
  /** Mean of (characters of the mixture's answer - characters of the member's), over the votes. */
  meanLengthDifference: number;
  /** Of the votes that were no tie and had texts of different lengths: how many, and for how many the longer won. */
  longerWins: number;
  longerVotes: number;
  /** Votes whose texts name a model. */
  named: number;
}

/** z of a two-sided interval of 95%. */
const Z = 1.959964;

/**
 * Wilson's score interval of a share (Wilson 1927; Brown, Cai and DasGupta 2001). Ties enter as half a success.
 *
 * @param successes at least 0, at most `trials`
 * @param trials at least 1
 */
export function wilson(successes: number, trials: number): Rate {
  const share = successes / trials;
  const square = Z * Z;
  const middle = (share + square / (2 * trials)) / (1 + square / trials);
  const half = (Z * Math.sqrt((share * (1 - share)) / trials + square / (4 * trials * trials))) / (1 + square / trials);
  return { share, low: Math.max(0, middle - half), high: Math.min(1, middle + half) };
}

/** One score for each member with votes, by the member's name. Votes on answers that are gone are left out. */
export function scores(chat: Chat, withNamed = true): Score[] {
  const answers = new Map(chat.answers.map((answer) => [answer.id, answer]));
  const byModel = new Map<string, Judged[]>();
  for (const vote of chat.votes) {
    const found = withNamed || !vote.namesAModel ? judged(vote, answers.get(vote.answerId)) : null;
    if (found) byModel.set(vote.member.model, [...(byModel.get(vote.member.model) ?? []), found]);
  }
  return [...byModel].map(([model, list]) => score(model, list)).sort((a, b) => (a.model < b.model ? -1 : 1));
}

/** A vote with the lengths of its texts, from the mixture's side. */
interface Judged {
  result: "win" | "loss" | "tie";
  /** Characters of the mixture's answer minus those of the member's. */
  difference: number;
  named: boolean;
}

function judged(vote: Vote, answer: Answer | undefined): Judged | null {
  const member = answer?.proposals.find(({ layer, place }) => layer === vote.member.layer && place === vote.member.place);
  if (!answer || !member) return null;
  const forFirst = vote.preferred === "first";
  const result = vote.preferred === "tie" ? "tie" : forFirst === (vote.first === "mixture") ? "win" : "loss";
  return { result, difference: answer.text.length - member.text.length, named: vote.namesAModel };
}

function score(model: string, list: Judged[]): Score {
  const count = (fits: (each: Judged) => boolean): number => list.filter(fits).length;
  const wins = count(({ result }) => result === "win");
  const ties = count(({ result }) => result === "tie");
  const unequal = list.filter(({ result, difference }) => result !== "tie" && difference !== 0);
  return {
    model,
    votes: list.length,
    wins,
    losses: list.length - wins - ties,
    ties,
    rate: wilson(wins + ties / 2, list.length),
    meanLengthDifference: list.reduce((sum, { difference }) => sum + difference, 0) / list.length,
    longerWins: unequal.filter(({ result, difference }) => (result === "win") === difference > 0).length,
    longerVotes: unequal.length,
    named: count(({ named }) => named),
  };
}
