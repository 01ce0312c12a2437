// Addresses in another process are a type of their own, so that they never mix with offsets in a file.

declare const brand: unique symbol;

/** A virtual address in a target process. */
export type RemoteAddress = bigint & { readonly [brand]: 'RemoteAddress' };

export function remoteAddress(value: bigint | number): RemoteAddress {
  return BigInt(value) as RemoteAddress;
}

/** `address` moved by `bytes`, which may be negative. */
export function advance(address: RemoteAddress, bytes: number | bigint): RemoteAddress {
  return (address + BigInt(bytes)) as RemoteAddress;
}

/** The distance in bytes from `from` to `to`; exact, because user addresses lie below 2^47. */
export function distance(from: RemoteAddress, to: RemoteAddress): number {
  return Number(to - from);
}

/** Half-open range of target addresses. */
export interface RemoteRange {
  readonly start: RemoteAddress;
  readonly end: RemoteAddress;
}

export function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}
