// Where a trial runs: a directory of its own, the library that holds processes, and the environment that brings both to them.
import { existsSync } from 'node:fs';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { packageRoot } from '../base/package-root.js';
import { run } from '../build/index.js';

const loaderName = 'ld-linux-x86-64.so.2';

export interface TrialPlace {
  readonly directory: string;
  /** Processes connect here before main. */
  readonly socket: string;
  /** The preloaded library. */
  readonly holder: string;
  /** Whole path of the object. */
  readonly object: string;
  /** The loader that lies beside the object. It has to be used where the object is a C library. */
  readonly loader: string | undefined;
  /** Environment of commands that shall run on the object. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Makes it, runs `action` in it and removes it. Throws BUILD_TOOL_FAILED where there is no C compiler. */
export async function inTrialPlace<Result>(
  object: string,
  action: (place: TrialPlace) => Promise<Result>,
): Promise<Result> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'kcare-trial-'));
  try {
    const holder = path.join(directory, 'hold.so');
    const source = path.join(packageRoot(), 'src', 'review', 'hold.c');
    await run('cc', ['-O2', '-fPIC', '-shared', '-o', holder, source]);
    return await action(describePlace(directory, holder, await realpath(object)));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function describePlace(directory: string, holder: string, object: string): TrialPlace {
  const libraries = path.dirname(object);
  const beside = path.join(libraries, loaderName);
  const loader = existsSync(beside) ? beside : undefined;
  const socket = path.join(directory, 'socket');
  const preload = [holder, ...(process.env['LD_PRELOAD']?.split(/[ :]+/) ?? [])].join(':');
  const inherited = process.env['LD_LIBRARY_PATH'];
  const isSystems = /^\/(?:usr\/)?lib(?:64)?\//.test(`${libraries}/`);
  // Another C library than that of the machine's loader would end every program.
  const searched = loader !== undefined && !isSystems ? undefined : libraries;
  const searchPath = [searched, inherited].filter((part) => part !== undefined && part !== '').join(':');
  const byLoader = loader && `${loader} --library-path ${libraries} --preload ${holder}`;
  return {
    directory,
    socket,
    holder,
    object,
    loader,
    environment: {
      LD_PRELOAD: preload,
      KCARE_TRIAL: socket,
      ...(isSystems || searchPath === '' ? {} : { LD_LIBRARY_PATH: searchPath }),
      ...(byLoader === undefined ? {} : { KCARE_LOADER: byLoader }),
    },
  };
}
