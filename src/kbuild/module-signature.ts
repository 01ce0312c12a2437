// Signatures of kernel modules: detached PKCS#7 behind the module, as the kernel checks it.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from '../build/index.js';

export interface SigningKey {
  /** Files in PEM: the private key, and the certificate that the kernel trusts. */
  readonly key: string;
  readonly certificate: string;
}

const magic = '~Module signature appended~\n';
const pkcs7 = 2;

/**
 * `module` with a signature of SHA-256 behind it. Format: struct module_signature of the kernel
 * (include/linux/module_signature.h). Throws BUILD_TOOL_FAILED, for example for a key that does not fit.
 */
export async function signModule(module: Uint8Array, { key, certificate }: SigningKey): Promise<Buffer> {
  const directory = await mkdtemp(path.join(tmpdir(), 'kcare-signature-'));
  try {
    const input = path.join(directory, 'module');
    const output = path.join(directory, 'signature');
    await writeFile(input, module);
    await run('openssl', [
      ...['cms', '-sign', '-binary', '-noattr', '-nocerts', '-nosmimecap', '-md', 'sha256'],
      ...['-signer', certificate, '-inkey', key, '-outform', 'DER', '-in', input, '-out', output],
    ]);
    const signature = await readFile(output);
    const trailer = Buffer.alloc(12);
    trailer.writeUInt8(pkcs7, 2);
    trailer.writeUInt32BE(signature.length, 8);
    return Buffer.concat([module, signature, trailer, Buffer.from(magic, 'latin1')]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
