/** Fuse again: which proposals the aggregator reads again, which members are asked anew, and how the answer is made. */
import { useState } from "preact/hooks";
import type { FuseMethod } from "../api/client.ts";
import { causeWords } from "../answer/phase_words.ts";
import type { Answer, Proposal } from "../answer/types.ts";
import { fuseAgain } from "../model/asking.ts";
import { models, state } from "../model/server.ts";
import { Dialog } from "./dialog.tsx";

/** What each method does. */
const METHOD_WORDS: Record<FuseMethod, string> = {
  merge: "The aggregator writes an answer from the proposals.",
  select: "The aggregator picks the best proposal.",
  select_or_merge: "The aggregator picks the best proposal. If it is not sure, it merges the best two.",
  vote: "The answer on which most proposals agree wins.",
};

type Use = "keep" | "again" | "leave";

/** The proposals of the last layer of an answer: those that its aggregator read, or could have read. */
export function lastLayer(answer: Answer): Proposal[] {
  const last = Math.max(...answer.proposals.map((proposal) => proposal.layer));
  return answer.proposals.filter((proposal) => proposal.layer === last);
}

export function FuseDialog({ answer, onClose }: { answer: Answer; onClose: () => void }) {
  const proposals = lastLayer(answer);
  const [uses, setUses] = useState<Use[]>(proposals.map((proposal) => (proposal.phase === "done" ? "keep" : "leave")));
  const aggregators = state.value?.mixture.aggregators ?? [];
  const members = models.value.filter((model) => model.owned_by !== "slimmoa").map((model) => model.id);
  const [aggregator, setAggregator] = useState("");
  const [ownMethod, ...otherMethods] = state.value?.mixture.methods ?? [];
  const [method, setMethod] = useState<FuseMethod | "">("");
  const chosen = (use: Use) => proposals.filter((_, n) => uses[n] === use);
  const isEmpty = chosen("keep").length + chosen("again").length === 0;
  const fuse = (event: Event) => {
    event.preventDefault();
    if (isEmpty) return;
    fuseAgain(answer, { keep: chosen("keep"), askAgain: chosen("again"), aggregator, method });
    onClose();
  };
  return (
    <Dialog title="Fuse again" onClose={onClose}>
      <form class="stack" onSubmit={fuse}>
        <p class="muted">
          The aggregator makes a new answer of these proposals. Only the members that you choose are asked anew.
        </p>
        {proposals.map((proposal, n) => (
          <fieldset key={n} class="fuse-row">
            <legend>{proposalName(proposal)}</legend>
            <div class="choices">
              {(["keep", "again", "leave"] as const).map((use) => (
                <label key={use} class="choice">
                  <input
                    type="radio"
                    name={`use-${n}`}
                    checked={uses[n] === use}
                    disabled={use === "keep" && proposal.phase !== "done"}
                    onChange={() => setUses(uses.map((old, m) => (m === n ? use : old)))}
                  />
                  <span>{{ keep: "Use", again: "Ask again", leave: "Leave out" }[use]}</span>
                </label>
              ))}
            </div>
          </fieldset>
        ))}
        {ownMethod && (
          <div class="field">
            <label for="method">How the answer is made</label>
            <select
              id="method"
              value={method}
              aria-describedby="method-words"
              onChange={(event) => setMethod(event.currentTarget.value as FuseMethod | "")}
            >
              <option value="">{`the recipe's method, ${methodName(ownMethod)}`}</option>
              {otherMethods.map((each) => (
                <option key={each} value={each}>
                  {methodName(each)}
                </option>
              ))}
            </select>
            <span id="method-words" class="muted">
              {METHOD_WORDS[method || ownMethod]}
            </span>
          </div>
        )}
        <label class="field">
          <span>Who writes or picks the answer</span>
          <select value={aggregator} onChange={(event) => setAggregator(event.currentTarget.value)}>
            <option value="">{`the recipe's aggregator${aggregators[0] ? `, ${aggregators[0]}` : ""}`}</option>
            {members
              .filter((name) => name !== aggregators[0])
              .map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
          </select>
        </label>
        {isEmpty && (
          <p role="alert" class="said-bad">
            Choose at least one proposal.
          </p>
        )}
        <div class="row end">
          <button type="submit" class="main" disabled={isEmpty}>
            Fuse again
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function methodName(method: FuseMethod): string {
  return method.replaceAll("_", " ");
}

function proposalName({ place, model, phase, cause }: Proposal): string {
  const name = `${place + 1}. ${model}`;
  return phase === "done" ? name : `${name} (${causeWords(cause ?? "unknown")})`;
}
