// What kcarectl does, without its terminal.
export { openAgent, type Agent } from './agent.js';
export { configKeys, parseConfig, patchTypes, type AgentConfig, type UserspacePatchType } from './config.js';
export {
  infoExitCode,
  libInfo,
  libPatchInfo,
  type LibraryInfo,
  type LibraryPatchInfo,
} from './library-info.js';
export {
  importKey,
  libUnload,
  libUpdate,
  type LibraryOptions,
  type LibraryResult,
} from './library-update.js';
export { agentPaths, type AgentPaths } from './paths.js';
export { version } from './version.js';
