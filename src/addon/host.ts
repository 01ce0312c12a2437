// The part of the addon that looks after a whole host: its events, who is at the other end of a socket, datagrams, locks
// by process.
import { KcareError } from '../base/errors.js';
import { nativeModule, type HostListener, type HostWatch } from './native.js';

export type { HostListener, HostWatch };

/** User id of the process that connected this socket. */
export function peerUser(descriptor: number): number {
  return nativeModule().peerUser(descriptor);
}

/** Sends one datagram to a Unix socket: a path, or a name of the abstract namespace behind "@". Throws what the system says. */
export function sendDatagram(path: string, text: string): void {
  nativeModule().sendDatagram(path, text);
}

/** Takes or gives back the lock of one byte of an open file; false when another process holds it. */
export function lockByte(descriptor: number, offset: number, isHeld: boolean): boolean {
  if (!Number.isSafeInteger(offset) || offset < 0)
    throw new KcareError('INTERNAL', `Wrong offset of a lock: ${offset}.`);
  return nativeModule().lockByte(descriptor, offset, isHeld);
}

/** Tells `listener` of programs that begin, and of marked files that were opened, until it is stopped. */
export function watchHost(listener: HostListener): HostWatch {
  return nativeModule().watchHost(listener);
}
