// kcare.conf: every key with its values, mistakes with their line, and any text at all.
import { describe, expect, it, test } from 'vitest';
import { KcareError } from '../../src/base/errors.js';
import { configKeys, parseConfig, type AgentConfig } from '../../src/agent/index.js';
import { patchsetSelection } from '../../src/agent/selection.js';
import { defaultConfig } from '../../src/agent/config.js';
import { random } from '../random.js';

const parse = (text: string): AgentConfig => parseConfig(text).config;

describe('kcare.conf', () => {
  const table: [string, Partial<AgentConfig>][] = [
    ['', {}],
    ['# AUTO_UPDATE=False', {}],
    ['AUTO_UPDATE=False', { autoUpdate: false }],
    ['AUTO_UPDATE=NO', { autoUpdate: false }],
    ['AUTO_UPDATE=0', { autoUpdate: false }],
    ['AUTO_UPDATE=no\nAUTO_UPDATE=YES', { autoUpdate: true }],
    ['AUTO_UPDATE=1', { autoUpdate: true }],
    ['PATCH_METHOD=nofreeze', { patchMethod: 'nofreeze' }],
    ['PATCH_SERVER=https://patches.example.org/', { patchServer: 'https://patches.example.org/' }],
    ['PATCH_SERVER=/srv/feed  # local', { patchServer: '/srv/feed' }],
    ['  export PATCH_SERVER="/srv/my feed#1"', { patchServer: '/srv/my feed#1' }],
    ['PATCH_SERVER=\'/srv/$HOME "x"\'', { patchServer: '/srv/$HOME "x"' }],
    ['PATCH_SERVER="/a\\"b\\\\c\\$d"', { patchServer: '/a"b\\c$d' }],
    ['PATCH_SERVER=/a\\ b', { patchServer: '/a b' }],
    ['PATCH_SERVER=file:///srv/feed', { patchServer: 'file:///srv/feed' }],
    ['PATCH_SERVER = /srv/feed', { patchServer: '/srv/feed' }],
    ['PATCH_SERVER=/srv/feed\r', { patchServer: '/srv/feed' }],
    ['PATCH_SERVER=', {}],
    [
      'REGISTRATION_URL=http://10.0.0.1/admin/api/kcare',
      { registrationUrl: 'http://10.0.0.1/admin/api/kcare' },
    ],
    ['PREFIX=24h', { prefix: '24h' }],
    ['PATCH_TYPE=extra', { patchType: 'extra' }],
    ['UPDATE_POLICY=LOCAL_FIRST', { updatePolicy: 'LOCAL_FIRST' }],
    ['IGNORE_UNKNOWN_KERNEL=True', { ignoreUnknownKernel: true }],
    ['LOAD_KCARE_SYSCTL=0', { loadKcareSysctl: false }],
    ['STICKY_PATCH=250518', { stickyPatch: { kind: 'date', date: '2018-05-25' } }],
    ['STICKY_PATCH=03052018', { stickyPatch: { kind: 'date', date: '2018-05-03' } }],
    ['STICKY_PATCH=2020-09-16', { stickyPatch: { kind: 'date', date: '2020-09-16' } }],
    ['STICKY_PATCH=KEY', { stickyPatch: { kind: 'key' } }],
    ['STICKY_PATCHSET=U20210129_02', { stickyPatchset: 'U20210129_02' }],
    ['AUTO_STICKY_PATCHSET=K20230908_02', { autoStickyPatchset: 'K20230908_02' }],
    ['UPDATE_DELAY=24h', { updateDelayMs: 86_400_000 }],
    ['AUTO_UPDATE_DELAY=2d', { autoUpdateDelayMs: 172_800_000 }],
    ['REPORT_FQDN=True', { reportFqdn: true }],
    ['FORCE_GID=48', { forceGid: 48 }],
    ['USERSPACE_PATCHES=libs,qemu', { userspacePatches: ['libs', 'qemu'] }],
    ['http_proxy=http://proxy.example.org:3128', { httpProxy: 'http://proxy.example.org:3128' }],
    ['HTTPS_PROXY=http://proxy.example.org:3128', { httpsProxy: 'http://proxy.example.org:3128' }],
  ];
  test.each(table)('%j', (text, expected) => {
    expect(parseConfig(text)).toEqual({ config: { ...defaultConfig, ...expected }, warnings: [] });
  });

  it('has a row above for every key', () => {
    const tested = table.map(([text]) => /(\w+) ?=/.exec(text)?.[1]?.toUpperCase());
    expect(configKeys.filter((key) => !tested.includes(key))).toEqual([]);
  });

  it('warns of unknown keys with their line, also of those in the wrong case', () => {
    expect(parseConfig('PREFIX=test\nPATCHSERVER=x\nprefix=x\n__proto__=x').warnings).toMatchObject([
      { line: 2, message: expect.stringContaining('PATCHSERVER') as string },
      { line: 3 },
      { line: 4 },
    ]);
  });

  test.each([
    'AUTO_UPDATE=maybe',
    'PATCH_METHOD=fast',
    'UPDATE_POLICY=NEVER',
    'REGISTRATION_URL=ftp://x/',
    'HTTP_PROXY=proxy:3128x//',
    'PREFIX=../x',
    'STICKY_PATCH=310218',
    'STICKY_PATCH=key',
    'STICKY_PATCHSET=20210129',
    'UPDATE_DELAY=24',
    'FORCE_GID=apache',
    'USERSPACE_PATCHES=libs,kernel',
    'PATCH_SERVER="open',
    'PATCH_SERVER=two words',
    'PATCH_SERVER=srv/feed',
    'PATCH_SERVER=ftp://patches.example.com',
    'PATCH_SERVER=http://',
    'just words',
    '=x',
  ])('%j is refused with its line', (line) => {
    expect(() => parse(`PREFIX=test\n${line}`)).toThrow(
      expect.objectContaining({
        code: 'CONFIG_INVALID',
        message: expect.stringMatching(/^Line 2: /) as string,
      }) as Error,
    );
  });

  it('never fails otherwise, whatever the text', () => {
    const next = random(1122);
    const words = [
      ...configKeys,
      '=',
      '=',
      '"',
      "'",
      '\\',
      '\n',
      ' ',
      '#',
      '$(x)',
      '\0',
      'True',
      '12',
      'http://x',
      '\u2028',
      '\ud800',
      '\r\n',
    ];
    let parsed = 0;
    for (let round = 0; round < 4000; round++) {
      const text = Array.from({ length: next() % 14 }, () => words[next() % words.length]).join('');
      try {
        parseConfig(text);
        parsed += 1;
      } catch (thrown) {
        if (!(thrown instanceof KcareError) || thrown.code !== 'CONFIG_INVALID') throw thrown;
      }
    }
    expect(parsed).toBeGreaterThan(100);
  });
});

describe('the chosen patchset', () => {
  const patchsets = [
    { name: 'U20260101_01', released: '2026-01-01T12:00:00Z' },
    { name: 'U20260110_01', released: '2026-01-10T12:00:00Z' },
    { name: 'U20260110_02', released: '2026-01-10T18:00:00Z' },
  ];
  const now = new Date('2026-01-11T12:00:00Z');
  test.each([
    ['', 'U20260110_02'],
    ['UPDATE_DELAY=24h', 'U20260110_01'],
    ['UPDATE_DELAY=2d', 'U20260101_01'],
    ['UPDATE_DELAY=30d', undefined],
    ['STICKY_PATCH=100126', 'U20260110_02'],
    ['STICKY_PATCH=2026-01-09', 'U20260101_01'],
    ['STICKY_PATCH=311225', undefined],
    ['STICKY_PATCHSET=U20260110_01', 'U20260110_01'],
    ['STICKY_PATCHSET=U20260109_09', 'U20260101_01'],
    ['STICKY_PATCHSET=K20200101_01', 'U20260110_02'],
    ['AUTO_UPDATE_DELAY=30d', 'U20260110_02'],
    ['STICKY_PATCHSET=U20260110_02\nUPDATE_DELAY=24h', 'U20260110_01'],
  ])('with %j is %s', (text, expected) => {
    expect(patchsetSelection(parse(text), now)(patchsets)).toBe(expected);
  });

  it('is not guessed when the rule cannot be followed', () => {
    expect(() => patchsetSelection(parse('STICKY_PATCH=KEY'), now)).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID' }) as Error,
    );
  });
});
