// The public face of the build layer: building a patch from a recipe, and unpacking packages of the archive.
export { unpackBinary, unpackSource } from './archive.js';
export { buildRecipe, type BuildOptions } from './build-recipe.js';
export type { BuildResult, Refusal, RefusalCode } from './result.js';
export { defaultWorkDirectory, packageRoot } from './work-directory.js';
