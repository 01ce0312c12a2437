// Public face of the kernel layer: live patches of the running kernel by its own livepatch interface.
export { companionRecord, loadCompanion, writeRecord } from './companion.js';
export { inspectKernel, livePatches, whyUnpatchable, type Kernel, type LivePatch } from './inspect.js';
export {
  finishTransition,
  loadLivePatch,
  unloadLivePatch,
  type FollowOptions,
  type TransitionResult,
} from './load.js';
export { parseRecord, printRecord, type PatchRecord } from './record.js';
export { applySysctls, parseSysctls } from './sysctl.js';
export { blockersOf, type Blocker } from './transition.js';
