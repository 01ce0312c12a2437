// The part of an image by which its unwind tables are made known to the process's own unwinder, and taken back.
import { advance, type RemoteAddress } from '../base/address.js';
import { KcareError } from '../base/errors.js';
import { parseEhFrame } from '../elf/index.js';

/**
 * Where it lies in the image, offsets in bytes. `code` is constant:
 *
 *       0  address of .eh_frame                       8
 *       8  first address that it covers               8
 *      16  address of the entry for that              8
 *      24  {@link registrationCode}
 *
 * `record` is in the read-and-write part and all zero at first:
 *
 *       0  state, {@link registrationStates}          4
 *       4  state before it was last asked             4
 *       8  address of the unwinder's
 *          __register_frame_info at the last change   8
 *      48  struct object of libgcc                   48
 */
export interface RegistrationPlace {
  readonly code: number;
  readonly record: number;
}

/**
 * `asked`: a thread was or will be sent into the code. It takes that to `working` by an atomic exchange, so that the
 * work is done once however often it is asked for, and at its end to one of the other two: thus the record tells the
 * truth even when the patcher is not there any more (R1).
 */
export const registrationStates = { unknown: 0, asked: 1, working: 2, registered: 3 } as const;

export const registrationLayout = {
  codeOffset: 24,
  stateOffset: 0,
  earlierOffset: 4,
  unwinderOffset: 8,
  objectOffset: 48,
  recordSize: 96,
  /** Stack for the code below, the unwinder, the loader's lazy binding and an allocator, bytes. */
  stackDepth: 32768,
} as const;

/**
 * Position-independent code, called with
 *
 *     rdi  the record                    rcx  __deregister_frame_info
 *     rsi  __register_frame_info         r8   __errno_location, or 0
 *     rdx  _Unwind_Find_FDE              r9   1 to register, 0 to take back
 *
 * It asks the unwinder first whether it knows the tables, so that doing it twice does no harm: deregistering what is
 * not registered would abort the process. Having registered them it asks again, which makes the unwinder sort them now,
 * in a thread that may allocate, and not in one that is just handling a crash. That it may use all registers and change
 * the state of the processor is due to the frame by which the thread becomes itself again.
 *
 *            endbr64                           remove: cmp  entry(%rip), %rax
 *            mov  $1, %eax                             jne  unknown
 *            mov  $2, %ebx                             mov  begin(%rip), %rdi
 *            lock cmpxchg %ebx, (%rdi)                 call *%r14
 *            jne  leave                        unknown: xor %ebp, %ebp
 *            sub  $40, %rsp                            jmp  finish
 *            cld                               known:  mov  $3, %ebp
 *            fninit                            finish: test %r15, %r15
 *            movl $0x1f80, 24(%rsp)                    jz   2f
 *            ldmxcsr 24(%rsp)                          call *%r15
 *            mov  %rdi, %rbx                           mov  28(%rsp), %ecx
 *            mov  %rsi, %r12                           mov  %ecx, (%rax)
 *            mov  %rdx, %r13                   2:      mov  %ebp, (%rbx)
 *            mov  %rcx, %r14                           add  $40, %rsp
 *            mov  %r8, %r15                    leave:  ret
 *            mov  %r9, %rbp
 *            test %r15, %r15
 *            jz   1f
 *            call *%r15
 *            mov  (%rax), %eax
 *            mov  %eax, 28(%rsp)
 *     1:     mov  covered(%rip), %rdi
 *            mov  %rsp, %rsi
 *            call *%r13
 *            test %ebp, %ebp
 *            jz   remove
 *            cmp  entry(%rip), %rax
 *            je   known
 *            mov  begin(%rip), %rdi
 *            lea  48(%rbx), %rsi
 *            call *%r12
 *            mov  covered(%rip), %rdi
 *            mov  %rsp, %rsi
 *            call *%r13
 *            cmp  entry(%rip), %rax
 *            je   known
 *            mov  begin(%rip), %rdi
 *            call *%r14
 *            jmp  unknown
 */
export const registrationCode: Uint8Array = Buffer.from(
  'f30f1efab801000000bb02000000f00fb11f0f85ae0000004883ec28fcdbe3c7442418801f00000fae5424184889fb4989f44989d54989ce' +
    '4d89c74c89cd4d85ff740941ffd78b008944241c488b3d9dffffff4889e641ffd585ed7439483b0594ffffff7447488b3d7bffffff488d73' +
    '3041ffd4488b3d75ffffff4889e641ffd5483b0570ffffff7423488b3d57ffffff41ffd6eb13483b055bffffff750a488b3d42ffffff41ff' +
    'd631edeb05bd030000004d85ff740941ffd78b4c241c8908892b4883c428c3',
  'hex',
);

/** Bytes that the constant part takes. */
export const registrationCodeSize = registrationLayout.codeOffset + registrationCode.length;

/**
 * The constant part, for relocated tables that lie at `address`. Throws PATCH_MALFORMED when an entry covers anything
 * but code between `start` and `end`, ELF_MALFORMED for damaged tables: the unwinder would believe them.
 */
export function registrationBytes(
  ehFrame: Uint8Array,
  address: RemoteAddress,
  start: RemoteAddress,
  end: RemoteAddress,
): Uint8Array {
  const descriptions = parseEhFrame(ehFrame, Number(address));
  for (const description of descriptions) {
    const last = description.start + description.length;
    if (description.start < Number(start) || description.length <= 0 || last > Number(end)) {
      throw new KcareError(
        'PATCH_MALFORMED',
        'patch: an unwind entry covers other memory than code of the patch',
      );
    }
  }
  const [first] = descriptions;
  if (!first) throw new KcareError('PATCH_MALFORMED', 'patch: the unwind tables have no entry');
  const bytes = Buffer.alloc(registrationCodeSize);
  bytes.writeBigUInt64LE(address, 0);
  bytes.writeBigUInt64LE(BigInt(first.start), 8);
  bytes.writeBigUInt64LE(advance(address, first.offset), 16);
  bytes.set(registrationCode, registrationLayout.codeOffset);
  return bytes;
}
