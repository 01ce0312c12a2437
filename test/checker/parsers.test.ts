// What containers may hold: files that are damaged, huge, misleading, or links to elsewhere.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readBuildId } from '../../src/checker/build-id.js';
import { parseOsRelease, readDistribution } from '../../src/checker/distribution.js';
import { parseDpkgStatus } from '../../src/checker/dpkg.js';
import { parseFileKey, scanMaps } from '../../src/checker/maps-scan.js';
import { openPackages } from '../../src/checker/packages.js';
import { RootView } from '../../src/checker/root-view.js';
import { parseRpmHeader, readRpmHeaders } from '../../src/checker/rpm.js';
import { parseMaps } from '../../src/proc/index.js';
import { random as integers } from '../random.js';
import { elfWithNotes, rpmHeader } from './files.js';
import { CheckerWorld } from './world.js';

const seed = 20261128;

/** Numbers from 0 on, below 1. */
function random(start: number): () => number {
  const next = integers(start);
  return () => next() / 2 ** 32;
}

/** `bytes` with some of them changed, or cut off. */
function damaged(bytes: Buffer, next: () => number): Buffer {
  const copy = Buffer.from(
    bytes.subarray(0, next() < 0.2 ? Math.floor(next() * bytes.length) : bytes.length),
  );
  for (let count = Math.floor(next() * 12); count > 0 && copy.length > 0; count--)
    copy[Math.floor(next() * copy.length)] = Math.floor(next() * 256);
  return copy;
}

function buildIdOfBytes(world: CheckerWorld, bytes: Buffer): string | undefined {
  const file = path.join(world.directory, 'object');
  fs.writeFileSync(file, bytes);
  const descriptor = fs.openSync(file, 'r');
  try {
    return readBuildId(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

describe('build-ids', () => {
  const buildId = 'ab'.repeat(20);

  it.each([64, 32] as const)('are found in any note of a %i-bit file, as Go and LLVM place them', (bits) => {
    const world = new CheckerWorld();
    expect(buildIdOfBytes(world, elfWithNotes(bits, [['go'], ['other', 'gnu']], buildId))).toBe(buildId);
    expect(buildIdOfBytes(world, elfWithNotes(bits, [['go'], ['other']], buildId))).toBeUndefined();
    expect(buildIdOfBytes(world, elfWithNotes(bits, [['damaged'], ['gnu']], buildId))).toBe(buildId);
  });

  it('are those of readelf for the files of this system', () => {
    const directory = '/usr/bin';
    const files = fs
      .readdirSync(directory)
      .slice(0, 60)
      .map((name) => path.join(directory, name));
    let compared = 0;
    for (const file of files) {
      if (!fs.statSync(file, { throwIfNoEntry: false })?.isFile()) continue;
      const descriptor = fs.openSync(file, 'r');
      const found = readBuildId(descriptor);
      fs.closeSync(descriptor);
      if (!fs.readFileSync(file).subarray(0, 4).equals(Buffer.from('\x7fELF', 'latin1'))) {
        expect(found).toBeUndefined();
        continue;
      }
      const text = execFileSync('readelf', ['-n', file], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      expect([file, found]).toEqual([file, /Build ID: ([0-9a-f]+)/.exec(text)?.[1]]);
      compared++;
    }
    expect(compared).toBeGreaterThan(5);
  });

  it(`never fail for damaged files (seed ${seed})`, () => {
    const world = new CheckerWorld();
    const next = random(seed);
    const whole = elfWithNotes(64, [['go'], ['gnu']], buildId);
    for (let run = 0; run < 2000; run++) buildIdOfBytes(world, damaged(whole, next));
  });
});

describe('maps', () => {
  const own = fs.readFileSync('/proc/self/maps');

  it('name the same executed files as the full parser', () => {
    const expected = parseMaps(own.toString('utf8')).filter(
      ({ permissions, inode }) => permissions.charAt(2) === 'x' && inode !== 0,
    );
    const scanned = scanMaps(own, own.length).files.map(({ key }) => parseFileKey(key));
    expect(new Set(scanned.map((name) => name?.path))).toEqual(new Set(expected.map(({ path }) => path)));
    expect(new Set(scanned.map((name) => name?.inode))).toEqual(
      new Set(expected.map(({ inode }) => BigInt(inode))),
    );
  });

  it.each([
    ['08:01 12                  /usr/lib/a;b c.so', '/usr/lib/a;b c.so'],
    ['00:01 99                  /memfd:jit (deleted)', '/memfd:jit (deleted)'],
    ['00:0f 3                   anon_inode:[perf_event]', undefined],
    ['00:00 0                   [vvar_vclock]', undefined],
    ['00:00 0                   [vdso]', undefined],
    ['00:01 5                   /dev/zero (deleted)', undefined],
    ['00:01 32768               /SYSV00000000 (deleted)', undefined],
    ['00:0e 12                  anon_inode:/dev/evil', undefined],
  ])('tell files from what is none: %s', (tail, expected) => {
    const line = Buffer.from(`7f0000000000-7f0000001000 r-xp 00000000 ${tail}\n`);
    const { files, mayHoldImages } = scanMaps(line, line.length);
    const [name] = files.map(({ key }) => parseFileKey(key));
    expect(name?.path).toBe(expected);
    expect(mayHoldImages).toBe(false);
  });

  it('show where an image of kcare may be', () => {
    const line = Buffer.from('7f0000000000-7f0000001000 r-xp 00000000 00:00 0 \n');
    expect(scanMaps(line, line.length)).toEqual({ files: [], mayHoldImages: true, hasMemory: true });
  });

  it(`never fail for damaged text (seed ${seed})`, () => {
    const next = random(seed);
    for (let run = 0; run < 2000; run++) {
      const bytes = damaged(own, next);
      scanMaps(bytes, bytes.length).files.forEach(({ key }) => parseFileKey(key));
    }
  });
});

describe('os-release', () => {
  it('is read as the shell would', () => {
    const text = `# comment\nNAME='Foo'\nID=foo\nVERSION_ID="1.2"\nPRETTY_NAME="Foo \\"Bar\\" \\$1"\nID_LIKE="rhel fedora"\nbad line\n`;
    expect(parseOsRelease(text)).toEqual({
      id: 'foo',
      versionId: '1.2',
      name: 'Foo "Bar" $1',
      like: ['rhel', 'fedora'],
    });
    expect(parseOsRelease('')).toMatchObject({ id: 'linux', versionId: '' });
  });

  it(`never fails (seed ${seed})`, () => {
    const next = random(seed);
    const whole = Buffer.from('NAME="A"\nID=a\nVERSION_ID="1"\nPRETTY_NAME="A 1"\n'.repeat(20));
    for (let run = 0; run < 2000; run++) parseOsRelease(damaged(whole, next).toString('utf8'));
  });
});

describe('the package database of dpkg', () => {
  it('lists what is installed, as dpkg-query does', () => {
    // A copy: packages may be installed meanwhile.
    const directory = new CheckerWorld().sub('dpkg/info');
    const status = path.join(directory, '..', 'status');
    fs.copyFileSync('/var/lib/dpkg/status', status);
    const format = '${Package} ${Architecture} ${Version} ${db:Status-Status}\n';
    const query = ['--admindir', path.dirname(directory), '-W', '-f', format];
    const text = execFileSync('dpkg-query', query, { encoding: 'utf8' });
    const expected = text.split('\n').filter((line) => line.endsWith(' installed'));
    const found = parseDpkgStatus(fs.readFileSync(status, 'utf8'));
    const lines = found.map(
      ({ name, architecture, version }) => `${name} ${architecture} ${version} installed`,
    );
    expect(lines.sort()).toEqual(expected.sort());
  });

  it('finds the owner of a file on this system', () => {
    const view = RootView.open('/');
    const owner = openPackages(view)?.ownerOf('/usr/bin/dpkg');
    view.close();
    expect(owner?.name).toBe('dpkg');
  });

  it(`never fails (seed ${seed})`, () => {
    const next = random(seed);
    const whole = Buffer.from(
      'Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n'.repeat(30),
    );
    for (let run = 0; run < 2000; run++) parseDpkgStatus(damaged(whole, next).toString('utf8'));
  });
});

describe('the package database of rpm', () => {
  const packages = Array.from({ length: 400 }, (_, index) =>
    rpmHeader({
      name: `package${index}`,
      version: '1.0',
      release: `${index}.el9`,
      ...(index % 3 === 0 && { epoch: 2 }),
      files: Array.from({ length: (index % 40) * 5 }, (_, file) => `/usr/lib64/p${index}/lib${file}.so.1`),
    }),
  );

  /** Written by the real SQLite. */
  function database(world: CheckerWorld): string {
    const place = path.join(world.sub('root/var/lib/rpm'), 'rpmdb.sqlite');
    const blobs = path.join(world.directory, 'blobs.json');
    fs.writeFileSync(blobs, JSON.stringify(packages.map((header) => header.toString('hex'))));
    const script = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
db.execute("CREATE TABLE 'Name' (key TEXT NOT NULL, hnum INTEGER NOT NULL)")
for blob in json.load(open(sys.argv[2])):
    db.execute("INSERT INTO Packages (blob) VALUES (?)", (bytes.fromhex(blob),))
db.commit()
`;
    execFileSync('python3', ['-c', script, place, blobs]);
    return place;
  }

  it('lists packages, and finds the owner of a file', () => {
    const world = new CheckerWorld();
    const bytes = fs.readFileSync(database(world));
    const headers = readRpmHeaders(bytes);
    expect(headers.length).toBe(400);
    expect(headers[3]).toMatchObject({ name: 'package3', version: '2:1.0-3.el9' });
    const view = RootView.open(path.join(world.directory, 'root'));
    const found = openPackages(view);
    expect(found?.ownerOf('/usr/lib64/p39/lib194.so.1')).toEqual({
      name: 'package39',
      version: '2:1.0-39.el9',
    });
    expect(found?.ownerOf('/usr/lib64/p39/lib195.so.1')).toBeUndefined();
    expect(found?.find('package7')?.version).toBe('1.0-7.el9');
    view.close();
  });

  it(`never fails for damaged databases and headers (seed ${seed})`, () => {
    const bytes = fs.readFileSync(database(new CheckerWorld()));
    const next = random(seed);
    for (let run = 0; run < 60; run++) {
      for (const header of readRpmHeaders(damaged(bytes, next))) Array.from(header.files());
    }
    for (let run = 0; run < 3000; run++) {
      const header = parseRpmHeader(damaged(packages[39] ?? Buffer.alloc(0), next));
      if (header) Array.from(header.files());
    }
  });
});

describe('the root of a container', () => {
  it('is not left by links, and nothing but plain files is opened', () => {
    const world = new CheckerWorld();
    const root = world.sub('root');
    const at = (name: string): string => path.join(root, name);
    fs.mkdirSync(at('etc'));
    fs.writeFileSync(at('etc/inside'), 'inside');
    fs.writeFileSync(path.join(world.directory, 'secret'), 'outside');
    fs.symlinkSync(path.join(world.directory, 'secret'), at('etc/absolute'));
    fs.symlinkSync('../../../../../../etc/inside', at('etc/up'));
    fs.symlinkSync('/etc', at('loop-free'));
    fs.symlinkSync('circle', at('circle'));
    fs.symlinkSync('/proc/self/root/etc/passwd', at('etc/magic'));
    execFileSync('mkfifo', [at('etc/fifo')]);
    const view = RootView.open(root);
    const read = (name: string): string | undefined => view.read(name, 100)?.toString();
    expect(
      ['etc/absolute', 'etc/magic', 'circle', 'etc/fifo', 'etc', 'none', 'etc/inside/x'].map(read),
    ).toEqual(Array(7).fill(undefined));
    expect(['etc/up', 'loop-free/inside', '/../../etc/inside'].map(read)).toEqual(Array(3).fill('inside'));
    expect(view.read('etc/inside', 3)).toBeUndefined();
    fs.symlinkSync('/etc/fifo', at('etc/os-release'));
    expect(readDistribution(view)).toBeUndefined();
    view.close();
  });

  it('costs no descriptors', () => {
    const world = new CheckerWorld();
    fs.symlinkSync('none', path.join(world.sub('root/a/b'), 'link'));
    const count = (): number => fs.readdirSync('/proc/self/fd').length;
    const before = count();
    const view = RootView.open(path.join(world.directory, 'root'));
    for (const name of ['a/b/link', 'a/b', 'a/b/../../a/x', 'a/b/link/x', 'none']) view.openFile(name);
    view.close();
    expect(count()).toBe(before);
  });
});
