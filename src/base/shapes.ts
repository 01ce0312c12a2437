// Shapes of untrusted JSON: checks that turn an unknown value into a typed one, or say where it does not fit.
// The commands that patch load this instead of a schema library, which takes as long to load as the rest of them.

/** Checks `value`, which is found at `where` ("" = the whole), and returns it typed. Throws ShapeError. */
export type Shape<T> = (value: unknown, where?: string) => T;
export type Shaped<S> = S extends Shape<infer T> ? T : never;

/** The message says where and what was expected. */
export class ShapeError extends Error {
  constructor(where: string | undefined, expected: string) {
    super(where === undefined || where === '' ? expected : `${where}: ${expected}`);
  }
}

/** A string of at most `longest` UTF-16 units. */
export function text(longest = Infinity): Shape<string> {
  return (value, where) => {
    if (typeof value !== 'string') throw new ShapeError(where, 'not a string');
    if (value.length > longest) throw new ShapeError(where, `longer than ${longest} characters`);
    return value;
  };
}

/** A string that passes `test`; `expected` completes the sentence "not …". */
export function textThat(test: (value: string) => boolean, expected: string): Shape<string> {
  const anyText = text();
  return (value, where) => {
    const checked = anyText(value, where);
    if (!test(checked)) throw new ShapeError(where, `not ${expected}`);
    return checked;
  };
}

export function oneOf<const Choice extends string>(...choices: readonly Choice[]): Shape<Choice> {
  return (value, where) => {
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw new ShapeError(where, `not one of ${choices.join(', ')}`);
    return found;
  };
}

export const boolean: Shape<boolean> = (value, where) => {
  if (typeof value !== 'boolean') throw new ShapeError(where, 'neither true nor false');
  return value;
};

/** A whole number that is exact, within `least` and `most`. */
export function integer(least: number, most = Number.MAX_SAFE_INTEGER): Shape<number> {
  return (value, where) => {
    if (typeof value !== 'number' || !Number.isSafeInteger(value))
      throw new ShapeError(where, 'not a whole number');
    if (value < least || value > most) throw new ShapeError(where, `not within ${least} and ${most}`);
    return value;
  };
}

const utcPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z$/;

/** An ISO 8601 time in UTC, as it is written. */
export const utcTime = textThat((value) => {
  const time = Date.parse(value);
  // Date.parse takes February 30 for the beginning of March.
  return (
    utcPattern.test(value) &&
    Number.isFinite(time) &&
    new Date(time).toISOString().startsWith(value.slice(0, 10))
  );
}, 'a time in UTC such as 2026-11-22T00:00:00Z');

export function list<T>(item: Shape<T>, longest: number): Shape<readonly T[]> {
  return (value, where = '') => {
    if (!Array.isArray(value)) throw new ShapeError(where, 'not an array');
    if (value.length > longest) throw new ShapeError(where, `more than ${longest} elements`);
    return value.map((element: unknown, index) =>
      item(element, where === '' ? `${index}` : `${where}.${index}`),
    );
  };
}

/** An object with fields of any name. */
export function dictionary<T>(item: Shape<T>): Shape<Readonly<Record<string, T>>> {
  return (value, where = '') => {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new ShapeError(where, 'not an object');
    const fields = Object.entries(value).map(([name, field]: [string, unknown]) => [
      name,
      item(field, where === '' ? name : `${where}.${name}`),
    ]);
    return Object.fromEntries(fields) as Readonly<Record<string, T>>;
  };
}

/** `fallback` where the value is missing. */
export function optional<T>(shape: Shape<T>, fallback: T): Shape<T> {
  return (value, where) => (value === undefined ? fallback : shape(value, where));
}

/** An object with these fields; others are left out. */
export function record<Fields extends Readonly<Record<string, Shape<unknown>>>>(
  fields: Fields,
): Shape<{ readonly [Name in keyof Fields]: Shaped<Fields[Name]> }> {
  const shapes = Object.entries(fields);
  return (value, where = '') => {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new ShapeError(where, 'not an object');
    const checked = shapes.map(([name, shape]) => {
      const field: unknown = Object.hasOwn(value, name)
        ? (value as Record<string, unknown>)[name]
        : undefined;
      return [name, shape(field, where === '' ? name : `${where}.${name}`)];
    });
    return Object.fromEntries(checked) as { readonly [Name in keyof Fields]: Shaped<Fields[Name]> };
  };
}
