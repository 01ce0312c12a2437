// Reading the memory of a process through /proc/PID/mem.
import { closeSync, openSync, readSync } from 'node:fs';
import { hex, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { memoryDirectory } from './files.js';
import { processFailure, processGone, systemCode } from './failure.js';

const highestPosition = 2n ** 63n - 1n;

/** An open view of one process's memory. It stays with the program that ran at `open`: after exec, reads say TARGET_GONE. */
export class ProcessMemory {
  private constructor(
    readonly pid: number,
    private readonly descriptor: number,
  ) {}

  /** The inverse is {@link close}. Throws TARGET_GONE, NOT_PERMITTED. */
  static open(pid: number): ProcessMemory {
    try {
      return new ProcessMemory(pid, openSync(`/proc/${memoryDirectory(pid)}/mem`, 'r'));
    } catch (thrown) {
      throw processFailure(pid, thrown);
    }
  }

  /** Exactly `length` bytes, or TARGET_MEMORY; TARGET_GONE when the process ended. */
  read(address: RemoteAddress, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const count = this.readSome(address, bytes, filled);
      // Unmapped memory is EIO; end of file means that the address space itself is gone.
      if (count === 0) throw processGone(this.pid);
      filled += count;
    }
    return bytes;
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
