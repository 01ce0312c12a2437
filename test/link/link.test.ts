// The link layer: gaps, headers, relocated images and transitions, all as pure data.
import { describe, expect, it } from 'vitest';
import { advance, remoteAddress, type RemoteAddress } from '../../src/base/address.js';
import { KcareError } from '../../src/base/errors.js';
import {
  buildImage,
  chooseGaps,
  decodeHeader,
  encodeHeader,
  layOutImage,
  planTransition,
  type ImageHeader,
} from '../../src/link/index.js';
import { samplePatch } from '../patchfile/sample.js';
import { random } from '../random.js';

const address = remoteAddress(0x7f00_0000_0000n);
const bias = remoteAddress(0x7f00_1000_0000n);
const release = { patchset: 'U20261122_01', sha256: 'ab'.repeat(32) };
const word = (): bigint => 0x1234n;
const foreign = (): RemoteAddress => remoteAddress(0x7f12_3456_7890n);

function sampleImage(level = 3, at = address): ReturnType<typeof buildImage> {
  const patch = samplePatch({ metadata: { ...samplePatch().metadata, level } });
  return buildImage(patch, layOutImage(patch), { image: at, bias, foreign, word }, release);
}

function reader(bytes: Uint8Array): (offset: number, length: number) => Uint8Array {
  return (offset, length) => {
    if (offset + length > bytes.length) throw new KcareError('TARGET_MEMORY', 'outside');
    return bytes.subarray(offset, offset + length);
  };
}

describe('image', () => {
  it('decodes to the header it was made from', () => {
    const image = sampleImage();
    const decoded = decodeHeader(address, reader(image.constant));
    expect(decoded?.hunks.map(({ name, jump }) => [name, jump])).toEqual([['parse', advance(bias, 0x1000)]]);
    expect(decoded).toMatchObject({
      state: 'prepared',
      level: 3,
      patchset: 'U20261122_01',
      buildId: samplePatch().buildId,
    });
    expect(decoded?.description.cves[0]?.id).toBe('CVE-2026-0001');
  });

  it('is relocated for its place', () => {
    const patch = samplePatch();
    const layout = layOutImage(patch);
    const { constant, header } = sampleImage();
    const view = new DataView(constant.buffer, constant.byteOffset);
    const text = layout.offsets.get('.text') ?? 0;
    const place = (offset: number): bigint => advance(address, text + offset);
    expect(place(4) + BigInt(view.getInt32(text + 4, true)) + 4n).toBe(
      advance(address, layout.offsets.get('.rodata') ?? 0),
    );
    expect(place(12) + BigInt(view.getInt32(text + 12, true)) + 4n).toBe(advance(bias, 0x1000));
    expect(view.getBigUint64(layout.offsets.get('.kcare.got') ?? 0, true)).toBe(foreign());
    const [hunk] = header.hunks;
    const jump = Buffer.from(hunk?.written ?? []);
    expect(jump[0]).toBe(0xe9);
    expect((hunk?.jump ?? 0n) + 5n + BigInt(jump.readInt32LE(1))).toBe(hunk?.replacement);
  });

  it('keeps data apart from code (R9)', () => {
    const layout = layOutImage(samplePatch());
    expect(layout.offsets.get('.data')).toBeGreaterThanOrEqual(layout.executableSize);
    expect(layout.executableSize % 4096).toBe(0);
  });

  it('out of reach is refused', () => {
    expect(() => sampleImage(3, remoteAddress(0x10000))).toThrow(expect.objectContaining({ code: 'NO_GAP' }));
  });

  it.each([
    [0x1ffb, undefined],
    [0x1ffc, 'JUMP_CROSSES_PAGE'],
    [0x1fff, 'JUMP_CROSSES_PAGE'],
    [0x2000, undefined],
  ])('with a jump at %i is refused only if that crosses a page', (place, code) => {
    const patch = samplePatch();
    const hunks = patch.hunks.map((hunk) => ({ ...hunk, address: place }));
    const build = (): unknown =>
      buildImage({ ...patch, hunks }, layOutImage(patch), { image: address, bias, foreign, word }, release);
    if (code === undefined) expect(build).not.toThrow();
    else expect(build).toThrow(expect.objectContaining({ code }));
  });

  it('keeps endbr64 and jumps behind it', () => {
    const original = new Uint8Array(16).fill(0x90);
    original.set([0xf3, 0x0f, 0x1e, 0xfa]);
    const patch = samplePatch();
    const [first, ...rest] = patch.hunks;
    const hunks = first ? [{ ...first, original }, ...rest] : [];
    const image = buildImage(
      { ...patch, hunks },
      layOutImage(patch),
      { image: address, bias, foreign, word },
      release,
    );
    expect(image.header.hunks[0]?.jump).toBe(advance(bias, 0x1004));
  });
});

describe('damaged header', () => {
  it('is refused, whatever the damage', () => {
    const whole = sampleImage().constant;
    const next = random(7);
    let refused = 0;
    for (let round = 0; round < 20_000; round++) {
      const damaged = Buffer.from(whole);
      for (let count = 1 + (next() % 3); count > 0; count--) damaged[8 + (next() % 400)] = next() & 0xff;
      try {
        decodeHeader(address, reader(damaged));
      } catch (error) {
        if (!(error instanceof KcareError)) throw error;
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(15_000);
  });

  it('without the magic is no header at all', () => {
    expect(decodeHeader(address, reader(new Uint8Array(4096)))).toBeUndefined();
  });
});

describe('gaps', () => {
  const range = (start: bigint, end: bigint, grows?: 'up' | 'down') => ({
    start: remoteAddress(start),
    end: remoteAddress(end),
    grows,
  });
  const object = range(0x7f00_1000_0000n, 0x7f00_1050_0000n);

  it('lie outside of everything mapped and within reach, nearest first', () => {
    const occupied = [
      range(0x5555_0000_0000n, 0x5555_0001_0000n),
      range(0x7f00_0ffff000n, 0x7f00_1000_0000n),
      object,
    ];
    const gaps = chooseGaps(occupied, object, 5000);
    expect(gaps[0]).toBe(0x7f00_1050_0000n);
    expect(gaps).toContain(0x7f00_0fff_d000n);
    for (const gap of gaps) {
      expect(gap % 4096n).toBe(0n);
      expect(occupied.some(({ start, end }) => gap < end && gap + 8192n > start)).toBe(false);
      expect(gap > object.start ? gap - object.start : object.end - gap).toBeLessThan(0x8000_0000n);
    }
  });

  it('leave room for a heap and a stack to grow', () => {
    const occupied = [
      object,
      range(0x7f00_1060_0000n, 0x7f00_1070_0000n, 'up'),
      range(0x7f00_2070_0000n, 0x7f00_2080_0000n, 'down'),
    ];
    for (const gap of chooseGaps(occupied, object, 4096)) {
      expect(gap >= 0x7f00_1070_0000n && gap < 0x7f00_1170_0000n).toBe(false);
      expect(gap >= 0x7f00_1f70_0000n && gap < 0x7f00_2070_0000n).toBe(false);
    }
  });

  it('that do not exist are an error', () => {
    const full = [range(0x1000n, 0x7fff_ffff_f000n)];
    expect(() => chooseGaps(full, object, 4096)).toThrow(expect.objectContaining({ code: 'NO_GAP' }));
  });
});

describe('transition', () => {
  const first = sampleImage(3).header;
  const second = sampleImage(4, remoteAddress(0x7f00_0100_0000n)).header;
  const [oldHunk] = first.hunks;
  const [newHunk] = second.hunks;
  const inMemory = (bytes: Uint8Array | undefined) => (): Uint8Array => bytes ?? new Uint8Array();
  const plan = (present: ImageHeader[], next: ImageHeader | undefined, bytes: Uint8Array | undefined) =>
    planTransition({ present, next, guarded: [], read: inMemory(bytes) }).writes.filter(
      ({ address: at }) => at === oldHunk?.jump,
    );

  it.each([
    ['apply', [], first, oldHunk?.saved, oldHunk?.written],
    ['upgrade', [first], second, oldHunk?.written, newHunk?.written],
    ['unload', [first], undefined, oldHunk?.written, oldHunk?.saved],
    [
      'repair of an upgrade that stopped before the jump',
      [first, second],
      second,
      oldHunk?.written,
      newHunk?.written,
    ],
    [
      'undoing an upgrade that stopped behind the jump',
      [first, second],
      undefined,
      newHunk?.written,
      oldHunk?.saved,
    ],
  ])('%s writes the one change', (_, present, next, now, then) => {
    expect(plan(present, next, now)).toEqual([{ address: oldHunk?.jump, expected: now, replacement: then }]);
  });

  it('writes nothing where the bytes are right already', () => {
    expect(plan([first], undefined, oldHunk?.saved)).toEqual([]);
  });

  it('refuses bytes that nobody of us wrote (R3)', () => {
    expect(() => plan([], first, Buffer.from('cccccccccc', 'hex'))).toThrow(
      expect.objectContaining({ code: 'BYTES_MISMATCH' }),
    );
  });

  it('guards the code of every image that goes', () => {
    const { guarded, discarded } = planTransition({
      present: [first],
      next: second,
      guarded: [],
      read: inMemory(oldHunk?.written),
    });
    expect(guarded).toEqual([
      expect.objectContaining({ start: first.address, end: advance(first.address, first.executableSize) }),
    ]);
    expect(discarded).toEqual([first]);
  });

  it('encodes equal headers equally', () => {
    expect(Buffer.compare(encodeHeader(first), encodeHeader(first))).toBe(0);
  });
});
