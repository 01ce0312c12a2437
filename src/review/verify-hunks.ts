// Hunks against the shipped object: bytes, length, name, and parts of old functions that were forgotten.
import { jumpCrossesPage, jumpOffset, jumpSize, type Hunk, type Patch } from '../patchfile/index.js';
import type { Instruction } from './disassemble.js';
import type { Evidence } from './evidence.js';
import { at, Findings, type Finding } from './findings.js';

/** `codeOf` gives the instructions of the object's code at an address of an unwind entry. */
export function verifyHunks(
  { hunks }: Patch,
  evidence: Evidence,
  codeOf: (address: number) => readonly Instruction[],
): Finding[] {
  const findings = new Findings('hunk');
  for (const hunk of hunks) {
    verifyBytes(hunk, evidence, findings);
    verifyLength(hunk, evidence, findings);
    verifyName(hunk, evidence, findings);
    if (hunk.kind === 'guard') continue;
    // R1: such a jump is not written at once.
    if (jumpCrossesPage(hunk)) findings.add(hunk.name, 'refuted', 'its jump would lie on two pages');
    const code = codeOf(hunk.address);
    // The parts of an independent function are no concern: threads may finish in them.
    if (hunk.independent === true) verifyIndependence(hunk, code, findings);
    else verifyParts(hunk, hunks, evidence, code, findings);
  }
  return findings.all;
}

function verifyBytes({ name, address, size, original }: Hunk, evidence: Evidence, findings: Findings): void {
  if (!evidence.isCode(address, size)) {
    findings.add(name, 'refuted', `the object has no code at ${at(address)}, ${size} bytes`);
    return;
  }
  const isSame = Buffer.compare(evidence.shipped.bytesAt(address, size), original) === 0;
  findings.check(
    name,
    isSame,
    `its ${size} bytes are at ${at(address)}`,
    `the bytes at ${at(address)} are not those that the patch expects`,
  );
}

function verifyLength({ name, address, size }: Hunk, evidence: Evidence, findings: Findings): void {
  const length = evidence.shipped.frames.get(address);
  if (length !== undefined) {
    findings.check(
      name,
      length === size,
      `the unwind table has an entry for ${at(address)}, ${size} bytes`,
      `the unwind table has ${length} bytes at ${at(address)}, the patch ${size}`,
    );
    return;
  }
  const around = evidence.frameAround(address);
  if (around) {
    findings.add(name, 'refuted', `${at(address)} lies within the function at ${at(around.start)}`);
    return;
  }
  const entry = evidence.named(name).find((symbol) => symbol.address === address);
  findings.check(
    name,
    entry?.size === size,
    `${entry?.table ?? ''} says ${size} bytes`,
    `neither an unwind entry nor a symbol tells that it has ${size} bytes`,
  );
}

function verifyName({ name, address }: Hunk, evidence: Evidence, findings: Findings): void {
  const entries = evidence.named(name);
  const entry = entries.find((symbol) => symbol.address === address);
  if (entry) findings.add(name, 'proved', `${entry.table} has it at ${at(address)}`);
  else if (entries.length > 0 || evidence.knowsStatics)
    findings.add(name, 'refuted', `no symbol table has it at ${at(address)}${elsewhere(entries)}`);
  else findings.add(name, 'open', 'its name is the word of the build: the object has none for it');
}

function elsewhere(entries: readonly { readonly address: number; readonly table: string }[]): string {
  const [entry] = entries;
  return entry ? `, but ${entry.table} at ${at(entry.address)}` : '';
}

/** A jump to code with an unwind entry of its own, but not to where a function can begin, leads to a part of the same one. */
function verifyParts(
  { name, address, size }: Hunk,
  hunks: readonly Hunk[],
  evidence: Evidence,
  code: readonly Instruction[],
  findings: Findings,
): void {
  for (const { mnemonic, isBranch, target } of code) {
    if (!isBranch || target === undefined || mnemonic.includes('call')) continue;
    if (target >= address && target < address + size) continue;
    // One entry covers all stubs, and a jump to one of them is a call at the end of the function.
    if (evidence.sectionAt(target)?.startsWith('.plt') === true) continue;
    const part = evidence.frameAround(target);
    const isFunction = part?.start === target && evidence.isEntry(target);
    if (!part || isFunction || hunks.some((hunk) => hunk.address === part.start)) continue;
    const message = `it jumps into the code at ${at(part.start)}, a part of it that the patch does not guard`;
    findings.add(name, 'refuted', message);
  }
}

/** Threads in the old code must not come to the bytes under the jump again. */
function verifyIndependence(hunk: Hunk, code: readonly Instruction[], findings: Findings): void {
  const { name, address } = hunk;
  const end = address + jumpOffset(hunk) + jumpSize;
  const comesBack = code.some(({ mnemonic, isBranch, target, operands }) => {
    const isCall = mnemonic.includes('call');
    if (isBranch) return !isCall && target !== undefined && target >= address && target < end;
    return mnemonic.endsWith('jmp') && operands.startsWith('*') && target === undefined;
  });
  findings.check(
    name,
    !comesBack,
    'no jump of it leads back to its start',
    'it is declared independent, but it jumps, or might, to the bytes under the jump',
  );
}
