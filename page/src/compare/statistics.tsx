/** The results of a chat's blind votes, as a table and in words. */
import type { Chat } from "../answer/types.ts";
import { scores, type Rate, type Score } from "./statistics.ts";

/** Shows nothing before the first vote. */
export function Statistics({ chat }: { chat: Chat }) {
  const all = scores(chat);
  if (all.length === 0) return null;
  const unnamed = new Map(scores(chat, false).map((score) => [score.model, score]));
  return (
    <div class="compare-statistics">
      <h3>Blind votes of this chat</h3>
      <div class="compare-table" role="group" aria-label="Blind votes of this chat" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">mixture against</th>
              <th scope="col">votes</th>
              <th scope="col">mixture</th>
              <th scope="col">tie</th>
              <th scope="col">member</th>
              <th scope="col">win rate of the mixture (95% interval)</th>
              <th scope="col">mean length difference</th>
            </tr>
          </thead>
          <tbody>
            {all.map((score) => (
              <tr key={score.model}>
                <th scope="row">{score.model}</th>
                <td>{score.votes}</td>
                <td>{score.wins}</td>
                <td>{score.ties}</td>
                <td>{score.losses}</td>
                <td>{rateInWords(score.rate)}</td>
                <td>{signed(score.meanLengthDifference)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <ul>
        {all.map((score) => (
          <li key={score.model}>{inWords(score, unnamed.get(score.model))}</li>
        ))}
      </ul>
    </div>
  );
}

function rateInWords({ share, low, high }: Rate): string {
  return `${percent(share)} (${percent(low)} to ${percent(high)})`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}

/** Characters with their sign: `+120` if the mixture's answers are longer. */
function signed(difference: number): string {
  const rounded = Math.round(difference);
  return `${rounded > 0 ? "+" : rounded < 0 ? "−" : ""}${Math.abs(rounded)} characters`;
}

function inWords(score: Score, unnamed: Score | undefined): string {
  const words = [verdict(score)];
  if (score.longerVotes > 0) words.push(`The longer text won ${score.longerWins} of ${score.longerVotes} votes that were no tie.`);
  if (score.named > 0) {
    const rest = unnamed ? `Without them the win rate is ${rateInWords(unnamed.rate)}.` : "There are no others.";
    words.push(`In ${score.named} of ${score.votes} votes a text names a model. ${rest}`);
  }
  return words.join(" ");
}

function verdict({ model, rate }: Score): string {
  if (rate.low > 0.5) return `By these votes the mixture answers better than ${model}.`;
  if (rate.high < 0.5) return `By these votes ${model} answers better than the mixture.`;
  return `These votes do not tell whether the mixture or ${model} answers better.`;
}
