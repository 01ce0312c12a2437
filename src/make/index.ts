// Patches for any project: from source patches and the project's own build.
export { makePatches, type MadeDeliverable, type MakeOptions, type MakeResult } from './make-patches.js';
