// Shapes of untrusted JSON: what fits comes out typed and without other fields, what does not is named.
import { describe, expect, it } from 'vitest';
import {
  integer,
  list,
  oneOf,
  optional,
  record,
  ShapeError,
  text,
  textThat,
  utcTime,
} from '../../src/base/shapes.js';

const animal = record({
  name: text(5),
  legs: integer(0, 8),
  kind: oneOf('bird', 'beast'),
  nick: optional(text(), 'none'),
  young: list(record({ name: text() }), 2),
});
const cow = { name: 'cow', legs: 4, kind: 'beast', young: [{ name: 'calf' }] };

describe('a shape', () => {
  it('gives what fits, with defaults and without other fields', () => {
    expect(animal({ ...cow, colour: 'red' })).toEqual({ ...cow, nick: 'none' });
  });

  it.each([
    [{ ...cow, name: 'giraffe' }, 'name: longer than 5 characters'],
    [{ ...cow, name: 7 }, 'name: not a string'],
    [{ ...cow, legs: 9 }, 'legs: not within 0 and 8'],
    [{ ...cow, legs: 3.5 }, 'legs: not a whole number'],
    [{ ...cow, legs: '4' }, 'legs: not a whole number'],
    [{ ...cow, kind: 'fish' }, 'kind: not one of bird, beast'],
    [{ ...cow, nick: null }, 'nick: not a string'],
    [{ ...cow, young: {} }, 'young: not an array'],
    [{ ...cow, young: [cow, cow, cow] }, 'young: more than 2 elements'],
    [{ ...cow, young: [{ name: 'calf' }, {}] }, 'young.1.name: not a string'],
    [{ legs: 4 }, 'name: not a string'],
    [[], 'not an object'],
    [null, 'not an object'],
  ])('refuses %j', (value, message) => {
    expect(() => animal(value)).toThrow(new ShapeError('', message));
  });

  it('takes fields only from the value itself', () => {
    expect(() => record({ toString: text() })({})).toThrow('toString: not a string');
    expect(() => record({ name: text() })(Object.create({ name: 'inherited' }))).toThrow(
      'name: not a string',
    );
  });

  it.each(['2026-11-22T00:00:00Z', '2024-02-29T23:59:59.123Z', '2026-11-22T00:00Z'])(
    'takes the time %s',
    (value) => {
      expect(utcTime(value)).toBe(value);
    },
  );

  it.each([
    '2026-02-30T00:00:00Z',
    '2025-02-29T00:00:00Z',
    '2026-11-22',
    '2026-11-22T00:00:00+01:00',
    '',
    'now',
  ])('refuses the time "%s"', (value) => {
    expect(() => utcTime(value)).toThrow('not a time in UTC');
  });

  it('says what was expected of a text', () => {
    expect(() => textThat((value) => value === 'a', 'an a')('b', 'field')).toThrow('field: not an a');
  });
});
