// Lines out of a stream of bytes, with a limit to their length.
import { StringDecoder } from 'node:string_decoder';

/** Cuts what is fed into lines; `null` once a line is longer than `longest` characters, and from then on nothing. */
export class LineCutter {
  private readonly decoder = new StringDecoder('utf8');
  private rest = '';
  private isOver = false;

  constructor(private readonly longest: number) {}

  feed(bytes: Buffer): (string | null)[] {
    if (this.isOver) return [];
    const text = this.decoder.write(bytes);
    if (!text.includes('\n')) {
      this.rest += text;
      return this.rest.length > this.longest ? this.end() : [];
    }
    const lines: (string | null)[] = (this.rest + text).split('\n');
    this.rest = lines.pop() ?? '';
    if (this.rest.length > this.longest || lines.some((line) => (line?.length ?? 0) > this.longest))
      return this.end();
    return lines;
  }

  private end(): null[] {
    this.isOver = true;
    this.rest = '';
    return [null];
  }
}
