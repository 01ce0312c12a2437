// Machine code → instructions, by binutils' objdump, with the addresses that operands lead to.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { remoteAddress } from '../base/address.js';
import { run } from '../build/index.js';
import { fileType, sectionFlag, sectionType } from '../elf/index.js';
import { writeElf } from '../patchfile/index.js';

/** Code to be shown, as if it lay at `address`. */
export interface CodeRange {
  readonly address: number;
  readonly bytes: Uint8Array;
}

export interface Instruction {
  readonly address: number;
  readonly size: number;
  /** Mnemonic with its prefixes. */
  readonly mnemonic: string;
  /** In the syntax of GNU as; where `target` is given, "@" stands for it. */
  readonly operands: string;
  /** Address that a branch goes to, or that an operand relative to %rip names. */
  readonly target?: number;
  readonly isBranch: boolean;
}

/**
 * The instructions of each range, in the order given. objdump never sees a file of others, but one that is written
 * here around the bytes. Throws BUILD_TOOL_FAILED where binutils are missing.
 */
export async function disassemble(ranges: readonly CodeRange[]): Promise<Instruction[][]> {
  if (ranges.length === 0) return [];
  const directory = await mkdtemp(path.join(os.tmpdir(), 'kcare-code-'));
  try {
    const file = path.join(directory, 'code.o');
    await writeFile(file, wrap(ranges));
    const listing = await run('objdump', ['-d', '-w', '-z', '--no-show-raw-insn', file]);
    const parts = listing.split(/^Disassembly of section (?=\.code\d+:$)/m).slice(1);
    const byName = new Map(parts.map((part) => [part.slice(0, part.indexOf(':')), part]));
    return ranges.map((range, index) => readListing(byName.get(`.code${index}`) ?? '', range));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function wrap(ranges: readonly CodeRange[]): Uint8Array {
  const sections = ranges.map(({ address, bytes }, index) => ({
    name: `.code${index}`,
    type: sectionType.progbits,
    flags: sectionFlag.alloc | sectionFlag.execute,
    alignment: 1,
    address: remoteAddress(address),
    bytes,
  }));
  return writeElf(fileType.relocatable, sections, [], []);
}

function readListing(listing: string, { address, bytes }: CodeRange): Instruction[] {
  const rows = [...listing.matchAll(/^\s*([0-9a-f]+):\t(.*)$/gm)].map(
    ([, at = '', text = '']) => [Number.parseInt(at, 16), text] as const,
  );
  const end = address + bytes.length;
  return rows.map(([at, text], index) => parseInstruction(at, (rows[index + 1]?.[0] ?? end) - at, text));
}

const relative = /\s+#\s+(?:0x)?([0-9a-f]+)(?: <.*>)?$/;
const branch = /^(?:0x)?([0-9a-f]+)(?: <.*>)?$/;
const prefixes = /^(?:(?:bnd|notrack|data16|addr32|rep|repz|repnz|lock|cs|ds|es|ss|fs|gs|rex\S*)\s+)*/;
const branches = /^(?:call|jmp|j[a-z]+|loop[a-z]*|xbegin)[wlq]?(?:,p[nt])?$/;

function parseInstruction(address: number, size: number, text: string): Instruction {
  const trimmed = text.trim();
  const head = prefixes.exec(trimmed)?.[0] ?? '';
  const [name = '', ...rest] = trimmed.slice(head.length).split(/\s+/);
  const mnemonic = `${head.replaceAll(/\s+/g, ' ')}${name}`;
  const operands = trimmed.slice(head.length + name.length).trim();
  const plain = { address, size, mnemonic };
  const direct = branches.test(name) ? branch.exec(rest.join(' ')) : null;
  if (direct)
    return { ...plain, operands: '@', target: Number.parseInt(direct[1] ?? '', 16), isBranch: true };
  const named = relative.exec(operands);
  if (!named) return { ...plain, operands, isBranch: false };
  const without = operands.slice(0, named.index).replace(/-?0x[0-9a-f]+\(%rip\)/, '@(%rip)');
  return { ...plain, operands: without, target: Number.parseInt(named[1] ?? '', 16), isBranch: false };
}
