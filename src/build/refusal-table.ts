// Every reason why a patch is refused: what it means, and what helps.

interface RefusalExplanation {
  readonly meaning: string;
  readonly wayOut: string;
}

/** docs/building-patches.md has the same table; a test holds them together. */
export const refusalTable = {
  SOURCE_FUNCTION: {
    meaning: 'a named function is missing, defined twice, or its end cannot be told',
    wayOut: 'correct the recipe',
  },
  SAME_SOURCE: {
    meaning:
      'nothing that a fix names differs between the versions: the patch would claim a fix that it does not carry',
    wayOut: 'correct the recipe; take another fixed version',
  },
  CHANGED_SIGNATURE: {
    meaning:
      'parameters or result differ, and something may call the function that the patch does not replace: another object, a pointer, a file that the fix does not name',
    wayOut: 'name all callers; else none: restart with the fixed version',
  },
  CHANGED_MACRO: {
    meaning: 'a function uses a macro that the versions define differently, or such a macro stands for it',
    wayOut: 'take the macro along with `macros`, or none',
  },
  CHANGED_TYPE: {
    meaning:
      'a structure, union, enumeration or named type that running processes hold values of has another layout; see below',
    wayOut: 'an update function that converts the values, if they keep their size',
  },
  CHANGED_DATA: {
    meaning:
      'initial contents or size of data changed, or thread-local data are new: threads that run have none',
    wayOut: 'an update function that converts the data, if they keep their size',
  },
  HOOK: {
    meaning:
      'a hook or update function is not new, calls what may take a lock, or stands in a patch that replaces no function',
    wayOut: 'write it as docs/libcare-patch-make.md says under "Hooks"',
  },
  RUN_AT_LOAD: {
    meaning:
      'a constructor or a resolver of an indirect function changed or is new: the loader has called it already',
    wayOut: 'none: restart',
  },
  NO_COMPILE_COMMAND: {
    meaning: 'the file is not compiled by the build, or is not in both versions',
    wayOut: 'correct `file` or `commands`',
  },
  DOES_NOT_COMPILE: {
    meaning: 'new functions need what the old headers lack',
    wayOut: 'add `adds`, or choose an older fixed version',
  },
  INLINED_ELSEWHERE: {
    meaning: 'the library holds inlined or cloned copies that the patch would leave alone',
    wayOut: 'add the functions that contain them',
  },
  NOT_FOUND_IN_OBJECT: {
    meaning: 'the compiled code is not in the shipped library: other flags or another compiler',
    wayOut: 'correct `build`',
  },
  AMBIGUOUS: {
    meaning: 'the code occurs several times, or copies cannot be told apart',
    wayOut: 'none: restart with the fixed version',
  },
  TOO_SHORT: {
    meaning: 'the original function is shorter than a 5-byte jump',
    wayOut: 'name its callers instead',
  },
  JUMP_CROSSES_PAGE: {
    meaning: 'the jump would lie on two pages and could not be written at once',
    wayOut: 'name its callers instead',
  },
  UNRESOLVED_SYMBOL: {
    meaning:
      "a symbol's address cannot be proved; or thread-local data of another object or an indirect function have no slot in the object; or the address of a new function is taken (it would outlive an unload)",
    wayOut: 'none: restart with the fixed version',
  },
  UNSUPPORTED_RELOCATION: {
    meaning:
      'for example thread-local data of which no slot of the object shows where they are, or a foreign datum in code that is not position independent',
    wayOut: 'none: restart with the fixed version',
  },
  UNWIND_TABLE: {
    meaning: 'a function without unwind entry, or with one that is not position independent',
    wayOut: 'build with `-fasynchronous-unwind-tables`, as is the default',
  },
  NOT_INDEPENDENT: {
    meaning:
      'a function that the recipe declares independent comes back, or might, to the bytes under the jump',
    wayOut: 'remove `independent`',
  },
  NEW_SOURCE: {
    meaning: 'a file is compiled only with the patches (`libcare-patch-make` only)',
    wayOut: 'put its functions into a file that exists',
  },
  LINK_UNKNOWN: {
    meaning: 'the link left no map of the GNU linker (`libcare-patch-make` only)',
    wayOut: 'link with GNU ld: `-fuse-ld=bfd`',
  },
  LINK_TIME_OPTIMIZATION: {
    meaning:
      'the unit is compiled with `-flto`; the code that runs is made by the linker out of all units at once, so no compile of the unit shows it',
    wayOut: 'build with `-fno-lto`',
  },
} as const satisfies Readonly<Record<string, RefusalExplanation>>;

export type RefusalCode = keyof typeof refusalTable;

/** What helps against a refusal, for people. */
export const wayOutOf = (code: RefusalCode): string => refusalTable[code].wayOut.replaceAll('`', '');
