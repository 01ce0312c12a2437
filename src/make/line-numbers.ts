// Puts #line directives into a patched source, so that functions which the patch leaves alone keep their __LINE__.

/** Files in which a `#line` directive means something. */
export const takesLineDirectives = (file: string): boolean =>
  /\.(?:c|h|cc|hh|cp|cxx|hxx|cpp|hpp|CPP|HPP|c\+\+|h\+\+|C|H|inc|inl|ipp|tcc|tpp|txx|def|i|ii)$/.test(file);

/** Where the lines of the patched text come from: for each its line number in the old text, or undefined for a new one. */
export type LineOrigins = readonly (number | undefined)[];

/**
 * The patched text with a directive where old lines go on after inserted or removed ones. Such a place must not lie in
 * a comment, a literal, a macro definition or within parentheses (where a macro may have its arguments); the directive
 * then comes a little later. It names no file, so __FILE__ stays as it is spelled.
 */
export function keepLineNumbers(patched: string, origins: LineOrigins): string {
  const lines = patched.split('\n');
  const scanner = new LineScanner();
  const result: string[] = [];
  /** The number the compiler would give to the line that comes next. */
  let counted = 1;
  lines.forEach((line, index) => {
    const origin = origins[index];
    if (origin !== undefined && origin !== counted && scanner.isBetweenTokens) {
      result.push(`#line ${origin}`);
      counted = origin;
    }
    result.push(line);
    counted++;
    scanner.read(line);
  });
  return result.join('\n');
}

/** Follows comments, literals, continued lines, directives and parentheses, line by line; no tokens beyond that. */
class LineScanner {
  private inComment = false;
  private continued = false;
  private inDirective = false;
  private depth = 0;
  /** The end of a raw string literal of C++ that is open, `)delimiter"`. */
  private rawEnd: string | undefined;
  /** The quote of a literal that goes on in the next line. */
  private openQuote: string | undefined;

  get isBetweenTokens(): boolean {
    return !this.inComment && !this.continued && this.depth === 0 && this.rawEnd === undefined;
  }

  read(line: string): void {
    if (!this.inComment && !this.continued && this.rawEnd === undefined)
      this.inDirective = /^\s*(?:#|%:)/.test(line);
    // Conditionals may leave parentheses open that never were; a function's end closes all.
    if (!this.inComment && line.startsWith('}')) this.depth = 0;
    let at = 0;
    const quote = this.continued ? this.openQuote : undefined;
    this.openQuote = undefined;
    if (quote !== undefined) at = this.readLiteral(line, 0, quote);
    while (at < line.length) at = this.step(line, at);
    this.continued = this.rawEnd === undefined && /\\\s*$/.test(line);
  }

  /** Reads what begins at `at`; returns where it ends. */
  private step(line: string, at: number): number {
    if (this.rawEnd !== undefined) {
      const end = line.indexOf(this.rawEnd, at);
      if (end < 0) return line.length;
      const next = end + this.rawEnd.length;
      this.rawEnd = undefined;
      return next;
    }
    if (this.inComment) {
      const end = line.indexOf('*/', at);
      if (end < 0) return line.length;
      this.inComment = false;
      return end + 2;
    }
    const rest = line.slice(at);
    if (rest.startsWith('//')) return line.length;
    if (rest.startsWith('/*')) {
      this.inComment = true;
      return at + 2;
    }
    const raw = /^R"([^()\\\s]{0,16})\(/.exec(rest);
    if (raw && !/\w$/.test(line.slice(0, at).replace(/(?:u8|[uUL])$/, ''))) {
      this.rawEnd = `)${raw[1] ?? ''}"`;
      return at + raw[0].length;
    }
    const character = line[at];
    if (character === '"' || (character === "'" && !/[0-9a-fA-F]$/.test(line.slice(0, at))))
      return this.readLiteral(line, at + 1, character);
    // Parentheses of a macro's definition need not match.
    if (!this.inDirective) {
      if (character === '(') this.depth++;
      if (character === ')') this.depth = Math.max(0, this.depth - 1);
    }
    return at + 1;
  }

  /** Reads on in a literal; returns where it ends, or the end of the line. */
  private readLiteral(line: string, start: number, quote: string): number {
    for (let at = start; at < line.length; at++) {
      if (line[at] === '\\') at++;
      else if (line[at] === quote) return at + 1;
    }
    this.openQuote = quote;
    return line.length;
  }
}
