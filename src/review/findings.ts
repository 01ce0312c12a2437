// What verifying a patch comes to: every statement, whether it holds, and what shows that.

export type FindingState =
  /** The object shows it. */
  | 'proved'
  /** The object shows the contrary, or nothing that it needs. */
  | 'refuted'
  /** Only the build or a process can tell; nothing speaks against it. */
  | 'open';

export interface Finding {
  readonly about: 'object' | 'hunk' | 'unit' | 'symbol' | 'relocations' | 'unwinding';
  /** Name of the hunk, symbol or file. */
  readonly subject: string;
  readonly state: FindingState;
  /** What shows it, or what is wrong. */
  readonly reason: string;
}

export const at = (address: number): string => `0x${address.toString(16)}`;

export class Findings {
  readonly all: Finding[] = [];

  constructor(private readonly about: Finding['about']) {}

  add(subject: string, state: FindingState, reason: string): void {
    this.all.push({ about: this.about, subject, state, reason });
  }

  /** One statement that holds or does not. */
  check(subject: string, holds: boolean, shown: string, wrong: string): void {
    this.add(subject, holds ? 'proved' : 'refuted', holds ? shown : wrong);
  }
}
