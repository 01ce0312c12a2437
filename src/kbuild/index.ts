// The public face of making kernel patches.
export {
  buildKernelDiff,
  buildKernelRecipe,
  type KernelBuildOptions,
  type KernelBuildResult,
} from './build-kernel.js';
export type { ChangedUnit, KernelSymbol } from './changed-unit.js';
export { emitLivepatchModule, exportedSymbols, type ModuleFacts } from './livepatch-module.js';
export { signModule, type SigningKey } from './module-signature.js';
export { kernelWayOut, type KernelRefusal } from './refusals.js';
