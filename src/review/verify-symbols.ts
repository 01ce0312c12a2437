// Places in the object to which a patch refers: each is shown by something in the object itself.
import type { Patch, PatchSymbol, SymbolProof } from '../patchfile/index.js';
import type { ElfSymbol, ThreadSlot } from '../elf/index.js';
import type { Instruction } from './disassemble.js';
import type { Evidence } from './evidence.js';
import { plainName } from './explain.js';
import { at, Findings, type Finding } from './findings.js';

type ObjectSymbol = PatchSymbol & { readonly where: 'object' };
type CodeOf = (address: number) => readonly Instruction[];

export function verifySymbols(patch: Patch, evidence: Evidence, codeOf: CodeOf): Finding[] {
  const findings = new Findings('symbol');
  const places = new Set(patch.hunks.map(({ name, address }) => `${name} ${address}`));
  for (const symbol of patch.symbols) {
    if (symbol.where === 'foreign') {
      const version = symbol.version === '' ? '' : `@${symbol.version}`;
      findings.add(`${symbol.name}${version}`, 'open', 'is looked up in the process, as the loader does it');
    }
    if (symbol.where !== 'object' || places.has(`${symbol.name} ${symbol.value}`)) continue;
    const proofs = patch.metadata.proof.filter(
      (proof) => proof.symbol === plainName(symbol.name) && proof.address === symbol.value,
    );
    const [isShown, reason] = evidenceFor(symbol, proofs, evidence, codeOf);
    findings.add(symbol.name, isShown ? 'proved' : 'refuted', reason);
  }
  verifyClaims(patch, findings);
  return findings.all;
}

type Answer = readonly [isShown: boolean, reason: string];

function evidenceFor(
  symbol: ObjectSymbol,
  proofs: readonly SymbolProof[],
  evidence: Evidence,
  codeOf: CodeOf,
): Answer {
  const kind = /\.(plt|got|pair|threadOffset|descriptor)$/.exec(symbol.name)?.[1];
  switch (kind) {
    case 'plt':
      return stub(symbol, evidence);
    case 'got':
      return slot(symbol, evidence);
    case 'pair':
    case 'threadOffset':
    case 'descriptor':
      return threadSlot(symbol, kind, evidence);
    default:
      return place(symbol, proofs, evidence, codeOf);
  }
}

function stub({ name, value }: ObjectSymbol, { shipped }: Evidence): Answer {
  const plain = plainName(name);
  const found = shipped.stubsByAddress.get(value);
  if (!found) return [false, `there is no stub at ${at(value)}`];
  if ('resolver' in found) {
    const own = shipped.defined.get(plain);
    const isOther = own !== undefined && own.value !== found.resolver;
    return isOther
      ? [false, `the stub at ${at(value)} is for the resolver at ${at(found.resolver)}`]
      : [true, `the stub at ${at(value)} goes through the slot for the resolver at ${at(found.resolver)}`];
  }
  return isNamed(found.symbol, plain)
    ? [true, `the stub at ${at(value)} goes through the slot of ${plain}`]
    : [false, `the stub at ${at(value)} is that of ${found.symbol.name}`];
}

/** Code may ask for a version: `.symver` puts it behind the name. */
function isNamed({ name, version }: ElfSymbol, asked: string): boolean {
  return asked === name || asked === `${name}@${version}` || asked === `${name}@@${version}`;
}

function slot({ name, value }: ObjectSymbol, { shipped, fixups }: Evidence): Answer {
  const plain = plainName(name);
  const found = fixups.get(value);
  if (!found) return [false, `the loader fills no slot at ${at(value)}`];
  if (found.symbol && !isNamed(found.symbol, plain))
    return [false, `the slot at ${at(value)} is that of ${found.symbol.name}`];
  if (found.symbol) return [true, `the loader fills the slot at ${at(value)} for ${plain}`];
  const own = shipped.defined.get(plain);
  return own !== undefined && own.value !== found.target
    ? [false, `the slot at ${at(value)} is for ${at(found.target)}, and ${plain} is at ${at(own.value)}`]
    : [true, `the loader fills the slot at ${at(value)} with what is at ${at(found.target)}`];
}

function threadSlot(symbol: ObjectSymbol, kind: ThreadSlot['kind'], { shipped }: Evidence): Answer {
  const { value } = symbol;
  const plain = plainName(symbol.name);
  const found = shipped.threadSlots.get(value);
  if (found?.kind !== kind) return [false, `there is no such thread-local slot at ${at(value)}`];
  const named = found.symbol?.name;
  const isOwn = plain.startsWith('thread-local');
  if (named === undefined ? !isOwn && !matchesOffset(shipped.threadLocal.get(plain), found) : named !== plain)
    return [false, `the thread-local slot at ${at(value)} is for ${named ?? 'the object itself'}`];
  return [true, `the loader fills the thread-local slot at ${at(value)}`];
}

const matchesOffset = (offset: number | undefined, slot: ThreadSlot): boolean =>
  offset === undefined || offset === slot.offset;

function place(
  { name, value, size, isFunction }: ObjectSymbol,
  proofs: readonly SymbolProof[],
  evidence: Evidence,
  codeOf: CodeOf,
): Answer {
  const entries = evidence.named(name);
  const entry = entries.find(({ address }) => address === value);
  if (entry && (size === 0 || entry.size === 0 || entry.size === size))
    return [true, `${entry.table} has it at ${at(value)}`];
  if (entry) return [false, `${entry.table} says ${entry.size} bytes, the patch ${size}`];
  const claimed = proofs.find(({ how }) => how === 'symbol-table');
  const [other] = entries;
  if (claimed || (other && evidence.shipped.exported.has(name)))
    return [false, other ? `${other.table} has it at ${at(other.address)}` : 'no symbol table has it'];
  const operands = proofs.flatMap(({ operand }) => operand ?? []);
  const leads = operands.map((operand) => readOperand(operand, value, evidence, codeOf));
  const direct = leads.find((lead) => lead?.isDirect === true);
  if (direct) return [true, direct.reason];
  const length = evidence.shipped.frames.get(value);
  if (isFunction && length !== undefined && (size === 0 || length === size))
    return [true, `the unwind table has a function of ${length} bytes at ${at(value)}`];
  const near = leads.find((lead) => lead !== undefined);
  if (near) return [true, near.reason];
  return [false, `nothing in the object shows that it is at ${at(value)}`];
}

interface Lead {
  /** The instruction means the very place. */
  readonly isDirect: boolean;
  readonly reason: string;
}

/** What the instruction around a recorded field refers to; undefined where it does not lead to `address`. */
function readOperand(
  { at: field, distance }: NonNullable<SymbolProof['operand']>,
  address: number,
  evidence: Evidence,
  codeOf: CodeOf,
): Lead | undefined {
  const frame = evidence.frameAround(field);
  const instruction = codeOf(frame?.start ?? -1).find(
    (one) => one.address < field && field + 4 <= one.address + one.size,
  );
  if (instruction?.target === undefined) return undefined;
  const { address: from, target } = instruction;
  if (target === address)
    return { isDirect: true, reason: `the instruction at ${at(from)} refers to ${at(address)}` };
  // Bytes behind the field, as those of a number in the instruction, are not counted in what was recorded.
  const behind = target - (evidence.shipped.int32At(field) + field + 4);
  const isSamePart =
    evidence.sectionAt(target) !== undefined && evidence.sectionAt(target) === evidence.sectionAt(address);
  if (!isSamePart || target - behind + distance !== address) return undefined;
  return {
    isDirect: false,
    reason: `the instruction at ${at(from)} refers to ${at(target)}, and the build says that both are of one unit`,
  };
}

/** What the proof says about a symbol is where the patch uses it. */
function verifyClaims({ metadata, symbols }: Patch, findings: Findings): void {
  for (const { symbol: name, address, how } of metadata.proof) {
    const used = symbols.filter((symbol) => symbol.where === 'object' && plainName(symbol.name) === name);
    if (address === undefined) {
      if (used.length > 0) continue;
      findings.add(name, 'open', `${how}: is found by an offset that only the build knows`);
      continue;
    }
    const isUsed = used.some((symbol) => symbol.where === 'object' && symbol.value === address);
    if (used.length > 0 && !isUsed)
      findings.add(name, 'refuted', `the proof is about ${at(address)}, and the patch uses another place`);
  }
}
