// `kcarectl`: reads options, calls the agent, prints.
import {
  importKey,
  infoExitCode,
  libInfo,
  libPatchInfo,
  libUnload,
  libUpdate,
  openAgent,
  patchList,
  patchLocally,
  version,
  writeSymbols,
  type Agent,
  type LibraryInfo,
  type LibraryPatchInfo,
  type LibraryOptions,
  type LibraryResult,
  type UserspacePatchType,
} from '../agent/index.js';
import { exitCodes, KcareError } from '../base/errors.js';
import { answerOfServer, runByServer } from '../daemon/client.js';
import {
  kcarectlProgram,
  parseAction,
  type KcarectlAction,
  type KcarectlOptions,
} from './kcarectl-options.js';
import { keepingCveList } from './keeping-cve-list.js';
import { runKernel } from './kernel-commands.js';
import { libraryJson } from './library-json.js';
import { libraryText, type LibraryCommand } from './library-text.js';
import { patchListText } from './patch-list-text.js';
import { runPolicy } from './policy-commands.js';
import { printJson, printLine, printWarnings } from './print.js';
import { progressLine } from './progress.js';
import { exitCodeOf } from './run-program.js';
import { symbolsText } from './symbols-text.js';

async function run(action: KcarectlAction, options: KcarectlOptions): Promise<number> {
  switch (action.kind) {
    case 'info':
    case 'patch-info': {
      const pids = { pids: options.pid };
      const answer = await answerOfServer(options.root, { request: action.kind, ...pids });
      const here = (): LibraryInfo | LibraryPatchInfo | Promise<LibraryInfo> =>
        action.kind === 'info' ? libInfo(options.root, pids) : libPatchInfo(pids);
      const info = answer ? (answer.value as LibraryInfo | LibraryPatchInfo) : await here();
      printJson(info);
      return infoExitCode(info);
    }
    case 'symbols': {
      const symbols = writeSymbols(action.pid, action.directory);
      if (options.json) printJson(symbols);
      else symbolsText(symbols).forEach(printLine);
      return exitCodes.done;
    }
    case 'cve-list':
    case 'vex':
    case 'oval':
    case 'metrics':
    case 'doctor': {
      const { runReport } = await import('./scanner-commands.js');
      return await runReport(action.kind, options);
    }
    case 'import-key':
      return await runImportKey(action.path, options);
    case 'update':
      return await runUpdate(action.types, options);
    case 'policy': {
      const { policy } = action;
      if (policy.kind !== 'smart-update')
        return await runPolicy(policy, { ...options, library: libraryOptions(options) });
      const agent = await openAgent(options.root);
      const smart = { command: '--lib-smart-update', source: 'policy', mode: 'auto' } as const;
      return await runLibrary('update', agent, options, (library) =>
        libUpdate(agent, { ...library, ...smart }),
      );
    }
    case 'kernel':
      return await runKernel(action.kernel, options);
    case 'unload': {
      const agent = await openAgent(options.root);
      return await runLibrary('unload', agent, options, (library) =>
        runByServer(options.root, 'unload', library, () => libUnload(agent, library)),
      );
    }
    case 'patch': {
      const agent = await openAgent(options.root);
      const { pids, files } = action;
      return await runLibrary('update', agent, options, (library) =>
        patchLocally(agent, { ...library, pids, files }),
      );
    }
    case 'unpatch': {
      const agent = await openAgent(options.root);
      return await runLibrary('unload', agent, options, (library) =>
        libUnload(agent, { ...library, pids: action.pids }),
      );
    }
    case 'list': {
      const list = patchList({ pids: action.pids });
      if (options.json) printJson(list);
      else patchListText(list).forEach(printLine);
      return infoExitCode(list);
    }
  }
}

async function runImportKey(path: string, options: KcarectlOptions): Promise<number> {
  const agent = await openAgent(options.root);
  const key = await importKey(agent, path);
  if (options.json) {
    printJson(key);
  } else {
    printWarnings([...agent.warnings, ...agent.logProblems()]);
    printLine(`The key ${key.fingerprint} of ${key.userId} is trusted now.`);
  }
  return exitCodes.done;
}

async function runUpdate(
  types: readonly UserspacePatchType[] | 'configured',
  options: KcarectlOptions,
): Promise<number> {
  const agent = await openAgent(options.root);
  const chosen = types === 'configured' ? agent.config.userspacePatches : types;
  if (!chosen.includes('libs')) {
    throw new KcareError(
      'USAGE',
      'Patches for QEMU are not available; only those for libraries ("libs") are.',
    );
  }
  const noted: Agent = chosen.includes('qemu')
    ? {
        ...agent,
        warnings: [...agent.warnings, 'Patches for QEMU are not available; only libraries are patched.'],
      }
    : agent;
  return await runLibrary('update', noted, options, (library) => {
    const here = (): Promise<LibraryResult> => libUpdate(noted, library);
    return noted === agent ? runByServer(options.root, 'update', library, here) : here();
  });
}

async function runLibrary(
  command: LibraryCommand,
  agent: Agent,
  options: KcarectlOptions,
  action: (library: LibraryOptions) => Promise<LibraryResult>,
): Promise<number> {
  const progress = progressLine(command === 'update' ? 'Patching' : 'Unpatching');
  try {
    const library = { ...libraryOptions(options), onProgress: progress.show };
    const run = (): Promise<LibraryResult> => action(library);
    const result = library.dryRun ? await run() : await keepingCveList(command, agent, run);
    progress.clear();
    if (options.json) {
      printJson(libraryJson(result));
    } else {
      printWarnings(result.warnings);
      libraryText(command, result).forEach(printLine);
    }
    return result.exitCode;
  } finally {
    progress.clear();
  }
}

function libraryOptions({ pid, wait, dryRun }: KcarectlOptions): LibraryOptions {
  return { pids: pid, waitMs: wait * 1000, dryRun: dryRun === true };
}

process.exitCode = await exitCodeOf('kcarectl', async () => {
  const program = kcarectlProgram(version()).parse();
  const options = program.opts<KcarectlOptions>();
  return await run(parseAction(options, program.args), options);
});
