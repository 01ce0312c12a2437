// POSIX extended regular expressions (IEEE Std 1003.1, XBD 9.4) translated into JavaScript ones.
import { KcareError } from '../base/errors.js';

/** The character classes in the POSIX locale, as contents of a JavaScript bracket expression. */
const characterClasses: Readonly<Record<string, string>> = {
  alnum: 'A-Za-z0-9',
  alpha: 'A-Za-z',
  blank: ' \\t',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '\\x21-\\x7e',
  lower: 'a-z',
  print: '\\x20-\\x7e',
  punct: '\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e',
  space: ' \\t\\n\\v\\f\\r',
  upper: 'A-Z',
  xdigit: 'A-Fa-f0-9',
};

const syntaxCharacter = /[\\^$.*+?()[\]{}|/]/;

/**
 * A RegExp that accepts exactly the strings which `expression` matches as a whole. What POSIX leaves undefined
 * (back-references, `(?`, a repetition of a repetition) is refused with a USAGE error.
 */
export function compilePosixExpression(expression: string): RegExp {
  const translated = new Translator(Array.from(expression)).translate();
  try {
    return new RegExp(`^(?:${translated})$`, 'su');
  } catch (cause) {
    throw wrong(cause instanceof Error ? cause.message : String(cause));
  }
}

function wrong(problem: string): KcareError {
  return new KcareError('USAGE', `not a POSIX extended regular expression: ${problem}`);
}

/** One character that has no special meaning where it stands, outside of brackets. */
function literal(character: string): string {
  return syntaxCharacter.test(character) ? `\\${character}` : character;
}

/** The same within brackets, where a dash has a meaning. */
function bracketLiteral(character: string): string {
  return character === '-' ? '\\-' : literal(character);
}

class Translator {
  private position = 0;
  private output = '';
  /** A repetition may follow only an atom. */
  private afterAtom = false;

  constructor(private readonly input: readonly string[]) {}

  translate(): string {
    while (this.position < this.input.length) this.step(this.next());
    return this.output;
  }

  private next(): string {
    const character = this.input[this.position];
    if (character === undefined) throw wrong('it ends too early');
    this.position += 1;
    return character;
  }

  private step(character: string): void {
    switch (character) {
      case '\\': {
        this.escape();
        return;
      }
      case '[': {
        this.emit(this.bracket(), true);
        return;
      }
      case '(': {
        this.emit('(?:', false);
        return;
      }
      case ')': {
        this.emit(')', true);
        return;
      }
      case '|':
      case '^':
      case '$': {
        this.emit(character, false);
        return;
      }
      case '.': {
        this.emit('.', true);
        return;
      }
      case '*':
      case '+':
      case '?': {
        this.repeat(character);
        return;
      }
      case '{': {
        this.repeat(this.interval());
        return;
      }
      default: {
        this.emit(literal(character), true);
        return;
      }
    }
  }

  private emit(text: string, isAtom: boolean): void {
    this.output += text;
    this.afterAtom = isAtom;
  }

  private repeat(operator: string): void {
    if (!this.afterAtom) throw wrong(`"${operator}" repeats nothing`);
    this.emit(operator, false);
  }

  private escape(): void {
    const character = this.next();
    if (/[0-9A-Za-z]/.test(character)) throw wrong(`"\\${character}" has no meaning`);
    this.emit(literal(character), true);
  }

  private interval(): string {
    const end = this.input.indexOf('}', this.position);
    const body = end < 0 ? '' : this.input.slice(this.position, end).join('');
    const bounds = /^(\d{1,3})(,(\d{1,3})?)?$/.exec(body);
    if (!bounds) throw wrong('"{" begins no interval');
    this.position = end + 1;
    return `{${body}}`;
  }

  /** Everything up to the closing bracket; backslashes are ordinary characters there. */
  private bracket(): string {
    const negated = this.input[this.position] === '^';
    if (negated) this.position += 1;
    let contents = '';
    for (let first = true; ; first = false) {
      const character = this.next();
      if (character === ']' && !first) break;
      contents += character === '[' ? this.bracketSpecial() : this.range(character);
    }
    return `[${negated ? '^' : ''}${contents}]`;
  }

  private bracketSpecial(): string {
    const kind = this.input[this.position];
    if (kind !== ':' && kind !== '.' && kind !== '=') return this.range('[');
    const rest = this.input.slice(this.position + 1).join('');
    const end = rest.indexOf(`${kind}]`);
    if (end < 0) throw wrong(`"[${kind}" is not closed`);
    const name = rest.slice(0, end);
    this.position += 1 + Array.from(name).length + 2;
    if (kind !== ':') {
      if (Array.from(name).length !== 1) throw wrong(`collating element "${name}"`);
      return bracketLiteral(name);
    }
    const found = characterClasses[name];
    if (!Object.hasOwn(characterClasses, name) || found === undefined)
      throw wrong(`character class "${name}"`);
    return found;
  }

  private range(from: string): string {
    const end = this.input[this.position + 1];
    if (this.input[this.position] !== '-' || end === undefined || end === ']') return bracketLiteral(from);
    if (end === '[') throw wrong('a range that ends in "["');
    this.position += 2;
    return `${bracketLiteral(from)}-${bracketLiteral(end)}`;
  }
}
