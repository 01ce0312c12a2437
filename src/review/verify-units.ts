// Recorded units against the shipped object: the compiler's bytes are there, and only there.
import { decodeMask, maskedDigest, type MaskedCode } from '../build/index.js';
import type { Patch, UnitProof } from '../patchfile/index.js';
import type { Evidence } from './evidence.js';
import { at, Findings, type Finding } from './findings.js';

/** Bytes that a search may compare; that of an honest patch compares hardly more than it finds. */
const mostCompared = 1_000_000_000;
const anchorSize = 64;

export function verifyUnits({ metadata, hunks }: Patch, evidence: Evidence): Finding[] {
  const findings = new Findings('unit');
  for (const unit of metadata.units) verifyUnit(unit, evidence, findings);
  for (const { name, address, size } of hunks) {
    const isInside = metadata.units.some(
      (unit) => address >= unit.address && address + size <= unit.address + unit.size,
    );
    if (isInside) continue;
    findings.add(name, 'open', 'no unit is recorded in which it lies, so only its own bytes count');
  }
  return findings.all;
}

function verifyUnit(unit: UnitProof, evidence: Evidence, findings: Findings): void {
  const { file, address, size, isUnique, sha256 } = unit;
  const place = `${size} bytes at ${at(address)}`;
  const mask = decodeMask(unit.masked, size);
  if (!mask) {
    findings.add(file, 'refuted', 'what is recorded of its masked bytes does not fit its size');
    return;
  }
  if (!evidence.isCode(address, size)) {
    findings.add(file, 'refuted', `the object has no code of ${place}`);
    return;
  }
  const code = { bytes: evidence.shipped.bytesAt(address, size), mask };
  const counted = mask.reduce((sum, one) => sum + one, 0);
  findings.check(
    file,
    maskedDigest(code) === sha256,
    `${counted} of its ${place} are those of the compiler, by their digest; the linker wrote the others`,
    `its ${place} are not those of the compiler`,
  );
  if (!isUnique) return;
  const count = countPlaces(evidence.shipped.text.bytes, code);
  if (count === undefined)
    findings.add(file, 'refuted', 'whether its code is there once cannot be found out');
  else
    findings.check(file, count === 1, 'nothing else in .text is like it', 'its code is there more than once');
}

/** 0, 1, or 2 for more; undefined where the answer would take too long. */
function countPlaces(text: Uint8Array, { bytes, mask }: MaskedCode): number | undefined {
  const start = anchorOf(mask);
  const haystack = Buffer.from(text.buffer, text.byteOffset, text.length);
  const needle = bytes.subarray(start, Math.min(endOfRun(mask, start), start + anchorSize));
  if (needle.length === 0) return undefined;
  let [count, compared] = [0, 0];
  for (let found = haystack.indexOf(needle); found >= 0; found = haystack.indexOf(needle, found + 1)) {
    const position = found - start;
    if (position < 0 || position + bytes.length > text.length) continue;
    let index = 0;
    while (index < bytes.length && (mask[index] === 0 || bytes[index] === text[position + index])) index++;
    compared += index + 1;
    if (index === bytes.length) count++;
    if (count > 1) return count;
    if (compared > mostCompared) return undefined;
  }
  return count;
}

/** Where the longest stretch of bytes that count begins. */
function anchorOf(mask: Uint8Array): number {
  let [best, longest] = [0, 0];
  for (let start = 0; start < mask.length;) {
    const end = endOfRun(mask, start);
    if (end - start > longest) [best, longest] = [start, end - start];
    start = end + 1;
  }
  return best;
}

function endOfRun(mask: Uint8Array, start: number): number {
  const end = mask.indexOf(0, start);
  return end < 0 ? mask.length : end;
}
