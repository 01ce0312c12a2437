// The part of an image by which its hooks and update functions are run in the process, each of them once.
import { advance, type RemoteAddress } from '../base/address.js';
import type { ByteReader } from '../elf/index.js';
import { hookKinds, type HookKind } from '../patchfile/index.js';

/**
 * Where it lies in the image, offsets in bytes. `code` is {@link hookCode}.
 *
 * `record` is in the read-and-write part and all zero at first:
 *
 *       0  state, {@link hookStates}                   4
 *       4  number of functions to be run               4
 *       8  what the last one returned                  4
 *      16  for each hook: 1 when it was run            4 each
 *      96  functions to be run, 24 bytes each:
 *            0  function                                8
 *            8  where to write when it has returned     8
 *           16  what to write there                     4
 *           20  reserved                                4
 */
export interface HookPlace {
  readonly code: number;
  readonly record: number;
}

export interface ImageHook {
  readonly kind: HookKind;
  readonly name: string;
  readonly function: RemoteAddress;
  /** Of an update function that can be undone. */
  readonly undo?: RemoteAddress | undefined;
}

/**
 * `asked` by the engine; the first thread in the code takes that to `working`, and to `done` behind the last function.
 * So the record tells the truth even when the patcher is not there any more (R1, R2).
 */
export const hookStates = { idle: 0, asked: 1, working: 2, done: 3 } as const;

export const hookLayout = {
  stateOffset: 0,
  countOffset: 4,
  resultOffset: 8,
  marksOffset: 16,
  runsOffset: 96,
  runSize: 24,
  recordSize: 1632,
  /** In {@link hookCode}: where threads wait that are to do nothing until the work is done. */
  waitOffset: 96,
  /** Stack that functions may use, bytes. */
  stackDepth: 32768,
} as const;

export const mostHooks = 16;
/** Functions in one commit: of several objects, or undone and done. */
export const mostRuns = 64;

/**
 * Position-independent code, called with the record in rdi. That it may use all registers and change the state of the
 * processor is due to the frame by which the thread becomes itself again.
 *
 *     work:   endbr64                        finish: movl $3, (%rbx)
 *             mov  $1, %eax                          add  $24, %rsp
 *             mov  $2, %edx                          ret
 *             lock cmpxchg %edx, (%rdi)              .balign 16, 0xcc
 *             jne  wait                      wait:   endbr64
 *             sub  $24, %rsp                 1:      mov  (%rdi), %eax
 *             cld                                    dec  %eax
 *             fninit                                 cmp  $1, %eax
 *             movl $0x1f80, (%rsp)                   ja   2f
 *             ldmxcsr (%rsp)                         pause
 *             mov  %rdi, %rbx                        jmp  1b
 *             lea  96(%rbx), %r12            2:      ret
 *             xor  %ebp, %ebp
 *     next:   cmp  4(%rbx), %ebp
 *             jae  finish
 *             xor  %eax, %eax
 *             call *(%r12)
 *             mov  %eax, 8(%rbx)
 *             mov  8(%r12), %rcx
 *             mov  16(%r12), %eax
 *             mov  %eax, (%rcx)
 *             add  $24, %r12
 *             inc  %ebp
 *             jmp  next
 */
export const hookCode: Uint8Array = Buffer.from(
  'f30f1efab801000000ba02000000f00fb117754c4883ec18fcdbe3c70424801f00000fae14244889fb4c8d636031ed3b6b04731d31c0' +
    '41ff1424894308498b4c2408418b44241089014983c418ffc5ebdec703030000004883c418c3cccccccc' +
    'f30f1efa8b07ffc883f8017704f390ebf3c3',
  'hex',
);

/** In the header: kind (from 1 in the order of hookKinds), offsets of the function and of the one that undoes it or 0, reserved. */
export const hookEntrySize = 16;

/** The table in the header of an image at `address`. */
export function encodeHooks(hooks: readonly ImageHook[], address: RemoteAddress): Uint8Array {
  const bytes = Buffer.alloc(hooks.length * hookEntrySize);
  hooks.forEach((hook, index) => {
    const at = index * hookEntrySize;
    bytes.writeUInt32LE(hookKinds.indexOf(hook.kind) + 1, at);
    bytes.writeUInt32LE(Number(hook.function - address), at + 4);
    bytes.writeUInt32LE(hook.undo === undefined ? 0 : Number(hook.undo - address), at + 8);
  });
  return bytes;
}

/** The next entry of such a table; `reader` throws HEADER_MALFORMED for what no image has. */
export function decodeHook(
  reader: ByteReader,
  address: RemoteAddress,
  executableSize: number,
  name: string,
): ImageHook {
  const kind = hookKinds[reader.u32() - 1];
  const [start, undo] = [reader.u32(), reader.u32()];
  reader.u32();
  if (kind === undefined || start === 0 || start >= executableSize || undo >= executableSize) {
    throw reader.fail('an impossible hook');
  }
  return {
    kind,
    name,
    function: advance(address, start),
    undo: undo === 0 ? undefined : advance(address, undo),
  };
}
