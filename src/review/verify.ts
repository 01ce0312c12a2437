// Repeats the proof of a patch with nothing but the shipped object.
import type { Patch } from '../patchfile/index.js';
import { disassemble, type Instruction } from './disassemble.js';
import { Evidence } from './evidence.js';
import type { FoundObject } from './find-object.js';
import { at, Findings, type Finding } from './findings.js';
import { verifyHunks } from './verify-hunks.js';
import { verifyRelocations, verifyUnwinding } from './verify-image.js';
import { verifySymbols } from './verify-symbols.js';
import { verifyUnits } from './verify-units.js';

export interface Verification {
  /** Refuted when any finding is. */
  readonly verdict: 'proved' | 'refuted';
  readonly findings: readonly Finding[];
}

/**
 * What the object shows about every statement of a patch that was read and checked already. The recipe, the source and
 * the compiler are not asked. Throws ELF_MALFORMED where the object is cut off, and BUILD_TOOL_FAILED.
 */
export async function verifyPatch(
  patch: Patch,
  { shipped, debug }: Pick<FoundObject, 'shipped' | 'debug'>,
): Promise<Verification> {
  const evidence = new Evidence(shipped, debug);
  const codeOf = await readCode(patch, evidence);
  const findings = [
    ...verifyObject(patch, evidence),
    ...verifyHunks(patch, evidence, codeOf),
    ...verifyUnits(patch, evidence),
    ...verifySymbols(patch, evidence, codeOf),
    ...verifyRelocations(patch, evidence),
    ...verifyUnwinding(patch),
  ];
  const isRefuted = findings.some(({ state }) => state === 'refuted');
  return { verdict: isRefuted ? 'refuted' : 'proved', findings };
}

function verifyObject({ buildId, objectSize, metadata }: Patch, { shipped }: Evidence): Finding[] {
  const findings = new Findings('object');
  findings.check(
    metadata.objectName,
    shipped.buildId === buildId,
    `its build-id is ${buildId}`,
    `its build-id is ${shipped.buildId}, and the patch is for ${buildId}`,
  );
  findings.check(
    metadata.objectName,
    shipped.imageEnd === objectSize,
    `its memory ends at ${at(objectSize)}`,
    `its memory ends at ${at(shipped.imageEnd)}, and the patch says ${at(objectSize)}`,
  );
  return findings.all;
}

/** Bytes. Entries of an unwind table that lies may overlap. */
const mostCode = 32 * 1024 * 1024;

/** The instructions of all functions that hunks or recorded operands are about, by their addresses. */
async function readCode(
  { hunks, metadata }: Patch,
  evidence: Evidence,
): Promise<(address: number) => readonly Instruction[]> {
  const places = [
    ...hunks.map(({ address }) => address),
    ...metadata.proof.flatMap(({ operand }) => (operand ? [operand.at] : [])),
  ];
  const lengths = new Map<number, number>();
  let total = 0;
  for (const place of places) {
    const frame = evidence.frameAround(place);
    if (!frame || lengths.has(frame.start) || !evidence.isCode(frame.start, frame.length)) continue;
    total += frame.length;
    if (total > mostCode) break;
    lengths.set(frame.start, frame.length);
  }
  const ranges = [...lengths].map(([address, length]) => ({
    address,
    bytes: evidence.shipped.bytesAt(address, length),
  }));
  const listings = await disassemble(ranges);
  const codes = new Map(ranges.map(({ address }, index) => [address, listings[index] ?? []]));
  return (address) => codes.get(address) ?? [];
}
