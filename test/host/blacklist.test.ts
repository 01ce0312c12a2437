// The blacklist grammar as a table, and its regular expressions against those of grep.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, it, test } from 'vitest';
import { Blacklist, compilePosixExpression } from '../../src/host/index.js';
import { random } from '../random.js';

const matches = (line: string, executable: string): boolean =>
  Blacklist.parse(line, 'list').match(executable) !== undefined;

describe('blacklist', () => {
  test.each([
    ['path:/usr/sbin/clamd', '/usr/sbin/clamd', true],
    ['path:/usr/sbin/clamd', '/usr/sbin/clamd2', false],
    ['path:/usr/sbin/clamd', '/opt/usr/sbin/clamd', false],
    ['path:/usr/libexec/docker/docker-*', '/usr/libexec/docker/docker-proxy', true],
    ['path: /opt/Symantec/*', '/opt/Symantec/a/b/c', true],
    ['path: /opt/Symantec/*', '/opt/Symantec', false],
    ['path:/opt/?/x', '/opt/a/x', true],
    ['path:/opt/?/x', '/opt/ab/x', false],
    ['path:/opt/a.b', '/opt/axb', false],
    ['path:/opt/with space/x', '/opt/with space/x', true],
    ['path:/opt/[ab]+(x)', '/opt/[ab]+(x)', true],
    ['path:/opt/a#b', '/opt/a#b', true],
    ['path:/opt/line*', '/opt/line\nbreak', true],
    ['filename:docker*', '/usr/bin/dockerd', true],
    ['filename:docker*', '/docker/x', false],
    ['filename:gdb', '/home/me/bin/gdb', true],
    ['filename:gdb', '/usr/bin/gdbserver', false],
    ['filename: gdb  # debugger', '/usr/bin/gdb', true],
    ['  filename :gdb', '/usr/bin/gdb', true],
    ['filename:gdb\r', '/usr/bin/gdb', true],
    ['regex:/usr/bin/[[:alnum:]]+', '/usr/bin/python3', true],
    ['regex:/usr/bin/[[:alnum:]]+', '/usr/bin/python3.11', false],
    ['regex:/usr/bin/[[:alnum:]]+', '/opt/usr/bin/python3', false],
    ['regex:/usr/(s?bin|libexec)/x{2,3}', '/usr/sbin/xxx', true],
    ['regex:/usr/(s?bin|libexec)/x{2,3}', '/usr/sbin/x', false],
    ['# path:/usr/bin/x', '/usr/bin/x', false],
    ['', '/usr/bin/x', false],
  ])('%j on %j: %j', (line, executable, expected) => {
    expect(Blacklist.parse(line, 'list').problems).toEqual([]);
    expect(matches(line, executable)).toBe(expected);
  });

  it('names the line, the file and the reason that decide: the first that matches', () => {
    const list = Blacklist.parse(
      '# why\nfilename:a*\n\npath:/bin/ab  # later\nfilename:b # sooner',
      '/etc/list',
    );
    expect(list.match('/bin/ab')).toEqual({ file: '/etc/list', line: 2, text: 'filename:a*', reason: '' });
    expect(list.match('/bin/b')).toEqual({
      file: '/etc/list',
      line: 5,
      text: 'filename:b',
      reason: 'sooner',
    });
    expect(list.match('/bin/c')).toBeUndefined();
  });

  it('reports lines that it does not understand by number, and obeys the others', () => {
    const wrong = [
      'gdb',
      'file:/usr/bin/gdb',
      'path:',
      'path:bin/x',
      'filename:/usr/bin/x',
      ':x',
      'regex:a(b',
      'regex:[[:nope:]]',
      'regex:*a',
      'regex:(?=a)',
      'regex:a**',
      'regex:\\d',
      'regex:a{2',
      'regex:[a',
      'regex:b-a[z-a]',
    ];
    const list = Blacklist.parse([...wrong, 'filename:gdb'].join('\n'), 'list');
    expect(list.problems.map(({ line }) => line)).toEqual(wrong.map((_, index) => index + 1));
    for (const { message } of list.problems) expect(message).not.toBe('');
    expect(list.match('/usr/bin/gdb')).toMatchObject({ line: wrong.length + 1 });
  });

  it('is shipped without mistakes, and with a reason on each line', () => {
    const text = readFileSync(new URL('../../blacklists/default', import.meta.url), 'utf8');
    const list = Blacklist.parse(text, 'default');
    expect(list.problems).toEqual([]);
    const rules = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(rules.length).toBeGreaterThan(10);
    for (const rule of rules) expect(rule).toMatch(/\S\s+# \S/);
    expect(list.match('/usr/bin/gdb')?.reason).toBe('debugger');
    expect(list.match('/usr/bin/valgrind.bin')).toBeDefined();
    for (const program of ['/usr/sbin/nginx', '/usr/bin/bash', '/lib/systemd/systemd']) {
      expect(list.match(program)).toBeUndefined();
    }
  });

  it('never crashes on any text', () => {
    const next = random(7);
    const alphabet = [
      'path',
      'filename',
      'regex',
      ':',
      '/',
      '*',
      '?',
      '#',
      ' ',
      '\n',
      '[',
      ']',
      '(',
      ')',
      '{',
      '}',
      '\\',
      '^',
      '-',
      'a',
      '\0',
      '😀',
      '[:alpha:]',
      '|',
      '+',
      '.',
    ];
    for (let round = 0; round < 3000; round++) {
      const text = Array.from({ length: next() % 24 }, () => alphabet[next() % alphabet.length]).join('');
      Blacklist.parse(text, 'list').match('/usr/bin/a');
    }
  });
});

describe('POSIX expressions', () => {
  const subjects = [
    '',
    'a',
    'b',
    'ab',
    'aab',
    'abab',
    'A',
    '1',
    ' ',
    'a b',
    '-',
    ']',
    '\\',
    '^',
    '$',
    '.',
    'a.b',
    'axb',
    'aa',
    'aaa',
    'aaaa',
    '{',
    '}',
    '(',
    '/usr/bin/x',
    'x-y',
    '\t',
  ];
  const grep = (expression: string): boolean[] | undefined => {
    const { status, stdout } = spawnSync('grep', ['-xnE', '-e', expression], {
      input: `${subjects.join('\n')}\n`,
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C.UTF-8' },
    });
    if (status === 2) return undefined;
    const lines = new Set(stdout.split('\n').map((line) => Number(line.split(':')[0])));
    return subjects.map((_, index) => lines.has(index + 1));
  };

  test.each([
    'a',
    'a*b',
    '(ab)+',
    '(ab|a)*b?',
    '[[:alpha:]]+',
    '[^[:space:]]+',
    '[]a]',
    '[^]a]',
    '[a-]',
    '[\\]',
    '[.]',
    '\\.',
    '\\^',
    'a{2}',
    'a{2,}',
    'a{1,3}',
    '[[:upper:][:digit:]]',
    '[a-c]b',
    '^a$',
    '.',
    '.*',
    '/[^/]*/bin/x',
    '[[.-.]]',
    '[[=a=]]',
    '[x]-[y]',
    '()|a',
    '[*]',
    '\\$',
    '[$]',
    'a|b|',
    '[[:punct:]]',
    '[[:blank:]]',
  ])('%s matches what grep -xE matches', (expression) => {
    const expected = grep(expression);
    expect(expected).toBeDefined();
    expect(subjects.map((subject) => compilePosixExpression(expression).test(subject))).toEqual(expected);
  });

  it('agree with grep on random expressions, or are refused', () => {
    const next = random(42);
    const atoms = [
      'a',
      'b',
      '.',
      '[ab]',
      '[^a]',
      '[[:alnum:]]',
      '\\.',
      '(a|b)',
      '(ab)',
      '-',
      ']',
      '\\\\',
      '[]-]',
      'x',
    ];
    const suffixes = ['', '', '', '*', '+', '?', '{2}', '{0,1}'];
    let compared = 0;
    for (let round = 0; round < 150; round++) {
      const expression = Array.from(
        { length: 1 + (next() % 4) },
        () =>
          `${atoms[next() % atoms.length] ?? ''}${suffixes[next() % suffixes.length] ?? ''}${next() % 6 === 0 ? '|' : ''}`,
      ).join('');
      const expected = grep(expression);
      if (!expected) continue;
      expect(
        subjects.map((subject) => compilePosixExpression(expression).test(subject)),
        expression,
      ).toEqual(expected);
      compared += 1;
    }
    expect(compared).toBeGreaterThan(100);
  });
});
