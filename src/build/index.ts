// The public face of the build layer: building a patch from a recipe, and unpacking packages of the archive.
export { unpackBinary, unpackSource } from './archive.js';
export { defaultWorkDirectory, packageRoot } from './work-directory.js';
