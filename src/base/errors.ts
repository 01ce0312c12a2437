// The one table of errors: code, exit code, HTTP status, and what to do next. docs/errors.md lists the same rows.

/** Exit codes of all commands. `refused` means: understood, unsafe or untrusted, nothing was changed. */
export const exitCodes = {
  done: 0,
  failed: 1,
  refused: 2,
  /** kcare-build: the sources give the same code, there is nothing to patch. */
  nothingChanged: 3,
  /** kcarectl: some processes were left as they were; the output says which and why. */
  partial: 4,
  /** kcare-uchecker: processes execute what is not up to date. */
  outdated: 5,
  /** kcare-check: this host cannot be patched. */
  notCovered: 6,
  usage: 64,
} as const;

interface ErrorRow {
  readonly exit: number;
  readonly http: number;
  /** What the user can do next; empty when the message alone says it. */
  readonly hint: string;
}

const { failed, refused } = exitCodes;

export const errorTable = {
  INTERNAL: { exit: failed, http: 500, hint: 'This is a defect of kcare; please report it with the log.' },
  USAGE: { exit: exitCodes.usage, http: 400, hint: 'See --help.' },
  NOT_PERMITTED: {
    exit: failed,
    http: 403,
    hint: 'Run as root, which needs CAP_SYS_PTRACE in a container, or as the owner of the target process.',
  },
  NO_SPACE: { exit: failed, http: 507, hint: 'Free some disk space and run the command again.' },
  READ_ONLY: {
    exit: failed,
    http: 500,
    hint: 'Mount the file system so that it can be written; the kernel log says whether an error made it read-only.',
  },
  FILE_MISSING: { exit: failed, http: 404, hint: 'Check the path.' },
  ELF_MALFORMED: { exit: refused, http: 400, hint: 'The file is damaged or is not an ELF file.' },
  ELF_UNSUPPORTED: {
    exit: refused,
    http: 400,
    hint: 'Only 64-bit little-endian x86-64 ELF files are supported.',
  },
  PATCH_MALFORMED: { exit: refused, http: 400, hint: 'Fetch or build the patch again.' },
  PATCH_TOO_NEW: { exit: refused, http: 400, hint: 'Update kcare: the patch was made for a newer version.' },
  BUILD_ID_MISMATCH: { exit: refused, http: 409, hint: 'The patch is for another build of this object.' },
  BYTES_MISMATCH: {
    exit: refused,
    http: 409,
    hint: 'The code in memory is not the code the patch was made for; another tool may have changed it.',
  },
  SYMBOL_UNRESOLVED: { exit: refused, http: 409, hint: 'The process lacks a symbol that the patch needs.' },
  PATCH_DECLINED: {
    exit: refused,
    http: 409,
    hint: 'A hook of the patch keeps it from being applied now; what its result means says who made the patch.',
  },
  PATCH_PERMANENT: {
    exit: refused,
    http: 409,
    hint: 'Restart the process to be rid of the patch, or apply a higher level of it.',
  },
  NO_GAP: { exit: refused, http: 409, hint: 'No free address range within 2 GiB of the object.' },
  JUMP_CROSSES_PAGE: {
    exit: refused,
    http: 409,
    hint: 'The jump cannot be written at once; build a patch that replaces the callers of this function instead.',
  },
  RECIPE_MALFORMED: {
    exit: refused,
    http: 400,
    hint: 'Correct the recipe; docs/building-patches.md describes its fields.',
  },
  BUILD_TOOL_FAILED: {
    exit: failed,
    http: 500,
    hint: 'Install the program that is missing or mend what it complains about, then build again.',
  },
  SOURCE_PATCH_REJECTED: {
    exit: failed,
    http: 409,
    hint: 'Make the patch for exactly these sources (diff -u, one directory stripped as by patch -p1); the tree is as it was.',
  },
  NOTHING_RECORDED: {
    exit: failed,
    http: 409,
    hint: 'If the project was built before, run again with --clean; if its build calls the compiler by its whole path (CMake, Meson), configure it with CC=libcare-cc CXX=libcare-c++.',
  },
  ARCHIVE_UNAVAILABLE: {
    exit: failed,
    http: 503,
    hint: 'Check the entries in /etc/apt and the network, then build again.',
  },
  TARGET_GONE: { exit: failed, http: 410, hint: 'The process ended; nothing is left to do.' },
  TARGET_MEMORY: { exit: failed, http: 409, hint: 'The memory of the process could not be read or written.' },
  TARGET_BUSY: {
    exit: exitCodes.partial,
    http: 409,
    hint: 'Run the command again later, or wait longer with --wait SECONDS.',
  },
  TARGET_TRACED: { exit: exitCodes.partial, http: 409, hint: 'End the debugger or tracer first.' },
  RUN_ENDED: { exit: exitCodes.partial, http: 503, hint: 'Run the command again.' },
  TARGET_UNSUPPORTED: { exit: refused, http: 409, hint: 'This kind of process cannot be patched.' },
  HEADER_MALFORMED: {
    exit: refused,
    http: 409,
    hint: 'The process holds a damaged patch header; it is left as it is.',
  },
  FEED_UNREACHABLE: {
    exit: failed,
    http: 502,
    hint: 'Check PATCH_SERVER, PREFIX, the proxy and the network; what is applied stays applied.',
  },
  FEED_UNTRUSTED: {
    exit: refused,
    http: 403,
    hint: 'Import the key of the feed with kcarectl --import-key PATH, after checking its fingerprint; if it is imported, check the clock of this host.',
  },
  FEED_EXPIRED: {
    exit: refused,
    http: 403,
    hint: 'The patch server offers outdated metadata: its publisher must run kcare-build publish --refresh; check the clock of this host, too.',
  },
  FEED_ROLLBACK: {
    exit: refused,
    http: 409,
    hint: 'The patch server offers older metadata than it did before; check whether it was restored from a backup or is being attacked.',
  },
  FEED_MISMATCH: {
    exit: refused,
    http: 409,
    hint: 'The files of the feed do not belong together; wait for the mirror to finish copying, or publish again.',
  },
  FEED_MALFORMED: { exit: refused, http: 400, hint: 'Check that PATCH_SERVER points to a kcare feed.' },
  FEED_MISSING: { exit: failed, http: 404, hint: 'Start a feed with kcare-build publish --create-keys.' },
  FEED_CONFLICT: {
    exit: refused,
    http: 409,
    hint: 'Build the patch with a higher level, or give the patchset a later name.',
  },
  FEED_BUSY: {
    exit: failed,
    http: 409,
    hint: 'Wait until the other command has ended, and run this one again.',
  },
  FEED_NOT_CACHED: {
    exit: failed,
    http: 404,
    hint: 'Run kcarectl --lib-update with the patch server reachable.',
  },
  PATCHSET_UNSIGNED: {
    exit: refused,
    http: 403,
    hint: 'Only patchsets signed by an imported OpenPGP key are used; ask the publisher of the feed to sign it.',
  },
  PATCHSET_UNKNOWN: { exit: refused, http: 404, hint: 'Choose one of the patchsets of the feed.' },
  KEY_INVALID: {
    exit: refused,
    http: 400,
    hint: 'Give an unexpired OpenPGP public key file, as exported by gpg --export.',
  },
  KEYS_MISSING: {
    exit: failed,
    http: 404,
    hint: 'Give the key directory of this feed with --keys, or make new keys with --create-keys.',
  },
  CONFIG_INVALID: {
    exit: refused,
    http: 400,
    hint: 'Correct the file; kcarectl --help lists the keys, docs/configuration.md their values.',
  },
  HOOK_FAILED: {
    exit: refused,
    http: 409,
    hint: 'Mend or remove the program in /etc/sysconfig/kcare/hooks; docs/update-hooks.md says what it is given.',
  },
  LIBCARE_DISABLED: {
    exit: refused,
    http: 409,
    hint: 'Turn LibCare on with kcarectl --enable-libcare, then run the command again.',
  },
  FILE_FOREIGN: {
    exit: refused,
    http: 409,
    hint: 'Move the file away, then run the command again.',
  },
  KERNEL_UNSUPPORTED: {
    exit: refused,
    http: 409,
    hint: 'The kernel cannot be patched on this host; libraries can: kcarectl --lib-update.',
  },
  KERNEL_UNKNOWN: {
    exit: refused,
    http: 404,
    hint: 'The feed has no patch for exactly this build of the kernel; ask its publisher for one.',
  },
  KERNEL_PATCH_MALFORMED: {
    exit: refused,
    http: 400,
    hint: 'Build the module again as docs/kernel.md says.',
  },
  KERNEL_PATCH_REFUSED: {
    exit: refused,
    http: 409,
    hint: 'docs/livepatch-modules.md says what a module cannot carry, and what helps.',
  },
  KERNEL_PATCH_MISMATCH: {
    exit: refused,
    http: 409,
    hint: 'The module is made for another kernel; nothing was loaded.',
  },
  KERNEL_LOAD_REFUSED: {
    exit: refused,
    http: 409,
    hint: 'docs/kernel.md says what the kernel demands of modules (signatures, secure boot); dmesg says more.',
  },
  KERNEL_BUSY: {
    exit: exitCodes.partial,
    http: 409,
    hint: 'Run the command again later; --force takes the patch into use although some tasks still run old code.',
  },
  KERNEL_OTHER_PATCHER: {
    exit: refused,
    http: 409,
    hint: 'Take the other live patch out first: two patchers must not replace the same functions.',
  },
  KERNEL_RETRY_BLOCKED: {
    exit: refused,
    http: 409,
    hint: 'Look for the reason of the crash; kcarectl --update, by hand, tries again.',
  },
  LOCK_HELD: {
    exit: failed,
    http: 423,
    hint: 'Wait until the other kcarectl has ended, and run this one again.',
  },
  UPLOAD_FAILED: {
    exit: failed,
    http: 502,
    hint: 'Send the file to support by hand, or run the command again.',
  },
  SERVER_UNREACHABLE: {
    exit: failed,
    http: 503,
    hint: 'Start it with systemctl start libcare.socket, or use kcarectl, which works without it.',
  },
  UNSAFE_MODE: {
    exit: refused,
    http: 403,
    hint: 'Make the path owned by root and not writable by group or others: chown root, chmod go-w.',
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;

/** An error with a code of {@link errorTable}; `details` is JSON-safe and is shown with `--json`. */
export class KcareError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly details: Readonly<Record<string, unknown>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'KcareError';
  }

  get exitCode(): number {
    return errorTable[this.code].exit;
  }

  get hint(): string {
    return errorTable[this.code].hint;
  }

  toJSON(): { code: ErrorCode; message: string; hint: string; details: Readonly<Record<string, unknown>> } {
    return { code: this.code, message: this.message, hint: this.hint, details: this.details };
  }
}

/** Runs `action`; when there is no space for what it writes to `path`, the error says so: the system's own does not. */
export async function namingFullDisk<Result>(path: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action();
  } catch (thrown) {
    const { code, message, details } = asKcareError(thrown);
    if (code !== 'NO_SPACE' || message.includes(path)) throw thrown;
    const text = `${path} cannot be written: ${message}`;
    throw new KcareError(code, text, { ...details, path }, { cause: thrown });
  }
}

/** Any thrown value as a KcareError; system errors keep their meaning (EACCES, ENOSPC, ENOENT). */
export function asKcareError(thrown: unknown): KcareError {
  if (thrown instanceof KcareError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const systemCode = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined;
  const code = (
    {
      EACCES: 'NOT_PERMITTED',
      EPERM: 'NOT_PERMITTED',
      ENOSPC: 'NO_SPACE',
      ENOENT: 'FILE_MISSING',
      ENOTDIR: 'FILE_MISSING',
      EROFS: 'READ_ONLY',
      EDQUOT: 'NO_SPACE',
    } as const
  )[String(systemCode)];
  return new KcareError(code ?? 'INTERNAL', message, {}, { cause: thrown });
}
