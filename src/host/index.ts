// All processes of the host: discovery, blacklist, and runs over many processes.
export { Blacklist, type BlacklistProblem, type BlacklistRule } from './blacklist.js';
export {
  coverageJudge,
  coverageStates,
  countStates,
  surveyCoverage,
  type CoverageOptions,
  type CoverageState,
  type KnownPatch,
  type KnownPatches,
  type ProcessCoverage,
} from './coverage.js';
export {
  commandOf,
  executableOf,
  discover,
  type Discovery,
  type DiscoverOptions,
  type HostProcess,
  type UnreadableProcess,
} from './discover.js';
export {
  exitCodeOf,
  isLeftBehind,
  isOpen,
  summarise,
  type PatchedObject,
  type ProcessOutcome,
  type Progress,
  type Summary,
} from './outcome.js';
export { readOutcomes, recordOutcomes, type OutcomeRecord } from './outcome-records.js';
export { bringNewcomer, lookAtNewcomer, type Newcomer, type NewcomerRules } from './newcomer.js';
export { compilePosixExpression } from './posix-expression.js';
export { infoAll, unloadAll, updateAll, type PatchedProcess, type RunOptions } from './update.js';
