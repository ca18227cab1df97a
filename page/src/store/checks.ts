/**
 * Checks of data that came from outside: an error names the field, the value and what is allowed.
 *
 * A field that may be null may also be absent. Fields that nobody knows are left out.
 */

/** What is wrong with a file, in words for people. */
export class ImportError extends Error {
  override name = "ImportError";
}

/** Reads a value, whose place in the file is `path`. */
export type Read<T> = (value: unknown, path: string) => T;

/** How much of a wrong value an error shows. */
const SHOWN = 40;

function wrong(path: string, value: unknown, allowed: string): ImportError {
  const shown = JSON.stringify(value) ?? "absent";
  const short = shown.length > SHOWN ? `${shown.slice(0, SHOWN)}...` : shown;
  return new ImportError(`${path} is ${short}. Allowed is ${allowed}.`);
}

export const text: Read<string> = (value, path) => {
  if (typeof value !== "string") throw wrong(path, value, "a text");
  return value;
};

export const number: Read<number> = (value, path) => {
  if (typeof value !== "number" || !Number.isFinite(value)) throw wrong(path, value, "a number");
  return value;
};

export const boolean: Read<boolean> = (value, path) => {
  if (typeof value !== "boolean") throw wrong(path, value, "true or false");
  return value;
};

/** One of a few texts. */
export function oneOf<const T extends string>(...allowed: T[]): Read<T> {
  return (value, path) => {
    const found = allowed.find((each) => each === value);
    if (found === undefined) throw wrong(path, value, allowed.map((each) => JSON.stringify(each)).join(", "));
    return found;
  };
}

/** Null, which an absent field is too, or what `read` reads. */
export function orNull<T>(read: Read<T>): Read<T | null> {
  return (value, path) => (value === null || value === undefined ? null : read(value, path));
}

/** A default for an absent field, or what `read` reads. */
export function or<T>(absent: T, read: Read<T>): Read<T> {
  return (value, path) => (value === undefined ? absent : read(value, path));
}

/** A list of at most `most` things. */
export function listOf<T>(read: Read<T>, most = 100_000): Read<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw wrong(path, value, "a list");
    if (value.length > most) throw new ImportError(`${path} has ${value.length} entries. Allowed are ${most}.`);
    return value.map((each: unknown, n) => read(each, `${path}[${n}]`));
  };
}

/** An object with these fields. `optional` has readers of fields that may be absent, and then stay absent. */
export function object<T>(
  fields: { [Name in keyof T]: Read<T[Name]> },
  optional: { [Name in keyof T]?: Read<T[Name]> } = {},
): Read<T> {
  return (value, path) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(path, value, "an object");
    const given = value as Record<string, unknown>;
    const present = Object.entries(optional).filter(([name]) => own(given, name) !== undefined);
    const readers = [...Object.entries(fields), ...present] as [string, Read<unknown>][];
    return Object.fromEntries(readers.map(([name, read]) => [name, read(own(given, name), `${path}.${name}`)])) as T;
  };
}

function own(given: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(given, name) ? given[name] : undefined;
}
