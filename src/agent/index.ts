// What kcarectl does, without its terminal.
export { openAgent, openBlacklist, readSettings, type Agent, type Settings } from './agent.js';
export { configKeys, parseConfig, patchTypes, type AgentConfig, type UserspacePatchType } from './config.js';
export { cachedFeedOf, knownPatches, libraryCoverage, type LibraryCoverage } from './known-patches.js';
export {
  infoExitCode,
  libInfo,
  libPatchInfo,
  patchList,
  type InfoProcess,
  type LibraryInfo,
  type LibraryPatchInfo,
  type PatchList,
} from './library-info.js';
export {
  importKey,
  libUnload,
  libUpdate,
  type LibraryOptions,
  type LibraryResult,
} from './library-update.js';
export { patchLocally, type LocalOptions } from './local-patches.js';
export { agentPaths, type AgentPaths } from './paths.js';
export { writeSymbols, type WrittenSymbols } from './symbol-files.js';
export { version } from './version.js';
