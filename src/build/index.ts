// The public face of the build layer: building a patch from a recipe, unpacking packages of the archive, and what looks at a patch again needs.
export { archiveVersions, unpackBinary, unpackSource } from './archive.js';
export { buildRecipe, type BuildOptions } from './build-recipe.js';
export type { MaskedCode } from './masked-search.js';
export type { BuildResult, Refusal } from './result.js';
export { wayOutOf, type RefusalCode } from './refusal-table.js';
export { readRecipe } from './recipe.js';
export { run } from './run.js';
export { ShippedObject } from './shipped-object.js';
export { decodeMask, maskedDigest } from './unit-proof.js';
export { compareVersions } from './versions.js';
export { defaultWorkDirectory } from './work-directory.js';
