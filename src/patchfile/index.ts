// Public face of the patch file layer.
export { checkPatch } from './check.js';
export { constantSections, fileExtension, formatVersion, limits, loadedSections } from './format.js';
export { jumpCrossesPage, jumpOffset, jumpSize } from './jump.js';
export type * from './model.js';
export { readPatch } from './read.js';
export { writePatch } from './write.js';
