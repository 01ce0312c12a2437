// What kcarectl does, without its terminal.
export { openAgent, openBlacklist, readSettings, type Agent, type Settings } from './agent.js';
export { configKeys, parseConfig, patchTypes, type AgentConfig, type UserspacePatchType } from './config.js';
export { auditRules, packagedProgram } from './audit-rules.js';
export { libAutoUpdate, type AutoUpdate, type AutoUpdateOptions } from './auto-update.js';
export { testBlacklist, type BlacklistAnswer } from './blacklist-test.js';
export {
  initCron,
  removeCron,
  showCron,
  type CronChange,
  type CronJob,
  type JobKind,
} from './libcare-cron.js';
export { disableLibcare, enableLibcare, type ServiceChange, type ServiceStep } from './libcare-service.js';
export { isLibcareEnabled, requireLibcare } from './libcare-state.js';
export { refreshFeed, type SourceOptions } from './patch-source.js';
export { patchsetSelection, type UpdateMode } from './selection.js';
export { isSystemdRunning, systemctl } from './systemd.js';
export { findHooks, hookDirectory, runUpdateHooks, type UpdateEvent } from './update-hooks.js';
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
export {
  kernelInfo,
  kernelStanding,
  type KernelInfo,
  type KernelStanding,
  type KernelStatus,
} from './kernel-info.js';
export type { KernelSource } from './kernel-source.js';
export {
  kernelUnload,
  kernelUpdate,
  type Freezer,
  type KernelOptions,
  type KernelResult,
} from './kernel-update.js';
export { patchLocally, type LocalOptions } from './local-patches.js';
export { agentPaths, type AgentPaths } from './paths.js';
export {
  fetchStanding,
  noteNewcomers,
  readStanding,
  standingStamp,
  type Standing,
  type StandingPatch,
} from './standing-patchset.js';
export { setSetting } from './set-setting.js';
export { setStickyPatch, type StickyChange } from './sticky-patch.js';
export { writeSymbols, type WrittenSymbols } from './symbol-files.js';
export { version } from './version.js';
