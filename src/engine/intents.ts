// The journal of mappings that were begun: one small file for each process in which an image is being mapped (R2, R7).
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { remoteAddress, type RemoteAddress } from '../base/address.js';
import { asKcareError, KcareError } from '../base/errors.js';
import { safeDirectory } from '../base/safe-files.js';
import { integer, record as recordOf, text as anyText, textThat, type Shaped } from '../base/shapes.js';
import { maximumHeaderSize } from '../link/index.js';
import { readAuxiliaryBytes, readStartTime, readStatus, systemCode } from '../proc/index.js';

/** Between the return of mmap in the target and the write of the header nothing in the target says whose memory it is. */
export interface Intent {
  readonly pid: number;
  readonly start: RemoteAddress;
  readonly size: number;
  /** What will be written to the start of the mapping. */
  readonly header: Uint8Array;
  /** The call was about to be made; before that, nothing can have been mapped. */
  readonly begun: boolean;
  /** A patcher that is still at work on it; undefined when it has ended. */
  readonly writer: number | undefined;
  /** The process is the same, and executes the same program, as when the range was a hole. */
  readonly isCurrent: boolean;
}

const shape = recordOf({
  version: integer(1, 1),
  pid: integer(0),
  identity: anyText(),
  writer: recordOf({ pid: integer(0), identity: anyText() }),
  start: textThat((value) => /^[0-9a-f]{1,12}$/.test(value), 'an address'),
  size: integer(1),
  header: textThat((value) => Buffer.from(value, 'base64').toString('base64') === value, 'base64'),
});

const notBegun = '0\n';
const begun = 0x31;
const longestFile = 2 * maximumHeaderSize;
const groupOrOthersWrite = 0o022;

/** For root the one place that all patchers of the host share, and that a boot empties. */
export function defaultIntentDirectory(): string {
  const user = process.geteuid?.() ?? 0;
  return user === 0 ? '/run/kcare/intents' : `/tmp/kcare-${user}/intents`;
}

/** What was safe when this process looked first can only be changed by its owner. */
const checkedDirectories = new Set<string>();

export class IntentJournal {
  private constructor(private readonly directory: string) {}

  /** A directory that is missing is an empty journal. Throws UNSAFE_MODE (R10). */
  static async open(directory = defaultIntentDirectory()): Promise<IntentJournal> {
    const journal = new IntentJournal(resolve(directory));
    if (existsSync(directory)) await journal.prepare();
    return journal;
  }

  /** Makes the directory if need be, so that it can be written to. Throws UNSAFE_MODE (R10), NOT_PERMITTED, NO_SPACE. */
  async prepare(): Promise<void> {
    if (checkedDirectories.has(this.directory)) return;
    try {
      await safeDirectory(this.directory);
    } catch (thrown) {
      throw unusable(this.directory, thrown);
    }
    checkedDirectories.add(this.directory);
  }

  /** Processes with an intent, whoever wrote it. */
  pids(): number[] {
    try {
      return readdirSync(this.directory)
        .filter((name) => /^[1-9]\d{0,9}$/.test(name))
        .map(Number);
    } catch (thrown) {
      if (systemCode(thrown) === 'ENOENT') return [];
      throw unusable(this.directory, thrown);
    }
  }

  /**
   * Runs `action` with a descriptor whose first byte the engine turns into "1" just before the call. The intent goes
   * when `action` returns; when it throws after that byte, the call may still be made, and the intent stays.
   */
  during<Result>(
    intent: Pick<Intent, 'pid' | 'start' | 'size' | 'header'>,
    action: (file: number) => Result,
  ): Result {
    const path = this.path(intent.pid);
    const file = this.create(path, intent);
    try {
      const result = action(file);
      unlinkSync(path);
      return result;
    } catch (thrown) {
      const isOver = thrown instanceof KcareError && thrown.code === 'TARGET_GONE';
      if (isOver || !isBegun(file)) unlinkSync(path);
      throw thrown;
    } finally {
      closeSync(file);
    }
  }

  /** The intent for a process. A file that is not ours, damaged or for another process is removed and not acted upon. */
  read(pid: number): Intent | undefined {
    const text = this.load(pid);
    if (text === undefined) return undefined;
    const intent = parseIntent(text);
    if (intent?.pid === pid) return intent;
    this.drop(pid);
    return undefined;
  }

  drop(pid: number): void {
    try {
      unlinkSync(this.path(pid));
    } catch (thrown) {
      if (systemCode(thrown) !== 'ENOENT') throw unusable(this.directory, thrown);
    }
  }

  private path(pid: number): string {
    return join(this.directory, String(pid));
  }

  /** Not synced to a disk: a power cut ends the target, too. */
  private create(path: string, intent: Pick<Intent, 'pid' | 'start' | 'size' | 'header'>): number {
    const record: Shaped<typeof shape> = {
      version: 1,
      pid: intent.pid,
      identity: identityOf(intent.pid),
      writer: { pid: process.pid, identity: (ownIdentity ??= identityOf(process.pid)) },
      start: intent.start.toString(16),
      size: intent.size,
      header: Buffer.from(intent.header).toString('base64'),
    };
    const text = `${notBegun}${JSON.stringify(record)}\n`;
    let file: number | undefined;
    try {
      file = openSync(path, 'wx+', 0o600);
      writeFileSync(file, text);
      return file;
    } catch (thrown) {
      if (file !== undefined) {
        closeSync(file);
        unlinkSync(path);
      }
      if (systemCode(thrown) !== 'EEXIST') throw unusable(this.directory, thrown);
      const { pid } = intent;
      throw new KcareError('TARGET_BUSY', `process ${pid}: another patcher works on it`, { pid });
    }
  }

  /** Text of a plain file of root's, or of the user running this, that nobody else may write (R10); "" for all others. */
  private load(pid: number): string | undefined {
    // Nearly always there is none; to be told so by an exception takes long.
    if (!lstatSync(this.path(pid), { throwIfNoEntry: false })) return undefined;
    let file: number;
    try {
      file = openSync(this.path(pid), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (thrown) {
      if (systemCode(thrown) === 'ENOENT') return undefined;
      if (systemCode(thrown) === 'ELOOP' || systemCode(thrown) === 'ENXIO') return '';
      throw unusable(this.directory, thrown);
    }
    try {
      const status = fstatSync(file);
      const isSafe =
        status.isFile() &&
        status.size <= longestFile &&
        (status.uid === 0 || status.uid === process.geteuid?.()) &&
        (status.mode & groupOrOthersWrite) === 0;
      return isSafe ? readFileSync(file, 'utf8') : '';
    } finally {
      closeSync(file);
    }
  }
}

let ownIdentity: string | undefined;
let bootId: Buffer | undefined;

function isBegun(file: number): boolean {
  const byte = new Uint8Array(1);
  return readSync(file, byte, 0, 1, 0) === 1 && byte[0] === begun;
}

function parseIntent(text: string): Intent | undefined {
  let record: Shaped<typeof shape>;
  try {
    record = shape(JSON.parse(text.slice(notBegun.length)));
  } catch {
    return undefined;
  }
  const { pid, identity, writer, start, size, header } = record;
  return {
    pid,
    start: remoteAddress(BigInt(`0x${start}`)),
    size,
    header: Buffer.from(header, 'base64'),
    begun: text.charCodeAt(0) === begun,
    writer: isAtWork(writer) ? writer.pid : undefined,
    isCurrent: safeIdentity(pid) === identity,
  };
}

/** This process is never in the middle of one that it reads: it writes them without a pause. */
function isAtWork({ pid, identity }: { readonly pid: number; readonly identity: string }): boolean {
  if (pid === process.pid || safeIdentity(pid) !== identity) return false;
  const { state, threads } = readStatus(pid);
  return state !== 'X' && (state !== 'Z' || threads > 1);
}

/**
 * Names a process and the program that it executes for good: boot, start time, and the addresses that the kernel chose
 * at the exec. Throws TARGET_GONE, NOT_PERMITTED.
 */
function identityOf(pid: number): string {
  const hash = createHash('sha256');
  hash.update((bootId ??= readFileSync('/proc/sys/kernel/random/boot_id')));
  hash.update(String(readStartTime(pid)));
  hash.update(readAuxiliaryBytes(pid));
  return hash.digest('hex');
}

function safeIdentity(pid: number): string | undefined {
  try {
    return identityOf(pid);
  } catch {
    return undefined;
  }
}

function unusable(directory: string, thrown: unknown): KcareError {
  const { code, message } = asKcareError(thrown);
  if (code === 'UNSAFE_MODE') return new KcareError(code, message, { directory }, { cause: thrown });
  const text = `The journal ${directory} cannot be used, so nothing is mapped: ${message}.`;
  return new KcareError(code, text, { directory }, { cause: thrown });
}
