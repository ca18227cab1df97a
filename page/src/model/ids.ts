/** Names for chats and answers that nothing else has. */

/** A random id. `crypto.randomUUID` exists only where a page came over TLS or from this machine. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
