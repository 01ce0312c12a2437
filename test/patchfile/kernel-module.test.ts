// What a livepatch module says of itself is read from untrusted bytes: whole or refused, never half.
import { expect, test } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import { levelOfModule, readKernelModule, writeElf } from '../../src/patchfile/index.js';
import { random } from '../random.js';

const fields = {
  livepatch: 'Y',
  name: 'kcare_test_2',
  vermagic: '6.1.0-56-cloud-amd64 SMP preempt mod_unload modversions ',
  kcare_kernel: 'ab'.repeat(20),
  kcare_level: '2',
  kcare_effective: '6.1.192-2',
  kcare_cve: 'CVE-2099-0001 7.8 https://example.com/1 Two words',
};

function moduleWith(changes: Readonly<Record<string, string>> = {}): Uint8Array {
  const text = Object.entries({ ...fields, ...changes })
    .flatMap(([key, value]) => (value === '' ? [] : [`${key}=${value}\0`]))
    .join('');
  const info = { name: '.modinfo', type: 1, flags: 2, alignment: 1, bytes: Buffer.from(text) };
  return writeElf(1, [info], [], []);
}

test('a module tells its level, kernel and vulnerabilities', () => {
  const module = readKernelModule(moduleWith());
  expect(module).toMatchObject({ name: 'kcare_test_2', level: 2, release: '6.1.0-56-cloud-amd64' });
  expect(module.cves).toEqual([
    { id: 'CVE-2099-0001', score: '7.8', url: 'https://example.com/1', description: 'Two words' },
  ]);
  expect(module.isSigned).toBe(false);
});

test.each([
  ['no live patch', { livepatch: '' }, /lacks "livepatch"/],
  ['the module of somebody else', { name: 'livepatch_2' }, /not of the form kcare_/],
  ['another level than its name says', { kcare_level: '3' }, /name and kcare_level differ/],
  ['no build-id', { kcare_kernel: 'xyz' }, /not a build-id/],
  ['a field with a line break', { kcare_effective: '6.1\n0' }, /no line of text/],
  ['a vulnerability without a name', { kcare_cve: ' 7' }, /kcare_cve/],
])('%s is refused', (_what, changes, message) => {
  expect(() => readKernelModule(moduleWith(changes))).toThrow(message);
});

test('only names of ours with a level are ours', () => {
  const names = ['kcare_1', 'kcare_a_b_12', 'kcare', 'kcare_0', 'kcare_a', 'other_1', 'kcare_a_1x'];
  expect(names.map(levelOfModule)).toEqual([1, 12, undefined, undefined, undefined, undefined, undefined]);
});

test('damaged modules are refused with a code or read as they are, never anything else', () => {
  const seed = 20261128;
  const next = random(seed);
  const whole = moduleWith();
  for (let round = 0; round < 3000; round++) {
    const bytes = Uint8Array.from(whole).subarray(0, next() % 3 === 0 ? next() % whole.length : undefined);
    for (let changes = next() % 4; changes > 0 && bytes.length > 0; changes--)
      bytes[next() % bytes.length] = next() & 0xff;
    try {
      readKernelModule(bytes);
    } catch (thrown) {
      const code = thrown instanceof KcareError ? thrown.code : String(thrown);
      expect(code, `seed ${seed}, round ${round}`).toMatch(/^(ELF_|KERNEL_PATCH_)/);
    }
  }
});
