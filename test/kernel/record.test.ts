// The record of what is loaded, and the file of switches: what is written is read back, and rubbish is no record.
import { expect, test } from 'vitest';
import { parseRecord, parseSysctls, printRecord } from '../../src/kernel/index.js';

const record = {
  module: 'kcare_test_2',
  level: 2,
  patchset: 'K20261128_01',
  effective: '6.1.192-2',
  loaded: '2026-11-28T03:00:00.000Z',
  sha256: 'ab'.repeat(32),
  cves: [{ id: 'CVE-2099-0001', score: '7.8', url: 'https://example.com/1', description: 'Two words' }],
};

test('a record is read back as it was written, and a line break in a text cannot forge a line', () => {
  expect(parseRecord(printRecord(record))).toEqual(record);
  const [cve] = record.cves;
  const forged = {
    ...record,
    cves: [{ ...cve, id: 'CVE-1', score: '', url: '', description: 'a\nmodule x' }],
  };
  expect(parseRecord(printRecord(forged))?.module).toBe('kcare_test_2');
});

test.each(['', 'kcare 2\nmodule kcare_1\n', printRecord(), 'kcare 1\nmodule other\n'])(
  '%j is no record',
  (text) => {
    expect(parseRecord(text)).toBeUndefined();
  },
);

test('switches are read as sysctl.conf has them, and each bad line is named', () => {
  const text = '# comment\nkcare_modify_ldt = 1\nfs.enforce_symlinksifowner=1\nnonsense\nnet..x=1\n';
  const { settings, problems } = parseSysctls(text);
  expect(settings.map(({ key, value }) => [key, value])).toEqual([
    ['kcare_modify_ldt', '1'],
    ['fs.enforce_symlinksifowner', '1'],
  ]);
  expect(problems).toHaveLength(2);
  expect(problems[0]).toMatch(/^line 4/);
});
