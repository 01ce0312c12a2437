// Keys that a host trusts: what can be imported, what is refused, and what taking one away means.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateKey, readKey } from 'openpgp';
import { describe, expect, it } from 'vitest';
import { importKey, listKeys, removeKey } from '../../src/feed/index.js';
import { random } from '../random.js';
import { World, refusal } from './world.js';

describe('importing a key', () => {
  it('takes armored and binary keys, once each', async () => {
    const world = new World();
    const { fingerprint } = await world.start();
    const key = await readKey({ armoredKey: readFileSync(world.publicKey, 'utf8') });
    const binary = join(world.directory, 'key.gpg');
    writeFileSync(binary, key.write());
    expect(await importKey(world.trusted, binary)).toEqual({ fingerprint, userId: 'kcare feed' });
    expect(await importKey(world.trusted, world.publicKey)).toEqual({ fingerprint, userId: 'kcare feed' });
    expect(await listKeys(world.trusted)).toEqual([{ fingerprint, userId: 'kcare feed' }]);
    expect(readdirSync(world.trusted)).toEqual([`${fingerprint}.asc`]);
    expect(statSync(world.trusted).mode & 0o777).toBe(0o755);
    expect(statSync(join(world.trusted, `${fingerprint}.asc`)).mode & 0o777).toBe(0o644);
  });

  it('takes keys made by gpg and trusts what gpg signed', async () => {
    const world = new World();
    await world.start();
    const home = world.sub('gnupg');
    execFileSync('chmod', ['700', home]);
    const gpg = (...words: string[]): Buffer =>
      execFileSync(
        'gpg',
        ['--homedir', home, '--batch', '--pinentry-mode', 'loopback', '--passphrase', '', ...words],
        {
          stdio: ['ignore', 'pipe', 'pipe'],
        },
      );
    gpg('--quick-generate-key', 'Patch Department', 'rsa2048', 'sign', 'never');
    const exported = join(world.directory, 'department.asc');
    writeFileSync(exported, gpg('--armor', '--export', 'Patch Department'));
    const trusted = join(world.directory, 'gpg-trusted');
    expect((await importKey(trusted, exported)).userId).toBe('Patch Department');
    expect(await refusal(world.update({ keyDirectory: trusted }))).toBe('FEED_UNTRUSTED');
    gpg(
      '--yes',
      '--armor',
      '--detach-sign',
      '--output',
      world.metadata('1.root.json.asc'),
      world.metadata('1.root.json'),
    );
    // The root is trusted now, but the patchset has only the signature of the other key.
    expect(await refusal(world.update({ keyDirectory: trusted }))).toBe('PATCHSET_UNSIGNED');
    await importKey(trusted, world.publicKey);
    expect(await refusal(world.update({ keyDirectory: trusted }))).toBe('accepted');
    execFileSync('gpgconf', ['--homedir', home, '--kill', 'gpg-agent']);
  });

  it('refuses private, expired, damaged and several keys', async () => {
    const world = new World();
    await world.start();
    const file = join(world.directory, 'candidate');
    const attempt = async (contents: string | Uint8Array): Promise<string> => {
      writeFileSync(file, contents);
      return await refusal(importKey(join(world.directory, 'none'), file));
    };
    expect(await attempt(readFileSync(join(world.keys, 'openpgp-private.asc')))).toBe('KEY_INVALID');
    const past = new Date(Date.now() - 3 * 86_400_000);
    const expired = await generateKey({
      type: 'ecc',
      curve: 'ed25519Legacy',
      userIDs: [{ name: 'old' }],
      date: past,
      keyExpirationTime: 3600,
      format: 'armored',
    });
    expect(await attempt(expired.publicKey)).toBe('KEY_INVALID');
    const good = readFileSync(world.publicKey, 'utf8');
    const binary = (await readKey({ armoredKey: good })).write();
    expect(await attempt(Buffer.concat([binary, binary]))).toBe('KEY_INVALID');
    expect(await attempt(good.slice(0, 200))).toBe('KEY_INVALID');
    expect(await attempt('')).toBe('KEY_INVALID');
    expect(await attempt(Buffer.alloc(2_000_000, 1))).toBe('KEY_INVALID');
    const next = random(7);
    for (let round = 0; round < 200; round++) {
      const copy = Buffer.from(binary);
      for (let flips = 0; flips < 3; flips++) copy[next() % copy.length] = next() & 0xff;
      expect(['KEY_INVALID', 'accepted']).toContain(await attempt(copy));
    }
    expect(await refusal(importKey(world.trusted, world.directory))).toBe('KEY_INVALID');
  });

  it('a key that is taken away no longer counts, even for what is cached', async () => {
    const world = new World();
    const { fingerprint } = await world.start();
    await world.update();
    expect(await removeKey(world.trusted, fingerprint)).toBe(true);
    expect(await removeKey(world.trusted, fingerprint)).toBe(false);
    expect(existsSync(join(world.trusted, `${fingerprint}.asc`))).toBe(false);
    expect(await refusal(world.cached())).toBe('FEED_UNTRUSTED');
    expect(await refusal(world.update())).toBe('FEED_UNTRUSTED');
    const other = new World();
    await other.start();
    await importKey(world.trusted, other.publicKey);
    expect(await refusal(world.cached())).toBe('FEED_UNTRUSTED');
    await importKey(world.trusted, world.publicKey);
    expect(await refusal(world.cached())).toBe('accepted');
  });

  it('refuses a key file that others can change (R10)', async () => {
    const world = new World();
    const { fingerprint } = await world.start();
    const path = join(world.trusted, `${fingerprint}.asc`);
    execFileSync('chmod', ['666', path]);
    expect(await refusal(listKeys(world.trusted))).toBe('UNSAFE_MODE');
    execFileSync('chmod', ['644', path]);
    execFileSync('chown', ['65534', path]);
    expect(await refusal(world.update())).toBe('UNSAFE_MODE');
  });
});
