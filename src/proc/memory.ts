// The memory of a process through /proc/PID/mem.
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { advance, hex, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { memoryDirectory } from './files.js';
import { processFailure, processGone, systemCode } from './failure.js';

const highestPosition = 2n ** 63n - 1n;
/** No caller needs more at once; lengths that a process writes into its tables may be any number. */
const longestRead = 128 * 1024 * 1024;

/** A descriptor of the memory of a process, which the caller closes. Throws TARGET_GONE, NOT_PERMITTED. */
export function openMemory(pid: number, flags: 'r' | 'r+'): number {
  try {
    return openSync(`/proc/${memoryDirectory(pid)}/mem`, flags);
  } catch (thrown) {
    throw processFailure(pid, thrown);
  }
}

/** An open view of one process's memory. It stays with the program that ran at `open`: after exec, reads say TARGET_GONE. */
export class ProcessMemory {
  private constructor(
    readonly pid: number,
    private readonly descriptor: number,
  ) {}

  /** The inverse is {@link close}. Throws TARGET_GONE, NOT_PERMITTED. */
  static open(pid: number, flags: 'r' | 'r+' = 'r'): ProcessMemory {
    return new ProcessMemory(pid, openMemory(pid, flags));
  }

  /** Exactly `length` bytes, or TARGET_MEMORY; TARGET_GONE when the process ended. */
  read(address: RemoteAddress, length: number): Uint8Array {
    if (!Number.isSafeInteger(length) || length < 0 || length > longestRead)
      throw this.unreadable(address, length);
    const bytes = Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length) {
      const count = this.readSome(address, bytes, filled);
      // Unmapped memory is EIO; end of file means that the address space itself is gone.
      if (count === 0) throw processGone(this.pid);
      filled += count;
    }
    return bytes;
  }

  /**
   * Writes to private memory whatever its protection, without a stop; takes a view that was opened for it. Throws
   * TARGET_MEMORY, TARGET_GONE.
   */
  write(address: RemoteAddress, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      let count: number;
      try {
        // The declared type of `position` lacks bigint, which Node accepts; user addresses are exact as numbers.
        count = writeSync(this.descriptor, bytes, done, bytes.length - done, Number(advance(address, done)));
      } catch (thrown) {
        const reason = thrown instanceof Error ? thrown.message : String(thrown);
        throw new KcareError(
          'TARGET_MEMORY',
          `process ${this.pid}: cannot write at ${hex(address)} (${reason})`,
          { pid: this.pid },
        );
      }
      if (count === 0) throw processGone(this.pid);
      done += count;
    }
  }

  close(): void {
    closeSync(this.descriptor);
  }

  private readSome(address: RemoteAddress, bytes: Uint8Array, filled: number): number {
    const position = address + BigInt(filled);
    if (position < 0n || position > highestPosition) throw this.unreadable(address, bytes.length);
    try {
      return readSync(this.descriptor, bytes, filled, bytes.length - filled, position);
    } catch (thrown) {
      if (systemCode(thrown) === 'EIO') throw this.unreadable(address, bytes.length);
      throw processFailure(this.pid, thrown);
    }
  }

  private unreadable(address: RemoteAddress, length: number): KcareError {
    return new KcareError(
      'TARGET_MEMORY',
      `Process ${this.pid}: ${length} bytes at ${hex(address)} cannot be read.`,
      {
        pid: this.pid,
        address: hex(address),
        length,
      },
    );
  }
}
